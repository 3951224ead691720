"""The CUDA kernel against the float64 reference: on a GPU, and everywhere in an emulator.

The emulator (``emulator/``) compiles the same source as C++ and runs every thread of a block on a
CPU. What it cannot show is the machine: memory spaces, alignment, ``tanh.approx``, speed.
"""

import ctypes
import os
import re
from types import SimpleNamespace

import emulated
import pytest
import torch
from cases import KINDS, Shape, case, dtype_name, relative
from torch import Tensor

from las_kernels import Memory, Score, jit_build, reference
from las_kernels.cuda import attention_step as cuda_step

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 1e-3}


@pytest.fixture(scope="module")
def emulator() -> ctypes.CDLL:
    return emulated.library("attention_step")


@pytest.fixture
def gpu() -> None:
    emulated.need(cuda_step.available(), "the CUDA kernel")


Arguments = tuple[Tensor, Memory, Score, Tensor]


def arguments(kind: str, shape: Shape, dtype: torch.dtype, device: str = "cpu") -> Arguments:
    c = case(kind, shape, dtype)

    def move(x):
        return x.detach().to(device) if isinstance(x, Tensor) else x

    memory, score = (x._make(move(y) for y in x) for x in (c.memory, c.score))
    return move(c.query), memory, score, move(c.previous)


def exact(query: Tensor, memory: Memory, score: Score, previous: Tensor) -> tuple[Tensor, Tensor]:
    def double(x):
        return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x

    memory, score = (x._make(double(y) for y in x) for x in (memory, score))
    return reference.attend(double(query), memory, score, double(previous))


def emulate(
    library: ctypes.CDLL, given: Arguments, processors: int = 4, descending: bool = False
) -> tuple[Tensor, Tensor]:
    query, memory, score, previous = given
    context = query.new_full((*query.shape[:2], memory.values.shape[2]), torch.nan)
    alignment = query.new_full((*query.shape[:2], score.heads, memory.keys.shape[1]), torch.nan)
    library.las_emulator_order(int(descending))
    cuda_step.run(library, processors, 0, query, memory, score, previous, context, alignment)
    return context, alignment


def assert_right(found: tuple[Tensor, Tensor], given: Arguments) -> None:
    tolerance = TOLERANCES[given[0].dtype]
    for one, right in zip(found, exact(*given), strict=True):
        assert one.dtype == given[0].dtype
        assert relative(one, right) < tolerance
    padding = ~reference.padding_mask(given[1].lengths, found[1].shape[-1])[:, None, None]
    assert not found[1].masked_select(padding).any()


SHAPES = {
    "one of everything": Shape(B=1, N=1, T=1, A=1, D=1, C=1, W=1),
    "odd sizes, some beams missing": Shape(B=3, N=3, T=37, A=21, D=15, C=3, W=9, H=3),
    "vectors, two groups of beams": Shape(B=2, N=9, T=50, A=24, D=40, C=2, W=5),
    "wide values, more than a block": Shape(B=1, N=2, T=9, A=8, D=1100, C=1, W=3),
    "long filters, in parts": Shape(B=1, N=1, T=45, A=8, D=8, C=40, W=301),
    "wide keys, in parts": Shape(B=1, N=8, T=20, A=1500, D=8, C=4, W=3),
    "many channels": Shape(B=1, N=2, T=11, A=4, D=4, C=150, W=3),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_emulated(emulator, kind, shape):
    given = arguments(kind, shape, torch.float32)
    found = emulate(emulator, given)
    assert_right(found, given)
    for one, other in zip(found, emulate(emulator, given, descending=True), strict=True):
        assert torch.equal(one, other)  # else a barrier is missing


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=dtype_name)
@pytest.mark.parametrize("kind", KINDS)
def test_emulated_half_precision(emulator, kind, dtype):
    given = arguments(kind, Shape(B=2, N=4, T=33, A=16, D=20, C=3, W=7, H=2), dtype)
    assert_right(emulate(emulator, given), given)


