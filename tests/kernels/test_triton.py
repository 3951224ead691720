"""The Triton kernels against the float64 reference, in Triton's interpreter.

On a GPU: ``LAS_KERNELS_TEST_DEVICE=cuda pytest tests/kernels/test_triton.py``.
"""

import pytest
import torch
from cases import (
    DEVICE,
    Shape,
    case,
    check_backward_operators,
    dtype_name,
    gradients,
    relative,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import las_kernels
from las_kernels import eager, reference, torch_library
from las_kernels.backends import BACKENDS
from las_kernels.triton import configs
from las_kernels.triton.configs import splits_for

OPS = BACKENDS["triton"].ops()
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")
HALVES = [torch.bfloat16, torch.float16]
ODD = {
    "one of everything": Shape(B=1, T=1, A=1, D=1, C=1, W=1),
    "several splits": Shape(B=3, N=1, T=70, A=20, D=24),
    "three beams, two heads": Shape(B=2, N=3, T=37, A=20, D=24, H=2, C=10, W=21),
    "nine beams": Shape(B=2, N=9, T=18, A=5, D=7),
    "wide": Shape(B=2, N=1, T=17, A=70, D=130, C=17, W=71),
}


def attend(c, backend="triton"):
    return las_kernels.attend(c.query, c.memory, c.score, c.previous, backend=backend)


def sequence(c, backend="triton"):
    return las_kernels.decode_sequence(
        c.embedded, c.memory, c.decoder, c.score, c.masks, backend=backend
    )


def close(ours, right, bound):
    """Relative to the whole tensor; a gradient that is zero must be zero to the same bound."""
    size = right.detach().double().norm()
    if size < 1e-9:
        assert ours.detach().double().abs().max() < 1e-3 * bound
    else:
        assert relative(ours, right) < bound


def check_step(kind, shape, dtype, outputs, inputs, seed=0):
    c = case(kind, shape, torch.float64, seed).to(dtype)
    exact = c.to(torch.float64)
    found, expected = attend(c), reference.attend(*exact[:1], *exact[3:5], exact.previous)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        close(a, b, outputs)
    ours = gradients(found, c.attention_leaves())
    for name, right in gradients(expected, exact.attention_leaves()).items():
        close(ours[name], right, inputs)


@pytest.mark.parametrize("kind", ["additive", "location"])
@pytest.mark.parametrize("name", ODD)
def test_step_and_every_gradient_in_float32(kind, name):
    check_step(kind, ODD[name], torch.float32, 1e-5, 1e-4)


@pytest.mark.parametrize("kind", ["additive", "location"])
@pytest.mark.parametrize("dtype", HALVES, ids=dtype_name)
def test_step_and_every_gradient_in_half_precision(kind, dtype):
    check_step(kind, ODD["three beams, two heads"], dtype, 0.005, 0.005)


@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(["additive", "location"]),
    shape=st.builds(
        lambda head_a, head_d, heads, **rest: Shape(
            A=head_a * heads, D=head_d * heads, H=heads, **rest
        ),
        head_a=st.integers(1, 40),
        head_d=st.integers(1, 40),
        heads=st.integers(1, 2),
        B=st.integers(1, 2),
        N=st.integers(1, 3),
        T=st.integers(1, 40),
        C=st.integers(1, 20),
        W=st.integers(0, 20).map(lambda half: 2 * half + 1),
    ),
    seed=st.integers(0, 1000),
)
def test_any_shape(kind, shape, seed):
    check_step(kind, shape, torch.float32, 1e-5, 1e-4, seed)


@pytest.mark.parametrize("kind", ["additive", "location", "dot"])
@pytest.mark.parametrize(
    ("shape", "dropout"),
    [(Shape(T=35, A=20, D=12, U=3), False), (Shape(B=3, T=9, H=2, L=2, U=2), True)],
    ids=["one layer", "heads, two layers, dropout"],
)
def test_sequence_and_every_gradient_in_float32(kind, shape, dropout):
    exact = case(kind, shape, dropout=dropout)
    c = exact.to(torch.float32)
    exact = c.to(torch.float64)
    found = sequence(c)
    ours = gradients(found, c.sequence_leaves())
    for backend in ("reference", "threephase"):
        expected = sequence(exact, backend)
        for a, b in zip(found, expected, strict=True):
            close(a, b, 1e-5)
        for name, right in gradients(expected, exact.sequence_leaves()).items():
            close(ours[name], right, 1e-4)


