"""Calibrated probabilities of words, from the model folder."""

import math

import pytest
from speech import small_model

import las
from las.errors import LASError
from las.storage.settings import save_settings
from las.transcription import confidence as word_confidence
from las.transcription.confidence import CONFIDENCE, Calibration
from las.transcription.word_timestamps import timed_words


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "recogniser"
    small_model().save_pretrained(folder)
    return folder


def test_a_folder_without_it_says_what_the_speller_says(model):
    assert word_confidence.timer(model) is timed_words
    assert word_confidence.stored(model) is None


def test_it_is_what_users_get(model, noise):
    audio = noise([16000])[0][0].numpy()
    before = las.load(model).transcribe(audio).words
    save_settings(Calibration(slope=0.5, offset=-1.0), model / CONFIDENCE)
    after = las.load(model).transcribe(audio).words
    assert len(before) == len(after) > 0
    for one, other in zip(before, after, strict=True):
        x = 0.5 * math.log(one.probability / (1 - one.probability)) - 1
        assert other.probability == pytest.approx(1 / (1 + math.exp(-x)))
        assert (one.word, one.start, one.end) == (other.word, other.start, other.end)


@pytest.mark.parametrize(
    ("text", "said"),
    [("slope: 0", "slope"), ("slope: .inf", "slope"), ("offset: much", "offset"), ("{", "YAML")],
)
def test_a_damaged_map_is_one_line(model, text, said):
    (model / CONFIDENCE).write_text(text)
    with pytest.raises(LASError, match=said) as caught:
        las.load(model)
    assert CONFIDENCE in str(caught.value) and "\n" not in str(caught.value)