@pytest.mark.parametrize("processors", [1, 3, 1000])
def test_emulated_with_any_number_of_spans(emulator, processors):
    given = arguments("location", Shape(B=2, N=1, T=300, A=8, D=8, C=2, W=5), torch.float32)
    assert_right(emulate(emulator, given, processors), given)


def test_emulated_extremes(emulator):
    query, memory, score, previous = arguments("dot", Shape(B=2, N=2, T=40), torch.float32)
    loud = query, memory, score._replace(scale=1e3), previous
    _, alignment = emulate(emulator, loud)
    largest = (query @ memory.keys.transpose(1, 2)).abs().max() * 1e3
    assert largest > 1e3
    assert (alignment - exact(*loud)[1]).abs().max() <= 4 * 2**-23 * largest
    torch.testing.assert_close(alignment.sum(-1), torch.ones(2, 2, 1), rtol=0, atol=1e-6)
    # A span of which every score is -inf has no weight; an utterance of such frames has no answer.
    query, keys = query.abs(), memory.keys.clone()
    keys[0, :20] = -torch.inf
    keys[1] = -torch.inf
    context, alignment = emulate(emulator, (query, memory._replace(keys=keys), score, previous))
    assert not alignment[0, ..., :20].any()
    assert context[0].isfinite().all()
    assert context[1].isnan().all()


def test_emulated_padding_is_not_read(emulator):
    query, memory, score, previous = arguments("location", Shape(B=3, N=2, T=30), torch.float32)
    clean = emulate(emulator, (query, memory, score, previous))
    padding = ~reference.padding_mask(memory.lengths, 30)[..., None]
    dirty = Memory(
        memory.keys.masked_fill(padding, torch.nan),
        memory.values.masked_fill(padding, torch.nan),
        memory.lengths.int(),
    )
    for one, other in zip(emulate(emulator, (query, dirty, score, previous)), clean, strict=True):
        assert torch.equal(one, other)


def test_emulated_views(emulator):
    """Rows of larger tensors, as the sequence hands them over, and memory that starts anywhere."""
    shape = Shape(B=2, N=3, T=20, A=8, D=12, H=2)
    query, memory, score, previous = given = arguments("location", shape, torch.float32)
    wanted = emulate(emulator, given)

    def view(x: Tensor) -> Tensor:
        whole = x.new_zeros(x.shape[0], x.shape[1] * 2, *x.shape[2:])
        whole[:, 1::2] = x
        return whole[:, 1::2]

    def shifted(x: Tensor) -> Tensor:
        return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)

    out = [view(torch.zeros_like(x)) for x in wanted]
    moved = Memory(shifted(memory.keys), shifted(memory.values), memory.lengths)
    cuda_step.run(emulator, 4, 0, view(query), moved, score, view(previous), *out)
    for one, right in zip(out, wanted, strict=True):
        torch.testing.assert_close(one, right, rtol=1e-5, atol=1e-6)


def test_the_emulator_notices_threads_that_wait_for_ever(tmp_path):
    """Or the tests above could pass because it does not."""
    source = tmp_path / "stuck.cpp"
    source.write_text(
        "#include <cuda_runtime.h>\n"
        'extern "C" int stuck() { emulator::launch([] {'
        "  if (threadIdx.x < 32) __shfl_xor_sync(~0u, 0.0f, threadIdx.x < 9 ? 1 : 2);"
        "  if (threadIdx.x == 5) __shfl_xor_sync(~0u, 0.0f, 1);"
        "}, dim3(1), 64, 0, false); return cudaGetLastError(); }\n"
    )
    try:
        step = jit_build.Step(
            source, [jit_build.cxx(), "-std=c++17", "-fPIC", f"-I{emulated.EMULATOR}"]
        )
        library = jit_build.load("stuck", [step], [jit_build.cxx(), "-shared"])
    except jit_build.BuildError as error:
        pytest.skip(str(error))
    assert library.stuck() == 719