@pytest.mark.parametrize("dtype", HALVES, ids=dtype_name)
def test_sequence_in_half_precision_is_no_worse_than_eager(dtype):
    c = case("location", Shape(T=21, A=20, D=12, U=3, H=2), dropout=True).to(dtype)
    exact = c.to(torch.float64)
    found, eager, expected = sequence(c), sequence(c, "reference"), sequence(exact, "reference")
    for a, b in zip(found, expected, strict=True):
        close(a, b, 0.005)
    ours, theirs = gradients(found, c.sequence_leaves()), gradients(eager, c.sequence_leaves())
    for name, right in gradients(expected, exact.sequence_leaves()).items():
        close(ours[name], right, max(0.005, relative(theirs[name], right)))


@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_scores_stay_finite_and_sum_to_one(sign):
    c = case("additive", Shape(B=2, N=2, T=40, A=16, D=8)).to(torch.float32)
    score = c.score._replace(v=torch.full((16,), sign * 1e4 / 16, device=DEVICE))
    wide = score._replace(v=score.v.double())
    with torch.no_grad():
        context, alignment = las_kernels.attend(c.query, c.memory, score, backend="triton")
        exact = c.to(torch.float64)
        expected = reference.attend(exact.query, exact.memory, wide)[1]
    assert torch.isfinite(context).all()
    torch.testing.assert_close(alignment.sum(-1).cpu(), torch.ones(2, 2, 1), rtol=1e-5, atol=0)
    assert (alignment.double() - expected).abs().max() <= 4 * torch.finfo(torch.float32).eps * 1e4


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=dtype_name)
def test_equal_scores_give_the_mean_of_the_valid_frames(dtype):
    c = case("additive", Shape(B=3, T=33, A=6, D=8)).to(dtype)
    keys = torch.zeros_like(c.memory.keys)
    memory = c.memory._replace(keys=keys)
    context, alignment = las_kernels.attend(c.query, memory, c.score, backend="triton")
    eps = torch.finfo(dtype).eps
    for b, length in enumerate(memory.lengths.tolist()):
        assert (alignment[b, 0, 0, :length].double() * length - 1).abs().max() <= eps
        assert (alignment[b, 0, 0, length:] == 0).all()
        mean = memory.values[b, :length].double().mean(0)
        torch.testing.assert_close(context[b, 0].double(), mean, rtol=2 * eps, atol=2 * eps)


def test_padding_does_not_leak():
    """What lies beyond a length, even NaN, changes no result and no gradient."""
    c = case("location", Shape(B=2, T=20, A=6, D=8, N=2), torch.float32)
    clean, leaves = attend(c), c.attention_leaves()
    right = gradients(clean, leaves)
    beyond = ~las_kernels.padding_mask(c.memory.lengths, 20)
    keys = c.memory.keys.detach().masked_fill(beyond[..., None], torch.nan).requires_grad_()
    values = c.memory.values.detach().masked_fill(beyond[..., None], torch.nan).requires_grad_()
    dirty = c._replace(memory=c.memory._replace(keys=keys, values=values))
    found = attend(dirty)
    for a, b in zip(found, clean, strict=True):
        assert torch.equal(a, b)
    ours = gradients(found, dirty.attention_leaves())
    for name in leaves:
        assert torch.equal(ours[name], right[name]), name


def test_the_same_bits_each_time():
    c = case("location", Shape(B=2, T=40, A=20, D=12, U=3), torch.float32)
    first, second = sequence(c), sequence(c)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    leaves = c.sequence_leaves()
    one, two = gradients(first, leaves), gradients(second, leaves)
    for name in leaves:
        assert torch.equal(one[name], two[name]), name


