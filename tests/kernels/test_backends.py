"""The choice of a backend, and the checks before anything runs."""

import subprocess
import sys

import pytest
import torch
from cases import KINDS, Shape, case

import las_kernels
from las_kernels import backends, reference, torch_library

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_choice(monkeypatch):
    monkeypatch.delenv(backends.VARIABLE, raising=False)


def test_auto_is_the_reference_on_a_cpu_for_what_cpp_does_not_compute():
    assert backends.choose("auto", CPU, torch.float64) == "reference"
    assert backends.choose("auto", CPU, torch.bfloat16, "step") == "reference"


def test_auto_is_cpp_on_a_cpu_where_it_can_run(monkeypatch):
    row = backends.Backend(lambda device, dtype: None, backends.BACKENDS["cpp"].ops)
    monkeypatch.setitem(backends.BACKENDS, "cpp", row)
    assert backends.choose("auto", CPU, torch.float32, "step") == "cpp"
    assert backends.choose("auto", CPU, torch.float32) == "cpp"
    row = row._replace(why_not=lambda device, dtype: "no compiler")
    monkeypatch.setitem(backends.BACKENDS, "cpp", row)
    assert backends.choose("auto", CPU, torch.float32, "step") == "reference"
    assert backends.choose("auto", CPU, torch.float32) == "reference"
    with pytest.raises(RuntimeError, match="backend='cpp' cannot run: no compiler"):
        backends.choose("cpp", CPU, torch.float32)


def test_auto_is_triton_on_cuda_where_it_can_run(monkeypatch):
    cuda = torch.device("cuda")
    row = backends.Backend(lambda device, dtype: None, backends.BACKENDS["triton"].ops)
    monkeypatch.setitem(backends.BACKENDS, "triton", row)
    assert backends.choose("auto", cuda, torch.float32) == "triton"
    monkeypatch.setitem(backends.BACKENDS, "cuda", row)
    assert backends.choose("auto", cuda, torch.float32, "step") == "cuda"
    broken = row._replace(why_not=lambda device, dtype: "no nvcc")
    monkeypatch.setitem(backends.BACKENDS, "cuda", broken)
    assert backends.choose("auto", cuda, torch.float32, "step") == "triton"
    row = row._replace(why_not=lambda device, dtype: "no")
    monkeypatch.setitem(backends.BACKENDS, "triton", row)
    assert backends.choose("auto", cuda, torch.float32) == "reference"


def test_the_variable_overrides_auto_and_an_argument_overrides_it(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "threephase")
    assert backends.choose("auto", CPU, torch.float32) == "threephase"
    assert backends.choose("reference", CPU, torch.float32) == "reference"


def test_the_variable_reaches_the_public_functions(monkeypatch):
    c = case("additive", Shape())
    monkeypatch.setenv(backends.VARIABLE, "threephase")
    outputs = las_kernels.decode_sequence(c.embedded, c.memory, c.decoder, c.score)
    assert "decode_sequence" in str(outputs[1].grad_fn)
    monkeypatch.setenv(backends.VARIABLE, "no such")
    with pytest.raises(RuntimeError, match="LAS_KERNELS_BACKEND=no such cannot run: the backends"):
        las_kernels.attend(c.query, c.memory, c.score)


@pytest.mark.parametrize(
    ("name", "dtype", "reason"),
    [("triton", torch.float64, "not torch.float64"), ("fast", torch.float32, "auto, reference")],
)
def test_a_backend_that_cannot_run_says_why(name, dtype, reason):
    with pytest.raises(RuntimeError, match=f"backend='{name}' cannot run: .*{reason}"):
        backends.choose(name, CPU, dtype)


def test_importing_needs_no_triton_and_triton_on_a_cpu_says_why():
    code = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "triton":
            raise ImportError(name)
sys.meta_path.insert(0, Missing())
import torch, las_kernels
from las_kernels.backends import choose
try:
    choose("triton", torch.device("cpu"), torch.float32)
