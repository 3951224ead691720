"""The loop over steps in C++ does what the loop in Python does: the same plan, the same bits.

The driver's launch is replaced: by Triton's interpreter, which computes, or by a record.
"""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cases import DEVICE, Shape, case, gradients

import las_kernels

pytest.importorskip("triton")
from las_kernels.triton import cpp_steps

LaunchKernel = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    *[ctypes.c_uint] * 7,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
)


class InterpretingDriver:
    """Its ``cuLaunchKernel`` runs the kernel in Triton's interpreter; functions are numbers."""

    def __init__(self):
        self.loaded, self.launches, self.status = [], [], 0
        self.callback = LaunchKernel(self.launch)
        self.address = ctypes.cast(self.callback, ctypes.c_void_p).value

    def load(self, launcher, arguments):
        self.loaded.append((launcher, arguments))
        passed = tuple(range(len(arguments)))
        return cpp_steps.Binary(len(self.loaded), 32, 0, passed, frozenset())

    def launch(self, function, x, y, z, threads, _y, _z, shared, stream, given, extra):
        launcher, arguments = self.loaded[function - 1]
        values = [ctypes.c_int64.from_address(given[i]).value for i in range(len(arguments))]
        tensors = [
            value if isinstance(example, int) else at_address(value, example.dtype)
            for value, example in zip(values, arguments, strict=True)
        ]
        self.launches.append(launcher.kernel.__name__)
        launcher.kernel[x, y, z](*tensors, **launcher.config)
        return self.status


def at_address(address, dtype):
    """What the interpreter takes for a pointer."""
    if address == 0:
        return torch.empty(0, dtype=dtype)
    memory = (ctypes.c_char * dtype.itemsize).from_address(address)
    return torch.frombuffer(memory, dtype=dtype, count=1)


@pytest.fixture
def driver(monkeypatch):
    if DEVICE != "cpu":
        pytest.skip("the driver of a GPU is a real one")
    if (reason := cpp_steps.available()) is not None:
        pytest.skip(reason)
    found = InterpretingDriver()
    active = SimpleNamespace(get_current_stream=lambda _: 0, get_current_device=lambda: 0)
    monkeypatch.setattr(cpp_steps, "driver", SimpleNamespace(active=active))
    monkeypatch.setattr(cpp_steps, "binary_of", found.load)
    monkeypatch.setattr(cpp_steps, "launch_function", lambda: found.address)
    monkeypatch.setenv("LAS_KERNELS_LOOP", "cpp")
    return found


def sequence(c):
    return las_kernels.decode_sequence(
        c.embedded, c.memory, c.decoder, c.score, c.masks, backend="triton"
    )


def results(c, outputs=3):
    found = sequence(c)
    return [*found, *gradients(found[:outputs], c.sequence_leaves()).values()]


# Outputs are two where no gradient of the alignments comes from outside.
@pytest.mark.parametrize(
    ("kind", "dtype", "dropout", "shape", "outputs"),
    [
        ("additive", torch.bfloat16, False, Shape(B=2, U=3), 2),
        ("additive", torch.float32, True, Shape(B=1, U=3, L=2), 3),
        ("location", torch.bfloat16, False, Shape(B=1, U=3), 3),
        ("location", torch.float32, True, Shape(B=1, U=3), 2),
        ("location", torch.float32, False, Shape(B=1, U=1), 3),
    ],
    ids=["additive", "additive, dropout, two layers", "location", "location, dropout", "one step"],
)
def test_both_loops_give_the_same_bits(kind, dtype, dropout, shape, outputs, driver, monkeypatch):
    shape = shape._replace(T=9, A=8, D=8, S=8, C=2, W=3)
    c = case(kind, shape, dropout=dropout).to(dtype)
    found = results(c, outputs)
    assert len(driver.launches) == shape.U * (2 + 2 * shape.L + (kind == "location"))
    monkeypatch.setenv("LAS_KERNELS_LOOP", "python")
    for a, b in zip(found, results(c, outputs), strict=True):
        assert (a is None) is (b is None)
        assert a is None or torch.equal(a, b)


@pytest.fixture(scope="module")
def launches():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, Path(__file__).with_name("step_loops.py")]
    environment["PYTHONPATH"] = str(Path(__file__).parents[2] / "kernels")
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("kind", "a_step"),
    [("additive", 4), ("additive, dropout", 4), ("location", 5), ("location, dropout", 5)],
)
def test_both_loops_launch_the_same(kind, a_step, launches):
    """Kernels, grids, threads, shared memory and every argument, of three steps."""
    if (reason := cpp_steps.available()) is not None:
        pytest.skip(reason)
    assert len(launches[kind]["python"]) == 3 * a_step
    assert launches[kind]["cpp"] == launches[kind]["python"]


def test_a_launch_that_fails_names_the_kernel_and_the_way_out(driver):
    driver.status = 700
    c = case("additive", Shape(T=3)).to(torch.float32)
    with pytest.raises(RuntimeError, match=r"lstm_cell_fwd.*error 700.*LAS_KERNELS_LOOP=python"):
        sequence(c)


def test_what_cpp_cannot_run_is_said_or_left_to_python(driver, monkeypatch):
    c = case("dot", Shape(T=3)).to(torch.float32)
    with pytest.raises(RuntimeError, match="=cpp cannot run: a step calls a function of Python"):
        sequence(c)
    monkeypatch.setenv("LAS_KERNELS_LOOP", "auto")
    sequence(c)
    monkeypatch.setenv("LAS_KERNELS_LOOP", "c++")
    with pytest.raises(ValueError, match="LAS_KERNELS_LOOP must be one of auto, cpp, python"):
        sequence(c)


PTX = ".visible .entry f(\n.param .u64 .ptr .global .align 1 f_param_0,\n.param .u32 f_param_1%s\n)"
SCRATCH = ",\n.param .u64 .ptr .global .align 1 f_param_2"


class Compiled(SimpleNamespace):
    """A kernel of Triton's: a pointer, an integer, and a constant between them."""

    __hash__ = object.__hash__

    def __init__(self, scratch=2, **metadata):
        plain = {"name": "f", "num_ctas": 1, "num_warps": 4, "shared": 96}
        signature = {"x": "*bf16", "C": "constexpr", "n": "i32"}
        super().__init__(
            metadata=SimpleNamespace(**(plain | metadata)),
            src=SimpleNamespace(signature=signature, attrs={(0,): [["tt.divisibility", 16]]}),
            asm={"ptx": PTX % (SCRATCH * scratch)},
            function=11,
        )

    def __getitem__(self, grid):
        return None


def test_a_plain_kernel_is_launched_as_triton_does_it():
    assert cpp_steps._binary(Compiled()) == cpp_steps.Binary(11, 128, 96, (0, 2), frozenset({0}))


@pytest.mark.parametrize(
    "unusual",
    [{"launch_pdl": True}, {"num_ctas": 2}, {"global_scratch_size": 8}, {"scratch": 1}],
    ids=str,
)
def test_an_unusual_kernel_is_left_to_triton(unusual):
    with pytest.raises(cpp_steps.CannotRunError):
        cpp_steps._binary(Compiled(**unusual))