def in_order(monkeypatch, order):
    """Programs of the interpreter run in another order; ``order`` permutes their numbers."""
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    usual = type(builder).set_grid_idx

    def set_grid_idx(x, y, z):
        X, Y, Z = builder.grid_dim
        at = order(X * Y * Z)[(x * Y + y) * Z + z]
        usual(builder, at // (Y * Z), at // Z % Y, at % Z)

    monkeypatch.setattr(builder, "set_grid_idx", set_grid_idx)


ORDERS = {
    "last first": lambda n: range(n - 1, -1, -1),
    "shuffled": lambda n: torch.randperm(n, generator=torch.Generator().manual_seed(n)).tolist(),
}


@pytest.mark.skipif(DEVICE != "cpu", reason="the interpreter's order is what is changed")
@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_arrival_does_not_change_a_bit(order, monkeypatch):
    c = case("additive", Shape(B=2, T=70, A=20, D=24, U=2)).to(torch.bfloat16)

    def results():
        found = sequence(c)
        return [*found, *gradients(found, c.sequence_leaves()).values()]

    expected = results()
    in_order(monkeypatch, ORDERS[order])
    for one, other in zip(results(), expected, strict=True):
        assert torch.equal(one, other)


def test_counters_of_arrivals_are_zero_after_each_step():
    c = case("additive", Shape(B=2, T=70, A=20, D=24)).to(torch.float32)
    query, memory, score = c.query.detach(), c.memory, c.score
    context, alignment = query.new_empty(2, 1, 24), query.new_empty(2, 1, 1, 70)
    given = (torch.randn_like(context), None, alignment, query, None)
    forward, backward = OPS.plan_forward(memory, score, 1), OPS.plan_backward(memory, score, 1)
    assert forward.joined
    assert backward.joined
    for _ in range(2):
        forward(query, None, context, alignment)
        backward(*given, torch.empty_like(alignment), torch.empty_like(query), None)
        assert not forward.arrivals.any()
        assert not backward.arrivals.any()


def test_many_tiles_are_joined_by_a_kernel_of_their_own(monkeypatch):
    """What one program joins, or the next launch, is the same to rounding."""
    c = case("additive", Shape(B=1, T=70, A=6, D=8, U=2)).to(torch.float32)

    def results():
        found = sequence(c)
        return [*found, *gradients(found, c.sequence_leaves()).values()]

    expected = results()
    monkeypatch.setattr(configs, "JOINED_SPLITS", 1)
    monkeypatch.setattr(configs, "JOINED_TILES", 1)
    assert not OPS.plan_forward(c.memory, c.score, 1).joined
    assert not OPS.plan_backward(c.memory, c.score, 1).joined
    for one, other in zip(results(), expected, strict=True):
        close(one, other, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=dtype_name)
def test_a_sharp_alignment_keeps_its_gradient(dtype):
    """Rounded to sum to 1 +- eps, the alignment must not leak the values' common offset."""
    c = case("additive", Shape(B=1, T=20, A=8, D=8))
    with torch.no_grad():
        c.score.v.mul_(2.5)
        c.memory.values.add_(4)
        c.memory.keys[:, 3] = c.score.v.sign() - c.query[:, 0]  # gets 0.998 of the weight
    c = c.to(dtype)
    exact = c.to(torch.float64)
    ours = gradients(attend(c), c.attention_leaves())
    right = gradients(
        reference.attend(exact.query, exact.memory, exact.score), exact.attention_leaves()
    )
    for name in right:
        close(ours[name], right[name], 1e-4 if dtype == torch.float32 else 0.005)


@pytest.mark.parametrize("first", [True, False], ids=["first step", "later step"])
def test_lstm_cell_equals_the_plain_one(first):
    torch.manual_seed(0)
    gates, dhidden = torch.randn(3, 20, device=DEVICE), torch.randn(3, 5, device=DEVICE)
    before = None if first else torch.randn(3, 5, device=DEVICE)
    dcell = torch.randn(3, 5, device=DEVICE) if first else None
    results = []
    for ops in (OPS, eager.OPS):
        active, after, hidden = gates.clone(), gates.new_empty(3, 5), gates.new_empty(3, 5)
        ops.lstm_cell(active, before, after, hidden)
        dgates = torch.empty_like(gates)
        dbefore = ops.lstm_cell_backward(dhidden, dcell, active, before, after, dgates)
        results.append((active, after, hidden, dgates, dbefore))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 15, 16, 250, 8192])