def test_the_emulator_notices_what_is_not_aligned(emulator, monkeypatch):
    """A GPU reads several numbers at once only where they are."""
    query, memory, score, previous = arguments("additive", Shape(A=8, D=8), torch.float32)
    keys = torch.cat([torch.zeros(1), memory.keys.flatten()])[1:].view(memory.keys.shape)
    given = query, memory._replace(keys=keys), score, previous
    assert_right(emulate(emulator, given), given)
    plan = cuda_step.launch_plan
    monkeypatch.setattr(cuda_step, "launch_plan", lambda *x: plan(*x)._replace(vector=True))
    with pytest.raises(RuntimeError, match="not aligned"):
        emulate(emulator, given)


@pytest.mark.parametrize("beams", [1, 3, 8, 30])
@pytest.mark.parametrize("channels", [0, 1, 10, 150, cuda_step.MAX_CHANNELS])
@pytest.mark.parametrize("width", [1, 320, 512, 5000])
def test_every_plan_fits(beams, channels, width):
    for frames in (1, 250, 8192):
        for batch in (1, 64):
            location = (channels, 201) if channels else (0, 0)
            plan = cuda_step.launch_plan((batch, beams, frames, width, 2 * width), 1, location, 132)
            assert plan.shared <= 76 * 1024
            assert plan.split_len % 4 == plan.chunk % 4 == plan.taps % 4 == 0
            assert (
                (plan.num_splits - 1) * plan.split_len < frames <= plan.num_splits * plan.split_len
            )


@pytest.mark.parametrize(("batch", "beams", "frames"), [(64, 1, 250), (32, 1, 200), (16, 8, 200)])
def test_all_blocks_of_a_plan_run_at_once(batch, beams, frames):
    """As many as two for each of an H100's multiprocessors, and most of those."""
    plan = cuda_step.launch_plan((batch, beams, frames, 512, 1024), 1, (0, 0), 132)
    assert 200 <= batch * -(-beams // plan.beams) * plan.num_splits <= 264


@pytest.mark.parametrize(("batch", "parts"), [(1, 32), (8, 16), (32, 4), (64, 4)])
def test_the_splits_of_a_small_batch_are_joined_by_more_blocks(batch, parts):
    assert cuda_step.launch_plan((batch, 1, 250, 512, 1024), 1, (0, 0), 132).parts == parts


def test_too_many_channels_are_named():
    given = arguments("location", Shape(C=cuda_step.MAX_CHANNELS + 1), torch.float32)
    out = torch.empty(1)
    with pytest.raises(ValueError, match="filters"):
        cuda_step.run(None, 4, 0, *given, out, out)


@pytest.mark.parametrize("which", [0, 1])  # float16 differs from bfloat16 in conversions only
@pytest.mark.parametrize("arch", ["80", "90a"])
def test_the_source_compiles_without_spills(arch, which, tmp_path):
    spills = emulated.spills("attention_step", arch, which, tmp_path)
    assert len(spills) == 13
    assert set(spills) == {("0", "0")}


def test_a_launch_is_on_the_device_of_its_tensors(monkeypatch):
    """And the device that was current before comes back, which C++ would not see to."""

    class Query(Tensor):
        device = torch.device("cuda", 1)

    nothing = SimpleNamespace(multi_processor_count=4, cuda_stream=0)
    monkeypatch.setattr(torch.cuda, "device_of", emulated.Current)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: nothing)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: nothing)
    monkeypatch.setattr(cuda_step, "_LIBRARY", lambda: None)
    seen = []
    monkeypatch.setattr(cuda_step, "run", lambda *_: seen.append(emulated.Current.tensor))
    query, *rest = arguments("additive", Shape(), torch.float32)
    query = query.as_subclass(Query)
    cuda_step.forward(query, *rest, torch.empty(1), torch.empty(1))
    assert seen == [query] and emulated.Current.tensor is None
    assert "SetDevice" not in "".join(x.read_text() for x in jit_build.CUDA_SOURCES.iterdir())


