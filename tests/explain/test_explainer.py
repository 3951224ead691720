"""Explanations: what they hold is what the search did."""

import numpy as np
import pytest
import soundfile
import torch
from speech import RATE, small_model, whistle

from las.audio import reader
from las.config import SearchConfig
from las.decoding.greedy import ctc_greedy
from las.decoding.hypothesis import CharacterAndWordLM
from las.explain import figure as explain_figure
from las.explain import html
from las.explain.explainer import ALTERNATIVES, Explainer
from las.lm.config import LMModelConfig
from las.lm.lstm import LanguageModel
from las.lm.word_ngram import WordModel
from las.text.characters import ALPHABET
from las.transcription.transcriber import Transcriber
from tests.decoding.test_presets import word_model
from tests.explain.pages import SAMPLES, Page


def test_it_explains_what_is_transcribed(explainer, explanation):
    (found,) = Transcriber(explainer.model, explainer.device).files([SAMPLES / "501-1-0004.wav"])
    assert explanation.text == found.text == "TURN ON THE KITCHEN RADIO"
    (section,) = explanation.sections
    best = found.chunks[0].hypotheses[0]
    assert "".join(c.text for c in section.characters) == best.text
    assert len(section.characters) == len(best.ids)  # the end is one
    found_log = np.log([c.probability for c in section.characters])
    np.testing.assert_allclose(found_log, best.log_probs, atol=1e-5)
    assert [w.word for w in section.words] == best.text.split()
    assert all(0 <= w.start <= w.end <= explanation.seconds for w in section.words)


def test_attention_lies_over_the_spectrogram(explanation):
    (section,) = explanation.sections
    U, T = section.attention.shape
    assert len(section.characters) == U
    np.testing.assert_allclose(section.attention.sum(1), 1.0, atol=1e-4)
    seconds = section.end - section.start
    assert seconds == pytest.approx(explanation.seconds)
    assert T * section.frame == pytest.approx(seconds, abs=section.frame)
    assert section.spectrogram.shape[1] * section.hop == pytest.approx(seconds, abs=section.hop)
    assert section.spectrogram.max() == 0.0
    for row, character in zip(section.attention, section.characters, strict=True):
        assert section.start <= character.start < character.end <= section.start + T * section.frame
        assert character.start <= character.centre <= character.end
        inside = [character.start <= (i + 0.5) * section.frame <= character.end for i in range(T)]
        assert row[inside].sum() >= 0.8 - 1e-4
        assert section.frame * 0.999 <= character.width <= T * section.frame * 1.001


def test_ctc_is_in_order(explainer, explanation):
    (section,) = explanation.sections
    waveform = torch.from_numpy(reader.load(SAMPLES / "501-1-0004.wav"))
    encoded = explainer.model.encode(waveform[None], torch.tensor([len(waveform)]))
    assert [section.ctc_text] == ctc_greedy(explainer.model, encoded)
    assert section.ctc_text.startswith("TURN ON THE ")
    times = [spike.time for spike in section.ctc]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < section.end


def test_alternatives_are_ranked_and_broken_down(explainer, explanation):
    (section,) = explanation.sections
    found = section.alternatives
    assert len({a.text for a in found}) == len(found) > 1
    assert [a.score for a in found] == sorted((a.score for a in found), reverse=True)
    assert [a.text for a in found if a.chosen] == [section.text]
    for alternative in found:
        assert alternative.score == pytest.approx(alternative.attention, abs=1e-3)  # no CTC, no LM
        assert alternative.ctc < 0
        assert alternative.lm is None
    samples = torch.from_numpy(explanation.waveform)[None]
    with torch.inference_mode():
        encoded = explainer.model.encode(samples, torch.tensor([samples.shape[1]]))
    ids = torch.tensor(explainer.model.text.encode(section.text))
    loss = torch.nn.functional.ctc_loss(
        encoded.ctc[0], ids, encoded.ctc_lengths, torch.tensor([len(ids)]), reduction="sum"
    )
    assert found[0].ctc == pytest.approx(-float(loss), abs=1e-3)


def test_alternatives_are_found_even_by_a_greedy_search(explanation):
    assert len(explanation.sections[0].alternatives) >= min(3, ALTERNATIVES)


def test_scores_add_up_with_ctc_and_a_language_model(explainer):
    lm = LanguageModel(LMModelConfig(width=8, embedding=4)).eval()
    config = SearchConfig(beam=3, n_best=3, ctc=0.3, lm_weight=0.1)
    found = Explainer(explainer.model, explainer.device, config, lm).file(
        SAMPLES / "501-1-0004.wav"
    )
    assert found.sections[0].text == "TURN ON THE KITCHEN RADIO"
    alternatives = found.sections[0].alternatives
    assert len(alternatives) == ALTERNATIVES
    for a in alternatives:
        assert a.lm is not None and a.lm < 0
        total = 0.7 * a.attention + 0.3 * a.ctc + 0.1 * a.lm
        assert a.score == pytest.approx(total, abs=1e-2)
    assert "Language model" in Page(html.page(found)).text


def test_scores_add_up_with_words(explainer, tmp_path):
    words = WordModel.load(word_model(tmp_path / "words", ALPHABET, ("KITCHEN", "RADIO")))
    config = SearchConfig(beam=3, n_best=3, word_weight=0.1, unknown_word=2.0)
    both = CharacterAndWordLM(None, words)
    found = Explainer(explainer.model, explainer.device, config, both).file(
        SAMPLES / "501-1-0004.wav"
    )
    for a in found.sections[0].alternatives:
        unknown = sum(word not in words.words for word in a.text.split())
        assert a.words == pytest.approx(-len(a.text.split()) - 1 - 2 * unknown, abs=1e-4)
        assert a.lm is None and a.score == pytest.approx(a.attention + 0.1 * a.words, abs=1e-2)
    text = Page(html.page(found)).text
    assert "Words" in text and "Language model" not in text


def test_files_and_arrays_are_explained_alike(explainer, explanation):
    waveform = reader.load(SAMPLES / "501-1-0004.wav")
    again = explainer.array(waveform, "501-1-0004.wav")
    assert html.page(again) == html.page(explanation)


def test_long_audio_has_sections_up_to_the_limit(tmp_path):
    explainer = Explainer(small_model(), torch.device("cpu"))
    sound = np.concatenate([np.append(whistle("ABE CAB", i), np.zeros(4000)) for i in range(60)])
    soundfile.write(tmp_path / "long.wav", sound.astype(np.float32), RATE, subtype="FLOAT")
    found = explainer.file(tmp_path / "long.wav", max_seconds=50.0)
    assert found.cut and found.seconds == 50.0
    assert len(found.sections) > 1
    assert found.sections[-1].end <= 50.0
    page = Page(html.page(found))
    assert len(page.all("section", "decoded")) == len(found.sections)
    assert "Only the first 50 s of the file are explained." in page.text
    names = [values["id"] for _, values in page.tags if "id" in values]
    assert len(set(names)) == len(names)
    whole = explainer.file(tmp_path / "long.wav")
    assert not whole.cut
    assert whole.seconds == pytest.approx(len(sound) / RATE)
    page = Page(html.page(whole))
    assert page.all("audio") == [] and "longer than 60 s" in page.text
    assert page.all("button") == []


def test_silence_is_said_to_be_silence(explainer):
    found = explainer.array(np.zeros(160000, np.float32), "silence.wav")
    page = Page(html.page(found))
    assert found.text == ""
    assert "(no text)" in page.text
    assert "No speech was found" in page.text
    assert page.all("rect", "row") == []
    assert len(explain_figure.figure(found, found.sections[0]).axes) == 4