except RuntimeError as error:
    assert "the package triton is not installed" in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_triton_without_its_interpreter_refuses_a_cpu(monkeypatch):
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    with pytest.raises(RuntimeError, match="needs a CUDA device, not cpu"):
        backends.choose("triton", CPU, torch.float32)


@pytest.mark.parametrize("backend", ["reference", "threephase"])
@pytest.mark.parametrize("kind", KINDS)
def test_without_an_alignment_the_context_is_the_same(kind, backend):
    c = case(kind, Shape(B=3, N=2, H=2))
    expected = reference.attend(c.query, c.memory, c.score, c.previous)[0]
    context, alignment = las_kernels.attend(
        c.query, c.memory, c.score, c.previous, need_alignment=False, backend=backend
    )
    assert alignment is None
    torch.testing.assert_close(context, expected, rtol=1e-12, atol=1e-14)


def test_a_step_of_the_decoder_uses_the_backend():
    c = case("location", Shape(N=2))
    state = las_kernels.initial_state(c.memory, c.decoder, c.score, 2)
    projected = torch.randn(2, 2, 20, dtype=torch.float64)
    step = (projected, state, c.memory, c.decoder, c.score)
    expected = reference.decode_step(*step)
    output, after = las_kernels.decode_step(*step, backend="threephase")
    assert torch.equal(output, expected[0])
    for a, b in zip(after, expected[1], strict=True):
        assert torch.equal(a, b)
    assert "attend" in str(after.context.grad_fn)


@pytest.mark.parametrize("backend", ["threephase", "triton", "cuda"])
def test_the_operator_is_left_out_where_no_gradient_is_wanted(backend, monkeypatch):
    """It takes longer than launching a kernel; gradients and the compiler need it."""
    table = backends.BACKENDS["threephase" if backend == "cuda" else backend].ops()
    row = backends.Backend(lambda device, dtype: None, lambda: table)
    monkeypatch.setitem(backends.BACKENDS, backend, row)
    c = case("location", Shape(N=2, T=5)).to(torch.float32)
    step = (c.query, c.memory, c.score, c.previous)
    expected = las_kernels.attend(*step, backend=backend)
    assert "attend" in str(expected[0].grad_fn)

    def operator(*_):
        raise AssertionError("the operator was called")

    with torch.no_grad():
        compiled = torch.compile(las_kernels.attend, fullgraph=True, backend="eager")
        through_compiler = compiled(*step, backend=backend)
        monkeypatch.setattr(torch_library, "attend", operator)
        found = las_kernels.attend(*step, backend=backend)
    for a, b, right in zip(found, through_compiler, expected, strict=True):
        assert torch.equal(a, right)
        assert torch.equal(b, right)
    with pytest.raises(AssertionError, match="the operator was called"):
        las_kernels.attend(*step, backend=backend)


