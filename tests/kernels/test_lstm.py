"""The bidirectional LSTM layer against autograd in float64, and its promises to the bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import las_kernels
from las_kernels import lstm
from las_kernels.cpu import lstm as cpu_lstm
from las_kernels.reference import padding_mask

cpp = pytest.mark.skipif(
    cpu_lstm.available() is not None, reason=f"no C++ here: {cpu_lstm.available()}"
)
SHAPES = {  # I, S, lengths
    "small": (3, 5, [9, 4, 1, 0]),
    "whole vectors": (32, 48, [20] * 5),
    "ragged": (17, 24, [3, 31, 30, 31, 8, 1, 19]),
    "panels and blocks": (300, 33, [150, 90, 140]),
    "one frame": (4, 2, [1]),
}


def layer(features: int, width: int, dtype=torch.float64) -> list[torch.Tensor]:
    torch.manual_seed(width)
    oracle = nn.LSTM(features, width, bidirectional=True, batch_first=True, dtype=dtype)
    return [weight.detach().requires_grad_() for weight in oracle.parameters()]


def frames(lengths, features: int, extra: int = 0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(len(lengths))
    T = max(lengths) + extra
    x = torch.randn(len(lengths), T, features, generator=generator, dtype=dtype)
    return x.requires_grad_(), torch.tensor(lengths)


def single(tensors):
    return [tensor.detach().float().requires_grad_() for tensor in tensors]


def run(x, lengths, weights, backend):
    """The output, and gradients of a sum that weighs its numbers differently."""
    out = las_kernels.bilstm(x, lengths, weights, backend=backend)
    seed = torch.sin(torch.arange(out.numel(), dtype=out.dtype)).view(out.shape)
    return [out.detach(), *torch.autograd.grad((out * seed).sum(), [x, *weights])]


def close(found, expected, name):
    """Within float32 rounding of long sums, relative to the largest."""
    scale = float(expected.abs().max())
    error = float((found.double() - expected).abs().max())
    assert error <= 1e-5 * scale + 1e-7, f"{name}: {error} of {scale}"


def named(tensors):
    return zip(["out", "x", *lstm._NAMES], tensors, strict=True)


@pytest.mark.parametrize("name", SHAPES)
def test_the_plain_form_equals_autograd(name):
    features, width, lengths = SHAPES[name]
    weights, (x, sizes) = layer(features, width), frames(lengths, features, 2)
    expected = run(x, sizes, weights, "reference")
    for (what, found), right in zip(
        named(run(x, sizes, weights, "threephase")), expected, strict=True
    ):
        torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-12, msg=what)


@cpp
@pytest.mark.parametrize("name", SHAPES)
def test_cpp_equals_autograd(name):
    features, width, lengths = SHAPES[name]
    weights, (x, sizes) = layer(features, width), frames(lengths, features, 2)
    expected = run(x, sizes, weights, "reference")
    x32, *weights32 = single([x, *weights])
    found = run(x32, sizes, weights32, "cpp")
    for (what, ours), right in zip(named(found), expected, strict=True):
        close(ours, right, what)
    with torch.no_grad():  # past the operator
        direct = las_kernels.bilstm(x32, sizes, weights32, backend="cpp")
    assert torch.equal(direct, found[0])


@cpp
@given(st.lists(st.integers(0, 12), min_size=1, max_size=9), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_cpp_equals_the_plain_form(lengths, features, width):
    weights, (x, sizes) = layer(features, width), frames(lengths, features, 1)
    expected = run(x, sizes, weights, "threephase")
    x32, *weights32 = single([x, *weights])
    found = run(x32, sizes, weights32, "cpp")
    for (what, ours), right in zip(named(found), expected, strict=True):
        close(ours, right, what)


@cpp
@given(st.lists(st.integers(1, 40), min_size=2, max_size=14), st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_a_batch_changes_no_bit(lengths, extra):
    weights, (x, sizes) = layer(29, 21), frames(lengths, 29, extra)
    x, *weights = single([x, *weights])
    out, dx = run(x, sizes, weights, "cpp")[:2]
    seed = torch.sin(torch.arange(out.numel(), dtype=out.dtype)).view(out.shape)
    for row, length in enumerate(lengths):
        own = x[row : row + 1, :length].detach().requires_grad_()
        alone = las_kernels.bilstm(own, sizes[row : row + 1], weights, backend="cpp")
        assert torch.equal(out[row, :length], alone[0])
        (alone[0] * seed[row, :length]).sum().backward()
        assert torch.equal(dx[row, :length], own.grad[0])


@cpp
def test_threads_change_no_bit():
    weights, (x, sizes) = layer(70, 40), frames([120, 33, 119, 60, 7, 80, 81, 2], 70)
    x, *weights = single([x, *weights])
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(run(x, sizes, weights, "cpp"))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("backend", ["threephase", pytest.param("cpp", marks=cpp)])
def test_padding_is_never_read_and_gets_no_gradient(backend):
    weights, (x, sizes) = layer(7, 9), frames([6, 11, 2], 7, 3)
    x, *weights = single([x, *weights])
    clean = run(x, sizes, weights, backend)
    padding = ~padding_mask(sizes, x.shape[1])
    with torch.no_grad():
        x[padding] = float("nan")
    for (what, dirty), right in zip(named(run(x, sizes, weights, backend)), clean, strict=True):
        assert torch.equal(dirty, right), what
    assert (clean[0][padding] == 0).all() and (clean[1][padding] == 0).all()


@cpp
def test_views_are_as_good_as_copies():
    weights, (x, sizes) = layer(6, 8), frames([5, 9], 6)
    x, *weights = single([x, *weights])
    turned = [w.detach().t().contiguous().t() if w.ndim > 1 else w.detach() for w in weights]
    with torch.no_grad():
        right = las_kernels.bilstm(x, sizes, weights)
        wide = torch.stack([x, x], -1)[..., 0]
        assert torch.equal(las_kernels.bilstm(wide, sizes.int(), turned), right)


def test_gradcheck():
    weights, (x, sizes) = layer(2, 3), frames([4, 2, 0], 2)

    def function(x, *weights):
        return lstm.bilstm_operator(x, sizes, list(weights), "threephase")[0]

    assert torch.autograd.gradcheck(function, (x, *weights))


@pytest.mark.parametrize("backend", ["threephase", pytest.param("cpp", marks=cpp)])
def test_opcheck(backend):
    weights, (x, sizes) = layer(2, 3), frames([4, 2], 2)
    if backend == "cpp":
        x, *weights = single([x, *weights])
    torch.library.opcheck(lstm.bilstm_operator, (x, sizes, weights, backend))


@cpp
def test_an_input_without_gradient_gets_none():
    weights, (x, sizes) = layer(6, 8), frames([5, 9], 6)
    x, *weights = single([x, *weights])
    right = run(x, sizes, weights, "cpp")[2:]
    out = las_kernels.bilstm(x.detach(), sizes, weights)
    seed = torch.sin(torch.arange(out.numel(), dtype=out.dtype)).view(out.shape)
    found = torch.autograd.grad((out * seed).sum(), weights)
    assert all(torch.equal(a, b) for a, b in zip(found, right, strict=True))


class Layer(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = [weight.detach() for weight in weights]

    def forward(self, x, lengths):
        return las_kernels.bilstm(x, lengths, self.weights)


@cpp
def test_compiles_and_exports_with_any_batch_and_length():
    weights, given = layer(6, 8), frames([5, 9, 4], 6)
    module = Layer(single(weights))
    x = given[0].detach().float()
    B, T = torch.export.Dim("B", min=2, max=64), torch.export.Dim("T", min=2, max=8192)
    with torch.no_grad():
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        dynamic = ({0: B, 1: T}, {0: B})
        program = torch.export.export(module, (x, given[1]), dynamic_shapes=dynamic)
        for more in (given, frames([3, 8, 12, 1], 6)):
            inputs = more[0].detach().float(), more[1]
            for form in (compiled, program.module()):
                assert torch.equal(form(*inputs), module(*inputs))


@pytest.mark.parametrize("backend", ["threephase", pytest.param("cpp", marks=cpp)])
def test_autocast_gives_its_type(backend):
    weights, (x, sizes) = layer(6, 8), frames([5, 9], 6)
    x, *weights = single([x, *weights])
    full = las_kernels.bilstm(x, sizes, weights)
    with torch.autocast("cpu", torch.bfloat16):
        for given in (x, x.bfloat16()):
            half = las_kernels.bilstm(given, sizes, weights, backend=backend)
            assert half.dtype == torch.bfloat16
            assert (half - full).abs().max() < 0.01
            half.float().sum().backward()


def test_without_a_compiler_it_is_torchs(monkeypatch):
    weights, (x, sizes) = layer(6, 8), frames([5, 9], 6)
    x, *weights = single([x, *weights])
    right = run(x, sizes, weights, "reference")
    monkeypatch.setattr(cpu_lstm, "available", lambda: "no compiler")
    for a, b in zip(run(x, sizes, weights, "auto"), right, strict=True):
        assert torch.equal(a, b)
    with pytest.raises(RuntimeError, match="no compiler"):
        las_kernels.bilstm(x, sizes, weights, backend="cpp")


def test_wrong_arguments_are_named():
    weights, (x, sizes) = layer(6, 8), frames([5, 9], 6)
    bilstm = las_kernels.bilstm
    with pytest.raises(ValueError, match=r"x must be \[B, T, I\]"):
        bilstm(x[0], sizes, weights)
    with pytest.raises(ValueError, match="weights must be eight"):
        bilstm(x, sizes, weights[:4])
    with pytest.raises(ValueError, match=r"weight_hh_l0 must be \[4S, S\]"):
        bilstm(x, sizes, [weights[0], weights[2], *weights[2:]])
    with pytest.raises(ValueError, match=r"weight_ih_l0_reverse must have shape \[32, 6\]"):
        bilstm(x, sizes, [*weights[:4], weights[1], *weights[5:]])
    with pytest.raises(ValueError, match=r"lengths must have shape \[2\]"):
        bilstm(x, sizes[:1], weights)
    for wrong in (-1, 10):
        with pytest.raises(ValueError, match=f"lengths must be 0 to 9, .* found .*{wrong}"):
            bilstm(x, torch.tensor([5, wrong]), weights)
        with pytest.raises(ValueError, match=rf"lengths\[1\] is {wrong}, not in 0..9"):
            cpu_lstm.forward(x.detach().float(), torch.tensor([5, wrong]), single(weights))
    with pytest.raises(TypeError, match="lengths must be int32 or int64"):
        bilstm(x, sizes.float(), weights)
    with pytest.raises(TypeError, match=r"x is torch.float32, weight_ih_l0 is torch.float64"):
        bilstm(x.float(), sizes, weights)
    with pytest.raises(TypeError, match=r"bias_hh_l0 is torch.float32"):
        bilstm(x, sizes, [*weights[:3], weights[3].float(), *weights[4:]])


def test_torch_s_form_under_autocast_on_a_cpu_without_bfloat16(monkeypatch):
    """Where ``torch.lstm`` would fail it computes in float32, and rounds."""
    monkeypatch.setattr(lstm, "bfloat16_on_cpu", lambda: False)
    weights, (x, sizes) = single(layer(6, 5)), frames([7, 3], 6, dtype=torch.float32)
    right = run(x, sizes, weights, "reference")
    with torch.autocast("cpu", torch.bfloat16):
        found = las_kernels.bilstm(x, sizes, weights, backend="reference")
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, right[0].bfloat16())
