"""On a GPU, at the sizes of training and search; ``LAS_KERNELS_TEST_DEVICE=cuda`` asks for it."""

import pytest
import torch
from cases import DEVICE, Shape, case, dtype_name, gradients, relative

import las_kernels
from las_kernels import reference
from las_kernels.backends import choose

pytestmark = pytest.mark.skipif(
    DEVICE == "cpu", reason="needs a GPU and LAS_KERNELS_TEST_DEVICE=cuda"
)
LARGE = {
    "training": Shape(B=8, T=250, A=512, D=1024, C=10, W=201),
    "eight beams": Shape(B=2, N=8, T=250, A=512, D=1024, C=10, W=201),
    "8192 frames": Shape(B=1, T=8192, A=128, D=256, C=10, W=31),
    "odd, heads": Shape(B=3, N=3, T=333, A=330, D=510, H=3, C=7, W=33),
}
LIMITS = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (0.005, 0.005), torch.float16: (0.005,) * 2}


@pytest.mark.parametrize("dtype", LIMITS, ids=dtype_name)
@pytest.mark.parametrize("kind", ["additive", "location"])
@pytest.mark.parametrize("name", LARGE)
def test_step_and_every_gradient(name, kind, dtype):
    shape = LARGE[name]
    c = case(kind, shape)
    with torch.no_grad():
        for x in (c.score.v, c.score.projection):
            if x is not None:  # scores of order one, as in a trained model
                x.mul_((shape.A // shape.H) ** -0.5 * 3)
    c = c.to(dtype)
    exact = c.to(torch.float64)
    found = las_kernels.attend(c.query, c.memory, c.score, c.previous)
    expected = reference.attend(exact.query, exact.memory, exact.score, exact.previous)
    outputs, inputs = LIMITS[dtype]
    for a, b in zip(found, expected, strict=True):
        assert relative(a, b) < outputs
    ours = gradients(found, c.attention_leaves())
    for leaf, right in gradients(expected, exact.attention_leaves()).items():
        assert relative(ours[leaf], right) < inputs, leaf


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_name)
@pytest.mark.parametrize("kind", ["additive", "location", "dot"])
def test_sequence_and_every_gradient(kind, dtype):
    c = case(kind, Shape(B=4, T=120, A=64, D=96, U=20, S=80, L=2, W=31), dropout=True)
    c = c.to(dtype)
    exact = c.to(torch.float64)
    arguments = ("embedded", "memory", "decoder", "score", "masks")
    found = las_kernels.decode_sequence(*(getattr(c, x) for x in arguments))
    expected = reference.decode_sequence(*(getattr(exact, x) for x in arguments))
    # Twenty steps of a recurrence; what rounds to bfloat16 is to be no worse than eager PyTorch.
    eager = reference.decode_sequence(*(getattr(c, x) for x in arguments))
    outputs, inputs, times = (1e-4, 1e-3, 0.0) if dtype == torch.float32 else (0.02, 0.02, 1.5)
    for a, b, other in zip(found, expected, eager, strict=True):
        assert relative(a, b) < max(outputs, times * relative(other, b))
    ours, theirs = gradients(found, c.sequence_leaves()), gradients(eager, c.sequence_leaves())
    for leaf, right in gradients(expected, exact.sequence_leaves()).items():
        assert relative(ours[leaf], right) < max(inputs, times * relative(theirs[leaf], right)), (
            leaf
        )


@pytest.mark.parametrize("dropout", [False, True], ids=["", "dropout"])
@pytest.mark.parametrize("kind", ["additive", "location"])
def test_sequence_and_every_gradient_by_both_loops(kind, dropout, monkeypatch):
    """The loop in C++ gives the bits of that in Python, which Triton itself launches."""
    shape = Shape(B=4, T=121, A=64, D=96, U=20, S=80, L=2 if dropout else 1, W=31)
    c = case(kind, shape, dropout=dropout).to(torch.bfloat16)
    results = []
    for loop in ("python", "cpp"):
        monkeypatch.setenv("LAS_KERNELS_LOOP", loop)
        arguments = (c.embedded, c.memory, c.decoder, c.score, c.masks)
        found = las_kernels.decode_sequence(*arguments, backend="triton")
        results.append([*found, *gradients(found, c.sequence_leaves()).values()])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_a_sequence_has_the_same_bits_each_time():
    """Its programs arrive in another order each time."""
    c = case("additive", Shape(B=64, T=250, A=512, D=1024, U=20, S=256)).to(torch.bfloat16)
    results = []
    for _ in range(5):
        found = las_kernels.decode_sequence(c.embedded, c.memory, c.decoder, c.score)
        results.append([*found, *gradients(found, c.sequence_leaves()).values()])
    for again in results[1:]:
        for a, b in zip(again, results[0], strict=True):
            assert torch.equal(a, b)


def test_auto_is_triton():
    assert choose("auto", torch.device(DEVICE), torch.bfloat16) == "triton"


def test_a_step_is_captured_in_a_graph():
    c = case("location", LARGE["eight beams"]).to(torch.bfloat16)
    arguments = (c.query, c.memory, c.score, c.previous)
    with torch.no_grad():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            las_kernels.attend(*arguments, backend="triton")  # compiles
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = las_kernels.attend(*arguments, backend="triton")
        c.query.copy_(torch.randn_like(c.query))
        graph.replay()
        for a, b in zip(captured, las_kernels.attend(*arguments, backend="triton"), strict=True):
            assert torch.equal(a, b)


def test_lengths_on_a_gpu_are_checked_when_asked(monkeypatch):
    c = case("additive", Shape(T=9))
    wrong = c.memory._replace(lengths=c.memory.lengths + 9)
    monkeypatch.setenv("LAS_KERNELS_CHECK", "1")
    with pytest.raises(ValueError, match="lengths must be 1 to 9"):
        las_kernels.attend(c.query, wrong, c.score)
