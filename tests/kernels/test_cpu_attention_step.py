"""The CPU kernel against the float64 reference, and its promises of repeatability, to the bit."""

import ctypes
import os

import numpy as np
import pytest
import torch
from cases import draw, same
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from las_kernels import Memory, Score, attend, padding_mask
from las_kernels.cpu import attention_step as cpu_step

pytestmark = pytest.mark.usefixtures("cpu_step_built")
KINDS = ["dot", "additive", "location"]
EPS = 2.0**-23


def make(
    kind: str,
    lengths: list[int],
    beams: int = 3,
    heads: int = 1,
    head: int = 12,
    value_head: int = 20,
    channels: int = 3,
    taps: int = 7,
    extra: int = 0,
) -> tuple[Tensor, Memory, Score, Tensor]:
    """Arguments of `attend`; ``extra`` padding frames beyond the longest utterance."""
    B, T, A = len(lengths), max(lengths) + extra, heads * head
    memory = Memory(draw(1, B, T, A), draw(2, B, T, heads * value_head), torch.tensor(lengths))
    v = None if kind == "dot" else draw(3, A)
    score = Score(v, heads=heads, scale=A**-0.5)
    if kind == "location":
        score = score._replace(filters=draw(4, channels, taps), projection=draw(5, A, channels))
    energy = 3 * draw(6, B, beams, heads, T)
    valid = padding_mask(memory.lengths, T)[:, None, None]
    previous = energy.masked_fill(~valid, -torch.inf).softmax(-1)
    return draw(7, B, beams, A), memory, score, previous


def exact(query: Tensor, memory: Memory, score: Score, previous: Tensor) -> tuple[Tensor, Tensor]:
    """The reference in float64."""

    def double(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.double()

    memory = Memory(memory.keys.double(), memory.values.double(), memory.lengths)
    score = score._replace(
        v=double(score.v), filters=double(score.filters), projection=double(score.projection)
    )
    return attend(query.double(), memory, score, previous.double())


def assert_right(arguments: tuple[Tensor, Memory, Score, Tensor]) -> None:
    context, alignment = cpu_step.attend(*arguments)
    right_context, right_alignment = exact(*arguments)
    assert context.dtype == alignment.dtype == torch.float32
    torch.testing.assert_close(context.double(), right_context, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alignment.double(), right_alignment, rtol=1e-5, atol=1e-6)
    padding = ~padding_mask(arguments[1].lengths, alignment.shape[-1])[:, None, None]
    assert not alignment.masked_select(padding).any()


@settings(max_examples=300)
@given(
    kind=st.sampled_from(KINDS),
    lengths=st.lists(st.integers(1, 100), min_size=1, max_size=3),
    beams=st.integers(1, 9),
    heads=st.sampled_from([1, 2, 4]),
    head=st.integers(1, 40),
    value_head=st.integers(1, 40),
    channels=st.integers(1, 9),
    taps=st.integers(0, 60).map(lambda half: 2 * half + 1),
    extra=st.integers(0, 40),
)
def test_any_shape(kind, lengths, beams, heads, head, value_head, channels, taps, extra):
    assert_right(make(kind, lengths, beams, heads, head, value_head, channels, taps, extra))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [[1], [1, 1500, 511], [8192]])
def test_long_memories(kind, lengths):
    assert_right(make(kind, lengths, beams=2, heads=2))


@pytest.mark.parametrize("kind", KINDS)
def test_alone_and_in_a_batch_are_equal_to_the_bit(kind):
    lengths = [250, 1, 31, 32, 33, 700, 513, 64]
    query, memory, score, previous = make(kind, lengths, beams=8, heads=2, extra=9)
    context, alignment = cpu_step.attend(query, memory, score, previous)
    for b, length in enumerate(lengths):
        one = slice(b, b + 1)
        alone = Memory(memory.keys[one, :length], memory.values[one, :length], memory.lengths[one])
        result = cpu_step.attend(query[one], alone, score, previous[one, ..., :length])
        assert same(result, (context[one], alignment[one, ..., :length]))


@pytest.mark.parametrize("kind", KINDS)
def test_beams_do_not_see_each_other(kind):
    query, memory, score, previous = make(kind, [100, 77], beams=11)
    context, alignment = cpu_step.attend(query, memory, score, previous)
    for n in range(11):
        one = slice(n, n + 1)
        result = cpu_step.attend(query[:, one], memory, score, previous[:, one])
        assert same(result, (context[:, one], alignment[:, one]))


@pytest.mark.parametrize("kind", KINDS)
def test_threads_change_no_bit(kind, threads):
    arguments = make(kind, [400, 250, 33], beams=9, heads=2, head=40)
    torch.set_num_threads(1)
    alone = cpu_step.attend(*arguments)
    for count in (2, 5):
        torch.set_num_threads(count)
        for _ in range(5):
            assert same(cpu_step.attend(*arguments), alone)


