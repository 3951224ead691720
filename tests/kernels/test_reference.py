"""The reference against attention written as loops over numbers, and against itself."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from las_kernels import (
    Decoder,
    Masks,
    Memory,
    Score,
    State,
    attend,
    decode_sequence,
    decode_step,
    initial_alignment,
    initial_state,
    padding_mask,
)

KINDS = ["dot", "additive", "location"]
A, D, C, W = 8, 12, 3, 5


def make_score(kind: str, heads: int, seed: int = 0) -> Score:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    if kind == "dot":
        return Score(heads=heads, scale=0.7)
    if kind == "additive":
        return Score(draw(A), heads=heads)
    return Score(draw(A), draw(C, W), draw(A, C), heads)


def make_memory(lengths: list[int], extra: int = 0, seed: int = 1) -> Memory:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths) + extra)
    keys = torch.randn(*shape, A, generator=generator, dtype=torch.float64)
    values = torch.randn(*shape, D, generator=generator, dtype=torch.float64)
    return Memory(keys, values, torch.tensor(lengths))


def make_query(*shape: int) -> Tensor:
    return torch.randn(*shape, A, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def make_previous(memory: Memory, beams: int, heads: int) -> Tensor:
    """An alignment that differs from beam to beam and head to head, zero on padding."""
    T = memory.keys.shape[1]
    generator = torch.Generator().manual_seed(4)
    shape = (len(memory.lengths), beams, heads, T)
    energy = torch.randn(shape, generator=generator, dtype=torch.float64)
    valid = padding_mask(memory.lengths, T)[:, None, None]
    return energy.masked_fill(~valid, -math.inf).softmax(-1)


def by_loops(query: Tensor, memory: Memory, score: Score, previous: Tensor):
    """One query of one utterance, a number at a time: the formulas of the papers and no more.

    Args: query [A]; keys [T, A], values [T, D]; previous [H, T]. All valid.
    """
    q, keys, values = query.tolist(), memory.keys.tolist(), memory.values.tolist()
    before = previous.tolist()
    T, size, part = len(keys), A // score.heads, D // score.heads
    context, alignment = [], []
    for h in range(score.heads):
        energies = []
        for t in range(T):
            energy = 0.0
            for a in range(h * size, (h + 1) * size):
                if score.v is None:
                    energy += score.scale * q[a] * keys[t][a]
                    continue
                x = q[a] + keys[t][a]
                if score.filters is not None and score.projection is not None:
                    for c in range(C):
                        f = 0.0
                        for w in range(W):
                            at = t + w - W // 2
                            if 0 <= at < T:
                                f += float(score.filters[c, w]) * before[h][at]
                        x += float(score.projection[a, c]) * f
                energy += float(score.v[a]) * math.tanh(x)
            energies.append(energy)
        top = max(energies)
        total = sum(math.exp(e - top) for e in energies)
        weights = [math.exp(e - top) / total for e in energies]
        alignment.append(weights)
        for d in range(h * part, (h + 1) * part):
            context.append(sum(weights[t] * values[t][d] for t in range(T)))
    return tuple(torch.tensor(x, dtype=torch.float64) for x in (context, alignment))


# --- one step of attention ------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads", [1, 2, 4])
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3), extra=st.integers(0, 3))
@settings(max_examples=8)
def test_against_loops(kind, heads, lengths, extra):
    score, memory = make_score(kind, heads), make_memory(lengths, extra)
    query, previous = make_query(len(lengths), 2), make_previous(memory, 2, heads)
    context, alignment = attend(query, memory, score, previous)
    for b, length in enumerate(lengths):
        only = Memory(memory.keys[b, :length], memory.values[b, :length], memory.lengths[b])
        for n in range(2):
            expected = by_loops(query[b, n], only, score, previous[b, n, :, :length])
            torch.testing.assert_close(context[b, n], expected[0], rtol=0, atol=1e-12)
            torch.testing.assert_close(alignment[b, n, :, :length], expected[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_alignment_sums_to_one_and_is_zero_on_padding(kind, heads):
    memory = make_memory([7, 1, 4], extra=2)
    score, previous = make_score(kind, heads), make_previous(memory, 3, heads)
    _, alignment = attend(make_query(3, 3), memory, score, previous)
    assert alignment.shape == (3, 3, heads, 9)
    torch.testing.assert_close(alignment.sum(-1), torch.ones(3, 3, heads).double())
    for row, length in zip(alignment, [7, 1, 4], strict=True):
        assert (row[..., length:] == 0).all()
        assert (row[..., :length] > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_one_frame_is_the_context(kind):
    memory = make_memory([1])
    context, alignment = attend(
        make_query(1, 2), memory, make_score(kind, 4), make_previous(memory, 2, 4)
    )
    assert (alignment == 1).all()
    assert torch.equal(context, memory.values.expand_as(context))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads", [1, 2])
def test_beams_are_separate_queries(kind, heads):
    memory, score = make_memory([6, 4], extra=1), make_score(kind, heads)
    query, previous = make_query(2, 5), make_previous(memory, 5, heads)
    context, alignment = attend(query, memory, score, previous)
    for n in range(5):
        one = attend(query[:, n : n + 1], memory, score, previous[:, n : n + 1])
        torch.testing.assert_close(context[:, n : n + 1], one[0])
        torch.testing.assert_close(alignment[:, n : n + 1], one[1])


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_on_padding_is_not_looked_at(kind):
    memory, score = make_memory([3, 6]), make_score(kind, 2)
    query, previous = make_query(2, 1), make_previous(memory, 1, 2)
    expected = attend(query, memory, score, previous)
    memory.keys[0, 3:] = 1e6
    memory.values[0, 3:] = 1e6
    for found, wanted in zip(attend(query, memory, score, previous), expected, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1e4, 1e15])
def test_extreme_scores_are_finite(kind, size):
    score, memory = make_score(kind, 2), make_memory([6, 2])
    score = Score(*(x.float() * size if isinstance(x, Tensor) else x for x in score))
    memory = Memory(memory.keys.float() * size, memory.values.float(), memory.lengths)
    query = (make_query(2, 1).float() * size).requires_grad_()
    context, alignment = attend(query, memory, score, make_previous(memory, 1, 2).float())
    assert context.isfinite().all()
    torch.testing.assert_close(alignment.sum(-1), torch.ones(2, 1, 2))
    context.sum().backward()
    assert query.grad.isfinite().all()


def test_location_needs_the_alignment_before():
    with pytest.raises(ValueError, match="previous"):
        attend(make_query(1, 1), make_memory([3]), make_score("location", 1))


def test_location_is_moved_by_the_alignment_before():
    memory, score = make_memory([6]), make_score("location", 1)
    found = []
    for peak in (0, 5):
        previous = F.one_hot(torch.tensor([[[peak]]]), 6).double()
        found.append(attend(make_query(1, 1), memory, score, previous)[1])
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_initial_alignment_is_uniform():
    first = initial_alignment(torch.tensor([2, 4]), 4, 3, 2, torch.float64)
    assert first.shape == (2, 3, 2, 4)
    assert (first[0] == torch.tensor([0.5, 0.5, 0, 0])).all()
    assert (first[1] == 0.25).all()


# --- the decoder ----------------------------------------------------------------------------

S, E = 6, 5


def make_decoder(layers: int, seed: int = 5) -> Decoder:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64) / 2

    return Decoder(
        draw(4 * S, E),
        draw(4 * S, D),
        [draw(4 * S, S) for _ in range(layers - 1)],
        [draw(4 * S, S) for _ in range(layers)],
        [draw(4 * S) for _ in range(layers)],
        draw(A, S),
    )


def make_embedded(batch: int, steps: int) -> Tensor:
    generator = torch.Generator().manual_seed(6)
    return torch.randn(batch, steps, E, generator=generator, dtype=torch.float64)


def make_masks(batch: int, layers: int) -> Masks:
    generator = torch.Generator().manual_seed(7)
    keep = torch.rand(batch, layers * S + D, generator=generator) < 0.6
    scaled = keep.double() / 0.6
    return Masks(scaled[:, : layers * S].reshape(batch, layers, S), scaled[:, layers * S :])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_a_sequence_is_its_steps(kind, layers, masked):
    memory, score, decoder = make_memory([5, 3]), make_score(kind, 2), make_decoder(layers)
    embedded = make_embedded(2, 4)
    masks = make_masks(2, layers) if masked else None
    outputs, contexts, alignments = decode_sequence(embedded, memory, decoder, score, masks)
    assert outputs.shape == (2, 4, S)
    assert contexts.shape == (2, 4, D)
    assert alignments.shape == (2, 4, 2, 5)
    state = initial_state(memory, decoder, score)
    for u in range(4):
        projected = F.linear(embedded[:, u : u + 1], decoder.embedding_weight, decoder.biases[0])
        output, state = decode_step(projected, state, memory, decoder, score, masks)
        torch.testing.assert_close(outputs[:, u : u + 1], output)
        torch.testing.assert_close(contexts[:, u : u + 1], state.context)
        torch.testing.assert_close(alignments[:, u : u + 1], state.alignment)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_step_equals_torch_cells(layers):
    memory, score, decoder = make_memory([5, 3]), make_score("location", 2), make_decoder(layers)
    embedded, masks = make_embedded(2, 3), make_masks(2, layers)
    outputs, contexts, _ = decode_sequence(embedded, memory, decoder, score, masks)
    hidden = [torch.zeros(2, S).double() for _ in range(layers)]
    cell = [torch.zeros(2, S).double() for _ in range(layers)]
    context = torch.zeros(2, D).double()
    alignment = initial_alignment(memory.lengths, 5, 1, 2, torch.float64)
    none = torch.zeros(4 * S).double()
    for u in range(3):
        below = torch.cat([embedded[:, u], context * masks.context], -1)
        for layer in range(layers):
            weight = (
                torch.cat([decoder.embedding_weight, decoder.context_weight], 1)
                if layer == 0
                else decoder.input_weights[layer - 1]
            )
            hidden[layer], cell[layer] = torch.lstm_cell(
                below,
                (hidden[layer], cell[layer]),
                weight,
                decoder.recurrent_weights[layer],
                decoder.biases[layer],
                none,
            )
            below = hidden[layer] * masks.hidden[:, layer]
        query = below @ decoder.query_weight.T
        found, alignment = attend(query[:, None], memory, score, alignment)
        context = found[:, 0]
        torch.testing.assert_close(outputs[:, u], below)
        torch.testing.assert_close(contexts[:, u], context)


def test_beams_of_a_step_are_separate():
    memory, score, decoder = make_memory([5, 3]), make_score("location", 2), make_decoder(2)
    projected = F.linear(make_embedded(2, 3), decoder.embedding_weight, decoder.biases[0])
    start = initial_state(memory, decoder, score, beams=3)
    assert all(member.shape[:2] == (2, 3) for member in start)
    output, state = decode_step(projected, start, memory, decoder, score)
    output, state = decode_step(projected.flip(1), state, memory, decoder, score)
    for n in range(3):
        beam = slice(n, n + 1)
        one = State(*(member[:, beam] for member in start))
        _, one = decode_step(projected[:, beam], one, memory, decoder, score)
        alone, one = decode_step(projected.flip(1)[:, beam], one, memory, decoder, score)
        torch.testing.assert_close(output[:, beam], alone)
        for found, wanted in zip(state, one, strict=True):
            torch.testing.assert_close(found[:, beam], wanted)


def test_masks_hold_over_the_sequence():
    masks = make_masks(2, 2)
    outputs, _, _ = decode_sequence(
        make_embedded(2, 6), make_memory([5, 3]), make_decoder(2), make_score("dot", 1), masks
    )
    dropped = masks.hidden[:, -1] == 0
    assert dropped.any()
    assert torch.equal(outputs == 0, dropped[:, None].expand_as(outputs))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_a_sequence(kind):
    memory, score, decoder = make_memory([3, 2]), make_score(kind, 2), make_decoder(2)
    masks = make_masks(2, 2)
    embedded = make_embedded(2, 2)
    shared = [t for t in score[:3] if t is not None]
    weights = [
        decoder.embedding_weight,
        decoder.context_weight,
        *decoder.input_weights,
        *decoder.recurrent_weights,
        *decoder.biases,
        decoder.query_weight,
    ]
    inputs = [embedded, memory.keys, memory.values, *shared, *weights]

    def run(embedded: Tensor, keys: Tensor, values: Tensor, *rest: Tensor):
        own = rest[: len(shared)]
        w = rest[len(shared) :]
        used = Score(*own, heads=2) if own else score
        built = Decoder(w[0], w[1], [w[2]], list(w[3:5]), list(w[5:7]), w[7])
        return decode_sequence(embedded, Memory(keys, values, memory.lengths), built, used, masks)

    assert torch.autograd.gradcheck(
        run, [t.requires_grad_() for t in inputs], fast_mode=True, atol=1e-6
    )
