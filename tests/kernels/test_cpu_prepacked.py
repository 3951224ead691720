"""The packed step of a CPU against the reference, and where it must not run."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from las_kernels import Decoder, Memory, Score, State, reference
from las_kernels.cpu import prepacked

pytestmark = pytest.mark.usefixtures("cpu_step_built")


def make(*sizes: int) -> tuple[Tensor, State, Memory, Decoder, Score]:
    """From B, N, layers, S and D: arguments of ``reference.decode_step``, location-aware."""
    B, N, layers, S, D = sizes
    generator = torch.Generator().manual_seed(B + 10 * N + 100 * layers)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    T, A = 9, 6
    memory = Memory(draw(B, T, A), draw(B, T, D), torch.arange(B) % T + 1)
    decoder = Decoder(
        draw(4 * S, 3),
        draw(4 * S, D),
        [draw(4 * S, S) for _ in range(layers - 1)],
        [draw(4 * S, S) for _ in range(layers)],
        [draw(4 * S) for _ in range(layers)],
        draw(A, S),
    )
    score = Score(draw(A), draw(2, 3), draw(A, 2))
    alignment = draw(B, N, 1, T).softmax(-1)
    state = State(draw(B, N, layers, S), draw(B, N, layers, S), draw(B, N, D), alignment)
    return draw(B, N, 4 * S), state, memory, decoder, score


@settings(max_examples=60)
@given(st.tuples(*(st.integers(1, most) for most in (3, 5, 3, 40, 9))))
def test_any_shape(sizes):
    projected, state, memory, decoder, score = make(*sizes)
    expected, after = reference.decode_step(projected, state, memory, decoder, score)
    with torch.no_grad():
        output, found = prepacked.decode_step(
            projected.clone(), state, memory, prepacked.pack(decoder), score
        )
    for right, x in zip([expected, *after], [output, *found], strict=True):
        assert x.shape == right.shape
        torch.testing.assert_close(x, right, rtol=1e-4, atol=1e-4)


def test_a_selected_state_need_not_be_contiguous():
    projected, state, memory, decoder, score = make(2, 4, 2, 17, 5)
    turned = State(*(x.flip(1).transpose(0, 1).contiguous().transpose(0, 1) for x in state))
    same = State(*(x.contiguous() for x in turned))
    with torch.no_grad():
        weights = prepacked.pack(decoder)
        found = prepacked.decode_step(projected.clone(), turned, memory, weights, score)
        right = prepacked.decode_step(projected.clone(), same, memory, weights, score)
    assert all(torch.equal(x, y) for x, y in zip(found[1], right[1], strict=True))


def test_where_it_may_run(monkeypatch):
    _, _, memory, _, _ = make(2, 1, 1, 4, 5)
    assert not prepacked.usable(memory)  # a gradient may be wanted
    with torch.no_grad():
        assert prepacked.usable(memory)
        assert not prepacked.usable(memory._replace(keys=memory.keys.double()))
        with torch.autocast("cpu", torch.bfloat16):
            assert not prepacked.usable(memory)
        monkeypatch.setenv("LAS_KERNELS_BACKEND", "reference")
        assert not prepacked.usable(memory)


def test_alone_and_in_a_batch_are_equal_to_the_bit():
    projected, state, memory, decoder, score = make(3, 4, 2, 40, 9)
    with torch.no_grad():
        weights = prepacked.pack(decoder)
        output, found = prepacked.decode_step(projected, state, memory, weights, score)
        for b in range(3):
            one = slice(b, b + 1)
            alone = prepacked.decode_step(
                projected[one], State(*(x[one] for x in state)),
                Memory(*(x[one] for x in memory)), weights, score,
            )  # fmt: skip
            assert torch.equal(alone[0], output[one])
            assert all(torch.equal(x, y[one]) for x, y in zip(alone[1], found, strict=True))