@pytest.mark.parametrize("programs", [1, 64, 4096])
def test_splits_cover_every_frame(frames, programs):
    num_splits, split_len = splits_for(frames, programs, 132)
    assert split_len % 16 == 0
    assert (num_splits - 1) * split_len < frames <= num_splits * split_len
    assert num_splits == 1 or num_splits * programs <= 2 * 132  # all run at once


def test_opcheck():
    c = case("additive", Shape(T=5, A=4, D=4)).to(torch.float32)
    arguments = (c.query, *c.memory, None, *c.score)
    torch.library.opcheck(torch_library.attend, (*arguments, "triton"))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=dtype_name)
@pytest.mark.parametrize("kind", ["additive", "location"])
def test_the_backward_operators_keep_their_contracts(kind, dtype):
    check_backward_operators(kind, dtype, "triton")


VIEWS = {
    "expanded": lambda: torch.tensor([7], device=DEVICE).expand(3),
    "every second": lambda: torch.tensor([7, 1, 4, 1, 9], device=DEVICE)[::2],
}


@pytest.mark.parametrize("view", VIEWS)
def test_lengths_may_be_a_view(view):
    c = case("location", Shape(B=3, T=9, U=2)).to(torch.float32)
    lengths = VIEWS[view]()
    results = []
    for x in (lengths, lengths.clone(memory_format=torch.contiguous_format)):
        given = c._replace(memory=c.memory._replace(lengths=x))
        step, whole = attend(given), sequence(given)
        results.append([*step, *gradients(step, given.attention_leaves()).values(), *whole])
        results[-1] += gradients(whole, given.sequence_leaves()).values()
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_masks_may_be_views():
    c = case("additive", Shape(B=3, T=9, U=2), dropout=True).to(torch.float32)
    turned = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in c.masks]
    results = []
    for masks in (c.masks, las_kernels.Masks(*turned)):
        given = c._replace(masks=masks)
        found = sequence(given)
        results.append([*found, *gradients(found, given.sequence_leaves()).values()])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_a_length_beyond_the_frames_reads_no_others():
    """Lengths on a GPU are not checked; what lies behind the memory must not be touched."""
    T = 9
    c = case("location", Shape(B=2, T=2 * T, N=1))
    results = []
    for length in (T, T + 5):
        torch.manual_seed(1)
        keys, values = (x.detach().float()[:, :T].contiguous() for x in c.memory[:2])
        lengths = torch.full((2,), length, device=DEVICE)
        memory = las_kernels.Memory(keys, values, lengths)
        score = c.to(torch.float32).score
        query = c.query.detach().float()
        previous = torch.full((2, 1, 1, T), 1 / T, device=DEVICE)
        context, alignment = torch.empty(2, 1, 8, device=DEVICE), torch.empty_like(previous)
        OPS.forward(query, memory, score, previous, context, alignment)
        features = OPS.location_conv(previous, score.filters)
        denergy, dquery = torch.empty_like(alignment), torch.empty_like(query)
        dfeatures = torch.empty_like(features)
        outer = torch.randn_like(context), torch.randn_like(alignment)
        given = (alignment, query, memory, score, features, denergy, dquery, dfeatures)
        dprevious = OPS.backward(*outer, *given)
        found = OPS.backward_dkv(query, denergy, memory, score, previous, features, dfeatures)
        results.append([context, alignment, denergy, dquery, dfeatures, dprevious, *found])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_compiles_without_a_graph_break():
    c = case("location", Shape(U=2)).to(torch.float32)
    compiled = torch.compile(lambda: sequence(c), fullgraph=True, backend="aot_eager")
    for a, b in zip(compiled(), sequence(c), strict=True):
        assert torch.equal(a, b)
