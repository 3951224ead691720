"""Greedy search: the batch changes nothing, every utterance has its own limit and end; names."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from las.config import SearchConfig
from las.decoding.greedy import ctc_greedy, greedy
from las.decoding.hypothesis import Hypothesis
from las.decoding.search import describe, search
from las.model import speller
from las.model.las import LAS
from las.text.characters import BLANK, EOS
from las_kernels.backends import PERSISTENT
from las_kernels.cuda import persistent_decoder


def random_model(config) -> LAS:
    """A model that writes varied texts: some end, some run to their limit."""
    torch.manual_seed(2)
    model = LAS(config).eval()
    with torch.no_grad():  # far from ties, which rounding could decide
        for weight in model.speller.parameters():
            weight *= 4
        for weight in model.listener.parameters():
            weight *= 2
        model.speller.output.bias[EOS] -= 0.5
    return model


@pytest.fixture(scope="module")
def model(tiny_config):
    return random_model(tiny_config)


@pytest.fixture
def biased(model):
    """The model with another bias of one id."""
    bias = model.speller.output.bias
    before = bias.detach().clone()

    def biased(token: int, value: float) -> LAS:
        with torch.no_grad():
            bias[token] = value
        return model

    yield biased
    with torch.no_grad():
        bias.copy_(before)


@torch.inference_mode()
def greedily(model: LAS, waveforms: torch.Tensor, samples: torch.Tensor) -> list[Hypothesis]:
    return greedy(model, model.encode(waveforms, samples))


def limits(model: LAS, samples: torch.Tensor) -> list[int]:
    return [n + 10 for n in model.ctc_frames(samples).tolist()]


# --- batches --------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 12000), min_size=1, max_size=4), st.integers(0, 3000))
@settings(max_examples=15)
def test_a_batch_changes_nothing(model, noise, lengths, extra):
    waveforms, samples = noise(lengths, extra)
    together = greedily(model, waveforms, samples)
    assert len(together) == len(lengths)
    for row, length in enumerate(lengths):
        (alone,) = greedily(model, waveforms[row : row + 1, :length], samples[row : row + 1])
        assert together[row].text == alone.text
        assert together[row].finished == alone.finished
        assert together[row].score == pytest.approx(alone.score, rel=1e-4, abs=1e-4)
        torch.testing.assert_close(together[row].alignment, alone.alignment, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["location", "additive", "dot"])
def test_the_decoder_in_one_launch_writes_the_same(tiny_config, noise, monkeypatch, kind):
    """As on a GPU with the backend ``persistent``; here its source runs in the emulator."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "kernels")
    from emulated import library

    layers = tiny_config.speller.model_copy(update={"layers": 1})
    attention = tiny_config.attention.model_copy(update={"kind": kind})
    model = random_model(tiny_config.model_copy(update={"speller": layers, "attention": attention}))
    steps = greedily(model, *noise([12000, 500, 3000, 7000, 9000, 1]))
    assert len({len(one.text) for one in steps}) > 2
    machine = persistent_decoder.LaunchContext(library("persistent_decoder"), 3, 1 << 17, 0)
    monkeypatch.setattr(persistent_decoder, "_launch_context", lambda device: machine)
    monkeypatch.setattr(speller, "choose", lambda *_: PERSISTENT)
    monkeypatch.setattr(model.speller, "step", None)
    for one, other in zip(
        greedily(model, *noise([12000, 500, 3000, 7000, 9000, 1])), steps, strict=True
    ):
        assert (one.text, one.finished) == (other.text, other.finished)
        assert one.score == pytest.approx(other.score, rel=1e-4, abs=1e-4)
        torch.testing.assert_close(one.alignment, other.alignment, rtol=0, atol=1e-4)
        torch.testing.assert_close(one.log_probs, other.log_probs, rtol=0, atol=1e-4)


def test_the_batch_under_test_is_varied(model, noise):
    found = greedily(model, *noise([12000, 500, 3000, 7000, 9000, 1]))
    assert len({h.text for h in found}) > 3
    assert {h.finished for h in found} == {True, False}


# --- one utterance --------------------------------------------------------------------------


@torch.inference_mode()
def test_text_and_score_by_steps(model, noise):
    waveforms, samples = noise([4000, 8000, 600])
    for row, found in enumerate(greedily(model, waveforms, samples)):
        length = int(samples[row])
        encoded = model.encode(waveforms[row : row + 1, :length], samples[row : row + 1])
        state = model.speller.start(encoded.memory)
        written, score, alignments = [EOS], 0.0, []
        while len(written) <= limits(model, samples)[row]:
            logits, state = model.speller.step(encoded.memory, state, torch.tensor([[written[-1]]]))
            log_probs = logits[0, 0].log_softmax(-1).tolist()
            allowed = [i for i in range(len(log_probs)) if i != BLANK]
            written.append(max(allowed, key=lambda i: log_probs[i]))
            score += log_probs[written[-1]]
            alignments.append(state.alignment[0, 0])
            if written[-1] == EOS:
                break
        assert found.text == model.text.decode(written[1:])
        assert found.finished == (written[-1] == EOS)
        assert found.score == pytest.approx(score, rel=1e-4)
        torch.testing.assert_close(found.alignment, torch.stack(alignments), rtol=0, atol=1e-4)


