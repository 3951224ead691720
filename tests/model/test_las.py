"""Losses against hand computation, padding, and the precision of the listener."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from las import config
from las.model.las import LAS
from las.text.characters import BLANK, EOS


@pytest.fixture(scope="module")
def model(tiny_config):
    torch.manual_seed(0)
    return LAS(tiny_config).eval()


def transcripts(lengths: list[int], extra: int = 0, fill: int = 0):
    """Tokens [B, U] without neighbours alike, and their lengths."""
    tokens = torch.full((len(lengths), max([*lengths, 0]) + extra), fill)
    for row, length in enumerate(lengths):
        tokens[row, :length] = 2 + (torch.arange(length) + row) % 5
    return tokens, torch.tensor(lengths)


def ctc_by_paths(log_probs: list[list[float]], target: list[int]) -> float:
    """-log of the sum over every path that collapses to the target (Graves et al. 2006)."""
    total = 0.0
    for path in itertools.product(range(len(log_probs[0])), repeat=len(log_probs)):
        if [i for i, _ in itertools.groupby(path) if i != BLANK] == target:
            total += math.exp(sum(row[i] for row, i in zip(log_probs, path, strict=True)))
    return -math.log(total)


def attention_by_steps(model: LAS, waveform, target: list[int], smoothing: float) -> float:
    """Cross-entropy against (1 - s) of the right id and s spread over all of them."""
    encoded = model.encode(waveform[None], torch.tensor([len(waveform)]))
    state = model.speller.start(encoded.memory)
    last, total = EOS, 0.0
    for right in [*target, EOS]:
        logits, state = model.speller.step(encoded.memory, state, torch.tensor([[last]]))
        scores = logits[0, 0].tolist()
        norm = math.log(sum(math.exp(x) for x in scores))
        for i, x in enumerate(scores):
            share = smoothing / len(scores) + (1 - smoothing) * (i == right)
            total += share * (norm - x)
        last = right
    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@torch.no_grad()
def test_losses_by_hand(model, noise, smoothing):
    samples = [2300, 1500, 900]  # 15, 10 and 6 frames; 4, 3 and 2 for CTC
    waveforms, lengths = noise(samples)
    targets = [[2, 3, 2], [4, 4], []]
    tokens = torch.tensor([[2, 3, 2], [4, 4, 0], [0, 0, 0]])
    losses = model(waveforms, lengths, tokens, torch.tensor([3, 2, 0]), smoothing)
    encoded = model.encode(waveforms, lengths)
    assert encoded.ctc_lengths.tolist() == [4, 3, 2]
    ctc = sum(
        ctc_by_paths(encoded.ctc[row, :frames].tolist(), target)
        for row, (frames, target) in enumerate(zip([4, 3, 2], targets, strict=True))
    )
    attention = sum(
        attention_by_steps(model, waveforms[row, :size], target, smoothing)
        for row, (size, target) in enumerate(zip(samples, targets, strict=True))
    )
    assert float(losses.ctc) == pytest.approx(ctc, abs=1e-4)
    assert float(losses.attention) == pytest.approx(attention, abs=1e-4)
    assert int(losses.tokens) == 8
    assert int(losses.characters) == 5
    assert losses.alignments.shape == (3, 4, 2, 4)
    assert not losses.alignments.requires_grad


batches = st.lists(st.tuples(st.integers(4000, 9000), st.integers(0, 6)), min_size=1, max_size=4)


@given(batches)
@settings(max_examples=20)
@torch.no_grad()
def test_a_batch_is_the_sum_of_its_utterances(model, noise, batch):
    waveforms, samples = noise([s for s, _ in batch])
    tokens, sizes = transcripts([n for _, n in batch])
    together = model(waveforms, samples, tokens, sizes, 0.1)
    attention = ctc = 0.0
    for row, (length, size) in enumerate(batch):
        one = slice(row, row + 1)
        alone = model(waveforms[one, :length], samples[one], tokens[one, :size], sizes[one], 0.1)
        attention += float(alone.attention)
        ctc += float(alone.ctc)
    assert float(together.attention) == pytest.approx(attention, rel=0, abs=1e-4)
    assert float(together.ctc) == pytest.approx(ctc, rel=0, abs=1e-4)


@given(batches, st.integers(0, 3000), st.integers(0, 4), st.sampled_from([-1, BLANK, EOS, 5, 999]))
@settings(max_examples=20)
@torch.no_grad()
def test_padding_changes_nothing(model, noise, batch, extra, more, fill):
    lengths, sizes = [s for s, _ in batch], [n for _, n in batch]
    waveforms, samples = noise(lengths)
    plain = model(waveforms, samples, *transcripts(sizes), 0.1)
    padded = model(*noise(lengths, extra), *transcripts(sizes, more, fill), 0.1)
    # A sum over characters: relative to it, as single precision is.
    torch.testing.assert_close(padded.attention, plain.attention, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(padded.ctc, plain.ctc, rtol=1e-6, atol=1e-5)
    assert padded[2:4] == plain[2:4]
    for row, size in enumerate(sizes):
        steps, frames = size + 1, plain.alignments.shape[-1]
        torch.testing.assert_close(
            padded.alignments[row, :steps, :, :frames],
            plain.alignments[row, :steps],
            rtol=0,
            atol=1e-5,
        )
        assert (padded.alignments[row, :steps, :, frames:] == 0).all()


@torch.no_grad()
def test_the_precision_is_of_the_listener_in_evaluation(model, tiny_config, noise):
    waveforms, samples = noise([4000, 9000])
    trained = LAS(tiny_config).train()
    trained.load_state_dict(model.state_dict())
    with torch.no_grad():
        full = model.encode(waveforms, samples)
        found = {}
        for dtype in (torch.float32, torch.bfloat16):
            model.precision = dtype
            found[dtype] = model.encode(waveforms, samples)
        with torch.autocast("cpu", torch.bfloat16):
            model.precision = torch.float32
            inside = model.listener(*model.frontend(waveforms, samples))[0]
            pinned = model.encode(waveforms, samples)
        model.precision = None
        trained.listener.eval()  # no dropout
        trained.frontend.eval()
        trained.precision = torch.bfloat16
        training = trained.encode(waveforms, samples)
    assert torch.equal(found[torch.float32].memory.values, full.memory.values)
    assert torch.equal(training.memory.values, full.memory.values)
    assert inside.dtype == torch.bfloat16 and pinned.memory.values.dtype == torch.float32
    assert torch.equal(pinned.memory.values, full.memory.values)
    halves = found[torch.bfloat16]
    assert halves.memory.values.dtype == halves.memory.keys.dtype == torch.float32
    assert halves.ctc.dtype == torch.float32
    error = (halves.memory.values - full.memory.values).abs().max()
    assert 1e-5 < error < 0.05


def test_ctc_frames_are_what_the_head_makes(model, noise):
    waveforms, samples = noise([1, 159, 160, 640, 12345])
    assert torch.equal(model.ctc_frames(samples), model.encode(waveforms, samples).ctc_lengths)


@torch.no_grad()
@pytest.mark.parametrize("many", [1, 2, 4])
def test_ctc_with_frames_of_its_own(tiny_config, noise, many):
    listener = {**tiny_config.listener.model_dump(), "stack": 4, "reduction": 4}
    listener |= {"convolutions": [4, 4], "ctc_frames": many}
    torch.manual_seed(0)
    model = LAS(
        tiny_config.model_copy(update={"listener": config.ListenerConfig(**listener)})
    ).eval()
    waveforms, samples = noise([1500, 160, 2300])  # 10, 2 and 15 frames; 3, 1 and 4 of the memory
    encoded = model.encode(waveforms, samples)
    assert encoded.ctc_lengths.tolist() == [3 * many, many, 4 * many]
    assert torch.equal(model.ctc_frames(samples), encoded.ctc_lengths)
    assert encoded.memory.lengths.tolist() == [3, 1, 4]
    assert encoded.ctc.shape == (3, 4 * many, len(model.text))
    torch.testing.assert_close(encoded.ctc.exp().sum(-1), torch.ones(3, 4 * many))
    # A frame's own scores, in their order in time.
    scores = model.ctc(model.listener(*model.frontend(waveforms, samples))[2])[0, 1]
    rows = scores.view(many, -1).log_softmax(-1)
    torch.testing.assert_close(encoded.ctc[0, many : 2 * many], rows)
    tokens, sizes = torch.tensor([[2, 3], [2, 0], [4, 4]]), torch.tensor([2, 1, 2])
    losses = model(waveforms, samples, tokens, sizes)
    if many < 4:  # paths of sixteen frames would be too many
        by_hand = sum(
            ctc_by_paths(encoded.ctc[row, : frames * many].tolist(), tokens[row, :size].tolist())
            for row, (frames, size) in enumerate([(3, 2), (1, 1), (4, 2)])
        )
        assert float(losses.ctc) == pytest.approx(by_hand, abs=1e-4)


@torch.no_grad()
def test_ctc_that_has_no_path_is_zero(model, noise):
    losses = model(*noise([800]), *transcripts([6]))
    assert float(losses.ctc) == 0
    assert losses.attention.isfinite()


def test_listening_alone(model, noise):
    batch = (*noise([5000, 4000]), *transcripts([4, 2]))
    losses = model(*batch, use_speller=False)
    assert float(losses.attention) == 0
    torch.testing.assert_close(losses.ctc, model(*batch).ctc)
    assert losses.alignments.shape[:2] == (2, 0)
    model.zero_grad()
    losses.ctc.backward()
    assert all(w.grad is None for w in model.speller.parameters())
    assert all(w.grad.isfinite().all() for w in model.listener.parameters())


def test_gradients_are_finite_in_training(tiny_config, noise):
    model = LAS(tiny_config).train()
    losses = model(*noise([5000, 1]), *transcripts([4, 0]), 0.1, 0.5)
    (losses.attention + losses.ctc).backward()
    for name, weight in model.named_parameters():
        assert weight.grad.isfinite().all(), name
        assert weight.grad.abs().sum() > 0, name