def test_autocast_decides_the_type_of_the_operator():
    c = case("location", Shape()).to(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = las_kernels.decode_sequence(
            c.embedded, c.memory, c.decoder, c.score, backend="threephase"
        )
        expected = las_kernels.decode_sequence(c.embedded, c.memory, c.decoder, c.score)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.bfloat16
        torch.testing.assert_close(a.float(), b.float(), rtol=0.05, atol=0.05)
    sum(x.float().sum() for x in found).backward()
    assert c.memory.keys.grad.dtype == torch.float32


WRONG = {
    "query": lambda c: {"query": c.query[..., :-1]},
    "previous": lambda c: {"previous": None},
    "keys": lambda c: {"memory": c.memory._replace(keys=c.memory.keys[0])},
    "values": lambda c: {"memory": c.memory._replace(values=c.memory.values[:, 1:])},
    "lengths": lambda c: {"memory": c.memory._replace(lengths=c.memory.lengths[1:])},
    "lengths must be 1 to 9": lambda c: {
        "memory": c.memory._replace(lengths=torch.tensor([10, 1]))
    },
    "found 0, 9": lambda c: {"memory": c.memory._replace(lengths=torch.tensor([9, 0]))},
    "at least one frame": lambda c: {
        "memory": las_kernels.Memory(c.memory.keys[:, :0], c.memory.values[:, :0], c.memory.lengths)
    },
    "v must": lambda c: {"score": c.score._replace(v=c.score.v[1:])},
    "v is missing": lambda c: {"score": c.score._replace(v=None)},
    "filters and projection": lambda c: {"score": c.score._replace(projection=None)},
    "filters must be .*W odd": lambda c: {
        "score": c.score._replace(filters=c.score.filters[:, 1:])
    },
    "projection must": lambda c: {"score": c.score._replace(projection=c.score.projection.T)},
    "heads must divide": lambda c: {"score": c.score._replace(heads=4)},
}


@pytest.mark.parametrize("backend", ["reference", "threephase", "triton"])
@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_shape_names_the_argument(message, backend):
    c = case("location", Shape()).to(torch.float32)
    arguments = {x: getattr(c, x) for x in ("query", "memory", "score", "previous")}
    arguments |= WRONG[message](c)
    with pytest.raises(ValueError, match=message):
        las_kernels.attend(**arguments, backend=backend)


def half(x):
    return x.to(torch.float16)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("values", lambda c: {"memory": c.memory._replace(values=half(c.memory.values))}),
        ("lengths", lambda c: {"memory": c.memory._replace(lengths=c.memory.lengths.float())}),
        ("query", lambda c: {"query": half(c.query)}),
        ("previous", lambda c: {"previous": half(c.previous)}),
        ("v", lambda c: {"score": c.score._replace(v=half(c.score.v))}),
        ("keys", lambda c: {"query": c.query.to("meta")}),
    ],
)
def test_a_wrong_type_or_device_names_the_argument(name, change):
    c = case("location", Shape()).to(torch.float32)
    arguments = {x: getattr(c, x) for x in ("query", "memory", "score", "previous")} | change(c)
    with pytest.raises(TypeError, match=name):
        las_kernels.attend(**arguments, backend="threephase")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("embedded", lambda c: {"embedded": c.embedded[:, :0]}),
        ("embedded", lambda c: {"embedded": c.embedded[:1]}),
        (
            r"recurrent_weights\[1\]",
            lambda c: {
                "decoder": c.decoder._replace(
                    recurrent_weights=[c.decoder.recurrent_weights[0], torch.zeros(3, 3).double()]
                )
            },
        ),
        ("context_weight", lambda c: {"decoder": c.decoder._replace(context_weight=c.embedded)}),
        ("query_weight", lambda c: {"decoder": c.decoder._replace(query_weight=c.embedded)}),
        ("masks.hidden", lambda c: {"masks": las_kernels.Masks(hidden=c.embedded[..., 0])}),
        ("masks.context", lambda c: {"masks": las_kernels.Masks(context=c.embedded[0])}),
    ],
)
def test_a_wrong_sequence_names_the_argument(name, change):
    c = case("location", Shape(L=2))
    arguments = {x: getattr(c, x) for x in ("embedded", "memory", "decoder", "score", "masks")}
    arguments |= change(c)
    with pytest.raises(ValueError, match=name):
        las_kernels.decode_sequence(**arguments, backend="threephase")


@pytest.mark.parametrize("kind", KINDS)
def test_auto_compiles_without_a_graph_break(kind):
    c = case(kind, Shape(U=2))

    def run(embedded):
        return las_kernels.decode_sequence(embedded, c.memory, c.decoder, c.score)

    compiled = torch.compile(run, fullgraph=True, backend="eager")
    for a, b in zip(compiled(c.embedded), run(c.embedded), strict=True):
        assert torch.equal(a, b)