def test_each_utterance_has_its_own_limit(biased, noise):
    waveforms, samples = noise([1, 2000, 9000])
    model = biased(EOS, -1e4)
    found = greedily(model, waveforms, samples)
    assert limits(model, samples) == [11, 14, 25]
    assert [len(h.text) for h in found] == limits(model, samples)
    assert not any(h.finished for h in found)


def test_an_end_at_once_is_an_empty_text(biased, noise):
    for found in greedily(biased(EOS, 1e4), *noise([1, 2000])):
        assert found.text == ""
        assert found.finished
        assert found.score == pytest.approx(0, abs=1e-6)
        assert found.alignment.shape[0] == 1


@pytest.mark.parametrize("value", [0.0, 1e3])
def test_blanks_are_never_written(biased, noise, value):
    found = greedily(biased(BLANK, value), *noise([1, 2000, 9000]))
    # Decoding passes over blanks: one that was written would be missing from the text.
    assert [len(h.text) for h in found] == [len(h.alignment) - h.finished for h in found]
    if value > 0:
        assert all(h.score < -900 for h in found)


def test_alignments_are_of_the_steps_and_the_valid_frames(model, noise):
    waveforms, samples = noise([1, 2000, 9000], extra=4000)
    frames = model.encode(waveforms, samples).memory.lengths.tolist()
    assert frames == [1, 4, 15]
    for found, valid in zip(greedily(model, waveforms, samples), frames, strict=True):
        assert found.alignment.shape == (len(found.text) + found.finished, 2, valid)
        total = found.alignment.sum(-1)
        torch.testing.assert_close(total, torch.ones_like(total))


def test_without_attention(tiny_config, noise):
    none = tiny_config.attention.model_copy(update={"kind": "none"})
    model = LAS(tiny_config.model_copy(update={"attention": none})).eval()
    waveforms, samples = noise([3000, 9000])
    found = greedily(model, waveforms, samples)
    assert all((h.alignment == 1).all() and h.alignment.shape[-1] == 1 for h in found)
    (alone,) = greedily(model, waveforms[:1, :3000], samples[:1])
    assert alone.text == found[0].text


# --- the choice of a search -----------------------------------------------------------------


@torch.inference_mode()
def test_the_default_is_greedy(model, noise):
    encoded = model.encode(*noise([2000, 4000, 9000]))
    for config in (None, SearchConfig(), SearchConfig(lm_weight=0.7)):
        found = search(model, encoded, config)
        assert [[(h.text, h.score) for h in n_best] for n_best in found] == [
            [(h.text, h.score)] for h in greedy(model, encoded)
        ]


@torch.inference_mode()
def test_greedy_log_probs_add_up_to_the_score(model, noise):
    for hypothesis in greedily(model, *noise([4000, 9000, 700])):
        assert len(hypothesis.log_probs) == len(hypothesis.ids) == len(hypothesis.alignment)
        assert float(hypothesis.log_probs.sum()) == pytest.approx(hypothesis.score, abs=1e-3)
        assert model.text.decode(hypothesis.ids.tolist()) == hypothesis.text


def test_the_n_best_are_in_order_and_all_different(model, noise):
    encoded = model.encode(*noise([2000, 4000, 9000]))
    for hypotheses in search(model, encoded, SearchConfig(beam=4, n_best=4, max_steps=12)):
        assert len({h.text for h in hypotheses}) == len(hypotheses) == 4
        keys = [(not h.finished, -h.score) for h in hypotheses]
        assert keys == sorted(keys)


def test_descriptions():
    assert describe(SearchConfig()) == describe(SearchConfig(lm_weight=0.1)) == "greedy"
    assert describe(SearchConfig(beam=8, n_best=4, ctc=0.3)) == "beam 8, ctc 0.3"
    assert describe(SearchConfig(), "LM") == "beam 1, lm LM, lm_weight 0.3"
    assert describe(SearchConfig(no_repeat_ngram=9)) == "beam 1, no_repeat_ngram 9"


def test_a_description_names_all_that_differs():
    config = SearchConfig(
        beam=2,
        ctc=0.25,
        lm_weight=0.5,
        word_weight=0.7,
        unknown_word=2.5,
        word_penalty=1.5,
        length_power=0.75,
        length_bonus=0.125,
        coverage=0.05,
        coverage_threshold=0.4,
        end_threshold=1.5,
        max_back=3,
        max_ahead=30,
        no_repeat_ngram=8,
        max_steps=100,
    )
    text = describe(config, "LM")
    for name in SearchConfig.model_fields:
        if name not in ("beam", "n_best"):
            assert f", {name} {getattr(config, name):g}" in text


def test_the_best_path_of_ctc_drops_repeats_then_blanks(model):
    a, b, space = model.text.encode("AB ")
    path = torch.tensor([[0, a, a, 0, a, b, b, space, b]])
    encoded = model.encode(torch.zeros(1, 4000), torch.tensor([4000]))
    log_probs = torch.nn.functional.one_hot(path, len(model.text)).float()
    encoded = encoded._replace(ctc=log_probs, ctc_lengths=torch.tensor([8]))
    assert ctc_greedy(model, encoded) == ["AAB "]