def test_a_parallel_region_gets_torch_s_threads(threads):
    numbers = np.full(2, -1)
    torch.set_num_threads(2)
    cpu_step._LIBRARY().las_thread_numbers(address(numbers), ctypes.c_int64(2))
    assert sorted(numbers) == [0, 1]
    torch.set_num_threads(1)
    cpu_step._LIBRARY().las_thread_numbers(address(numbers), ctypes.c_int64(2))
    assert sorted(numbers) == [0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_scores(kind):
    query, memory, score, previous = make(kind, [300, 40], extra=3)
    if score.v is None:
        score = score._replace(scale=1e4 / 12)
    else:
        score = score._replace(v=score.v * (1e4 / score.v.abs().sum()))
        query = query * 10  # tanh at its ends, so that the scores get there
    context, alignment = cpu_step.attend(query, memory, score, previous)
    assert context.isfinite().all()
    torch.testing.assert_close(alignment.sum(-1), torch.ones(2, 3, 1), rtol=0, atol=1e-6)
    error = (alignment - exact(query, memory, score, previous)[1]).abs().max()
    assert error <= 4 * EPS * 1e4


def test_equal_scores_give_the_mean():
    query, memory, score, previous = make("additive", [90, 7])
    context, alignment = cpu_step.attend(query, memory, score._replace(v=torch.zeros(12)), previous)
    for b, length in enumerate([90, 7]):
        torch.testing.assert_close(
            alignment[b, ..., :length], torch.full((3, 1, length), 1 / length), rtol=1e-6, atol=0
        )
        mean = memory.values[b, :length].mean(0).expand(3, -1)
        torch.testing.assert_close(context[b], mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_stays_in_its_beam_and_in_its_utterance(kind):
    query, memory, score, previous = make(kind, [80, 80])
    clean = cpu_step.attend(query, memory, score, previous)
    bad_query = query.clone()
    bad_query[0, 1, 5] = torch.nan
    context, alignment = cpu_step.attend(bad_query, memory, score, previous)
    assert context[0, 1].isnan().all()
    assert alignment[0, 1].isnan().all()
    kept = [0, 2, 3, 4, 5]
    assert same((context.flatten(0, 1)[kept],) * 2, (clean[0].flatten(0, 1)[kept],) * 2)

    bad_keys = memory.keys.clone()
    bad_keys[0, 70] = torch.nan
    context, alignment = cpu_step.attend(query, memory._replace(keys=bad_keys), score, previous)
    assert context[0].isnan().all()
    assert alignment[0].isnan().all()
    assert same((context[1], alignment[1]), (clean[0][1], clean[1][1]))


def test_what_lies_in_the_padding_has_no_effect():
    query, memory, score, previous = make("location", [50, 33], extra=10)
    clean = cpu_step.attend(query, memory, score, previous)
    padding = ~padding_mask(memory.lengths, 60)[..., None]
    dirty = Memory(
        memory.keys.masked_fill(padding, torch.nan),
        memory.values.masked_fill(padding, torch.inf),
        memory.lengths,
    )
    assert same(cpu_step.attend(query, dirty, score, previous), clean)


def test_frames_without_any_weight():
    """A span whose scores are all -inf, and an utterance of such frames only."""
    query, memory, score, previous = make("dot", [100, 40])
    query = query.abs()
    memory.keys[0, :70] = -torch.inf
    memory.keys[1] = -torch.inf
    context, alignment = cpu_step.attend(query, memory, score, previous)
    right_context, right_alignment = exact(query, memory, score, previous)
    torch.testing.assert_close(context[0].double(), right_context[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alignment[0].double(), right_alignment[0], rtol=1e-5, atol=1e-6)
    assert right_context[1].isnan().all()
    assert context[1].isnan().all()
    assert not alignment[0, ..., :70].any()
    assert alignment[1, ..., :40].isnan().all()


def test_layout_does_not_matter():
    query, memory, score, previous = make("location", [70, 33], heads=2)
    wanted = cpu_step.attend(query, memory, score, previous)

    def turned(x: Tensor) -> Tensor:
        other = x.transpose(0, -1).contiguous().transpose(0, -1)
        assert not other.is_contiguous()
        return other

    scattered = Memory(turned(memory.keys), turned(memory.values), memory.lengths.int())
    score = score._replace(filters=turned(score.filters), projection=turned(score.projection))
    assert same(cpu_step.attend(turned(query), scattered, score, turned(previous)), wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_run_the_reference(dtype):
    query, memory, score, previous = make("additive", [20])
    memory = Memory(memory.keys.to(dtype), memory.values.to(dtype), memory.lengths)
    arguments = query.to(dtype), memory, score._replace(v=score.v.to(dtype)), previous.to(dtype)
    for mine, right in zip(cpu_step.attend(*arguments), attend(*arguments), strict=True):
        assert torch.equal(mine, right)


def test_gradients_run_the_reference():
    query, memory, score, previous = make("location", [20, 9])
    score.v.requires_grad_()
    context, _ = cpu_step.attend(query, memory, score, previous)
    (mine,) = torch.autograd.grad(context.sum(), score.v)
    right_context, _ = attend(query, memory, score, previous, backend="reference")
    (right,) = torch.autograd.grad(right_context.sum(), score.v)
    assert torch.equal(mine, right)
    with torch.no_grad():
        assert not cpu_step.attend(query, memory, score, previous)[0].requires_grad


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("query", lambda q, m, s, p: (q[0], m, s, p)),
        ("keys", lambda q, m, s, p: (q[..., 1:], m, s._replace(v=s.v[1:]), p)),
        ("keys", lambda q, m, s, p: (q, m._replace(keys=m.keys[:, 1:]), s, p)),
        ("values", lambda q, m, s, p: (q, m._replace(values=m.values[:1]), s, p)),
        ("lengths", lambda q, m, s, p: (q, m._replace(lengths=m.lengths[:1]), s, p)),
        ("lengths", lambda q, m, s, p: (q, m._replace(lengths=torch.tensor([9, 0])), s, p)),
        ("lengths", lambda q, m, s, p: (q, m._replace(lengths=torch.tensor([9, 10])), s, p)),
        ("heads", lambda q, m, s, p: (q, m, s._replace(heads=5), p)),
        ("v has", lambda q, m, s, p: (q, m, s._replace(v=s.v[1:]), p)),
        ("filters", lambda q, m, s, p: (q, m, s._replace(filters=s.filters[:, 1:]), p)),
        ("projection", lambda q, m, s, p: (q, m, s._replace(projection=s.projection[1:]), p)),
        ("projection", lambda q, m, s, p: (q, m, s._replace(projection=None), p)),
        ("previous", lambda q, m, s, p: (q, m, s, p[..., 1:])),
        ("previous", lambda q, m, s, p: (q, m, s, None)),
        ("CPU", lambda q, m, s, p: (q.to("meta"), m, s, p)),
    ],
)
def test_wrong_arguments_are_named(name, change):
    with pytest.raises(ValueError, match=name):
        cpu_step.attend(*change(*make("location", [9, 4])))


def address(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def evaluate(name: str, x: np.ndarray) -> np.ndarray:
    y = np.empty_like(x)
    getattr(cpu_step._LIBRARY(), name)(address(x), address(y), ctypes.c_int64(x.size))
    return y


def test_tanh_is_accurate_over_all_floats():
    """Every 997th float32 there is, and a fine grid where tanh is neither x nor 1."""
    bits = np.arange(0, 2**32, 997, dtype=np.uint64).astype(np.uint32).view(np.float32)
    grid = np.linspace(-9.5, 9.5, 1_000_001, dtype=np.float32)
    x = np.concatenate([bits[np.isfinite(bits)], grid])
    right = np.tanh(x.astype(np.float64))
    error = np.abs(evaluate("las_tanh", x) - right)
    assert error.max() < 4e-7
    normal = np.abs(x) >= np.finfo(np.float32).tiny
    ulp = np.spacing(np.abs(right).astype(np.float32))
    assert (error / ulp)[normal].max() < 7
    ends = evaluate("las_tanh", np.array([np.inf, -np.inf, np.nan, 0, -0.0], np.float32))
    np.testing.assert_allclose(ends, [1, -1, np.nan, 0, 0], rtol=0, atol=1e-7)
    assert not np.signbit(ends[3])
    assert np.signbit(ends[4])


def test_exp_is_accurate_where_softmax_asks():
    x = np.linspace(-87.3, 0, 1_000_001, dtype=np.float32)
    right = np.exp(x.astype(np.float64))
    assert (np.abs(evaluate("las_exp", x) - right) / right).max() < 4e-7
    ends = np.array([0, -0.0, -88, -1e30, -np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(evaluate("las_exp", ends), [1, 1, 0, 0, 0, np.nan])


def test_without_a_compiler_there_is_a_reason_and_one_line_of_log(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    cpu_step._LIBRARY.forget()
    try:
        assert "no C++ compiler" in cpu_step.available()
        assert "no C++ compiler" in cpu_step.available()
        with pytest.raises(RuntimeError, match="no C"):
            cpu_step.attend(*make("additive", [5]))
        assert len(caplog.records) == 1
    finally:
        cpu_step._LIBRARY.forget()