@pytest.mark.parametrize("kind", emulated.PACKED)
def test_a_library_with_structs_of_another_size_is_refused(kind):
    emulated.library(kind)
    with pytest.raises(jit_build.BuildError, match=f"las_{kind}_size_float32 is .* bytes"):
        emulated.library(kind, emulated.PACKED[kind] - 8)


def test_without_a_gpu_there_is_a_reason(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cuda_step._LIBRARY.forget()
    try:
        assert cuda_step.available() == "no CUDA device"
        with pytest.raises(RuntimeError, match="no CUDA device"):
            cuda_step.attend(*arguments("additive", Shape(), torch.float32))
        assert not caplog.records
    finally:
        cuda_step._LIBRARY.forget()


def test_without_nvcc_there_is_one_line_of_log(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    cuda_step._LIBRARY.forget()
    try:
        assert "no nvcc" in cuda_step.available()
        assert "no nvcc" in cuda_step.available()
        assert len(caplog.records) == 1
    finally:
        cuda_step._LIBRARY.forget()


def test_nvcc_is_found(monkeypatch, tmp_path):
    for folder in ("toolkit/bin", "path"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "nvcc").write_text("#!/bin/sh\n")
        (tmp_path / folder / "nvcc").chmod(0o755)
    monkeypatch.setenv("PATH", os.fspath(tmp_path / "path"))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert cuda_step.nvcc() == os.fspath(tmp_path / "path" / "nvcc")
    monkeypatch.setenv("CUDA_HOME", os.fspath(tmp_path / "toolkit"))
    assert cuda_step.nvcc() == os.fspath(tmp_path / "toolkit" / "bin" / "nvcc")


def test_gradients_and_float64_run_the_reference():
    for dtype, leaf in ((torch.float64, False), (torch.float32, True)):
        query, memory, score, previous = arguments("location", Shape(), dtype)
        query.requires_grad_(leaf)
        found = cuda_step.attend(query, memory, score, previous)
        for one, right in zip(found, reference.attend(query, memory, score, previous), strict=True):
            assert torch.equal(one, right)


GPU_SHAPES = {
    **SHAPES,
    "training": Shape(B=4, N=1, T=250, A=512, D=1024, C=10, W=201),
    "search": Shape(B=2, N=8, T=250, A=320, D=640, C=10, W=201),
    "long": Shape(B=1, N=1, T=8192, A=128, D=256, C=10, W=31, H=4),
}


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("dtype", TOLERANCES, ids=dtype_name)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", GPU_SHAPES.values(), ids=GPU_SHAPES)
def test_on_a_gpu(kind, shape, dtype):
    given = arguments(kind, shape, dtype, "cuda")
    found = cuda_step.attend(*given)
    assert_right(found, given)
    for one, other in zip(found, cuda_step.attend(*given), strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("gpu")
def test_in_a_cuda_graph():
    given = arguments("location", Shape(B=2, N=4, T=100, A=64, D=64), torch.bfloat16, "cuda")
    wanted = cuda_step.attend(*given)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = cuda_step.attend(*given)
    graph.replay()
    torch.cuda.synchronize()
    for one, right in zip(found, wanted, strict=True):
        assert torch.equal(one, right)


@pytest.mark.parametrize("kind", emulated.PACKED)
def test_no_entry_has_a_type_of_its_own_file(kind):
    """Nvcc would keep such a function out of the library; the emulator's compiler does not."""
    source = (jit_build.CUDA_SOURCES / f"{kind}.cu").read_text()
    entries = re.findall(r'^extern "C" .*?\((.*?)\)', source, re.MULTILINE | re.DOTALL)
    assert len(entries) == 3
    taken = [" ".join(x.split()[:-1]) for entry in entries for x in entry.split(",")]
    assert set(taken) <= {"const void*", "void*", "int", ""}
