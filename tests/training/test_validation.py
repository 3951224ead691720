"""Dev-set measures: what greedy search writes, and whether attention focuses."""

import pytest
import torch
from speech import RATE, sentences, small_model, write_manifest

from las.data.dataset import Batch, evaluation_batches
from las.data.manifests import read_manifest
from las.decoding.greedy import ctc_greedy
from las.errors import LASError
from las.evaluation.evaluate import transcribe_manifest
from las.training.validation import FLAT, _focus, validate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("validation"), sentences(7))


def measured(model, manifest, use_speller=True, **limits):
    return validate(
        model,
        evaluation_batches(read_manifest(manifest), model.text, sample_rate=RATE, **limits),
        CPU,
        use_speller,
    )


def test_the_score_is_the_one_of_greedy_search(manifest):
    model = small_model()
    found = measured(model, manifest)
    assert {(u.id, u.reference, u.hypothesis) for u in found.utterances} == {
        (u.id, u.reference, u.hypothesis) for u in transcribe_manifest(model, manifest, CPU)
    }
    assert found.score.words == sum(len(t.split()) for t in sentences(7))
    assert found.score.wer > 0
    assert not model.training


def test_measures_do_not_depend_on_batches(manifest):
    model = small_model().train()
    together = measured(model, manifest)
    alone = measured(model, manifest, batch_utterances=1)
    assert {(u.id, u.hypothesis) for u in together.utterances} == {
        (u.id, u.hypothesis) for u in alone.utterances
    }
    for name in ("attention_loss", "ctc_loss", "focus"):
        assert getattr(together, name) == pytest.approx(getattr(alone, name), rel=1e-4)


def test_losses_are_a_mean_over_characters(manifest):
    model = small_model()
    total = tokens = 0.0
    for batch in evaluation_batches(read_manifest(manifest), model.text, sample_rate=RATE):
        losses = model(batch.waveforms, batch.samples, batch.tokens, batch.token_lengths)
        total, tokens = total + float(losses.attention.detach()), tokens + int(losses.tokens)
    assert tokens == sum(len(text) + 1 for text in sentences(7))
    assert measured(model, manifest).attention_loss == pytest.approx(total / tokens, rel=1e-5)


def test_the_picture_is_of_the_longest_utterance(manifest):
    found = measured(small_model(), manifest)
    longest = max(read_manifest(manifest), key=lambda cut: cut.duration)
    alignment, waveform, text = found.picture
    assert len(waveform) == longest.num_samples
    hypotheses = {u.id: u.hypothesis for u in found.utterances}
    assert text == hypotheses[longest.id]
    assert alignment.shape[0] in (len(text), len(text) + 1)
    torch.testing.assert_close(alignment.sum(-1), torch.ones(alignment.shape[0]))


def test_without_a_speller_the_texts_are_those_of_ctc(manifest):
    model = small_model()
    found = measured(model, manifest, use_speller=False)
    texts = {}
    for batch in evaluation_batches(read_manifest(manifest), model.text, sample_rate=RATE):
        encoded = model.encode(batch.waveforms, batch.samples)
        texts |= dict(zip(batch.ids, ctc_greedy(model, encoded), strict=True))
    assert {u.id: u.hypothesis for u in found.utterances} == texts
    assert found.ctc_loss == pytest.approx(measured(model, manifest).ctc_loss)
    assert (found.attention_loss, found.focus, found.picture) == (0, 0, None)
    assert not found.flat  # nothing was asked of the attention


@pytest.mark.parametrize("kind", ["dot", "additive", "location"])
def test_an_untrained_attention_is_flat(manifest, kind):
    found = measured(small_model(attention__kind=kind), manifest)
    assert found.flat and 0 <= found.focus < FLAT


def test_no_attention_is_never_flat(manifest):
    found = measured(small_model(attention__kind="none"), manifest)
    assert not found.flat


def test_focus_is_0_of_even_and_1_of_sharp_attention_whatever_the_padding():
    alignments = torch.zeros(2, 4, 2, 10)  # [B, U+1, H, T]
    alignments[0, :4, :, :8] = 1 / 8  # 3 characters, 8 frames, even
    alignments[1, :2, :, 5] = 1  # 1 character, 10 frames, sharp
    alignments[1, 2:] = 0.1  # beyond its end
    lengths, frames = torch.tensor([3, 1]), torch.tensor([8, 10])
    assert _focus(alignments, lengths, frames) == pytest.approx(2.0, abs=1e-5)
    assert _focus(alignments[:1], lengths[:1], frames[:1]) == pytest.approx(0.0, abs=1e-5)


def test_an_unreadable_batch_or_none(manifest):
    model = small_model()
    with pytest.raises(LASError, match="the file"):
        validate(model, [LASError("the file")], CPU)
    with pytest.raises(LASError, match="no utterance"):
        validate(model, [], CPU)


def test_of_a_batch_all_but_the_lengths_moves(manifest):
    (batch, *_) = evaluation_batches(read_manifest(manifest), small_model().text, sample_rate=RATE)
    moved = batch.to(torch.device("meta"))
    assert isinstance(moved, Batch) and moved.ids == batch.ids
    assert moved.waveforms.device.type == moved.tokens.device.type == "meta"
    assert moved.samples.device.type == moved.token_lengths.device.type == "cpu"
