"""las.load().transcribe(): the same texts whatever form audio comes in; clear errors."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import soundfile
import torch
from speech import RATE, sentences, small_model, whistle

import las
from las.api import waveform
from las.config import SearchConfig
from las.decoding.hypothesis import CharacterAndWordLM
from las.decoding.presets import store_search
from las.errors import LASError
from las.lm.config import LMModelConfig
from las.lm.lstm import LanguageModel
from tests.decoding.test_presets import word_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    small_model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def recognizer(model):
    return las.load(model, device="cpu")


@pytest.fixture
def sound():
    return whistle("ABE CAB")


# --- forms of audio -------------------------------------------------------------------------


def test_all_forms_of_the_same_audio_give_the_same(recognizer, sound, tmp_path):
    integers = np.round(sound * 32768).astype(np.int16)
    sound = integers / np.float32(32768)  # what 16 bits hold
    soundfile.write(tmp_path / "a.wav", integers, RATE)
    stereo = np.stack([sound, sound])
    forms = [
        tmp_path / "a.wav",
        str(tmp_path / "a.wav"),
        sound,
        sound.astype(np.float64),
        integers,
        integers.astype(np.int32) << 16,
        stereo,
        stereo.astype(np.float64)[:1],
        torch.from_numpy(sound),
        torch.from_numpy(stereo).requires_grad_(),
        torch.from_numpy(integers),
        sound[::-1][::-1],  # not contiguous
    ]
    first, *others = (recognizer.transcribe(form) for form in forms)
    assert first.duration == pytest.approx(len(sound) / RATE)
    assert first.text
    for other in others:
        assert other == first


@pytest.mark.parametrize("kind", ["i2", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_byte_order_and_layout(sound, kind, order):
    scale = {"i2": 2**15, "i4": 2**31}.get(kind, 1)
    stereo = np.stack([sound, 0.5 * sound]) * 0.9 * scale
    stereo = stereo.astype(order + kind)
    wanted = waveform(np.ascontiguousarray(stereo.astype(kind)), None, RATE)
    wide = np.zeros((4, 3 * stereo.shape[1]), stereo.dtype)
    wide[1:3, ::3] = stereo
    fixed = stereo.copy()
    fixed.flags.writeable = False
    layouts = [
        stereo,
        np.asfortranarray(stereo),
        wide[1:3, ::3],
        np.ascontiguousarray(stereo[:, ::-1])[:, ::-1],
        np.ascontiguousarray(stereo[::-1])[::-1],
        np.ascontiguousarray(stereo.T).T,
        fixed,
        np.frombuffer(stereo.tobytes(), stereo.dtype).reshape(stereo.shape),
    ]
    for samples in layouts:
        np.testing.assert_array_equal(waveform(samples, None, RATE), wanted)
        np.testing.assert_array_equal(
            waveform(samples[0], None, RATE), waveform(layouts[0][0], None, RATE)
        )


def test_the_transcriber_takes_such_arrays_too(recognizer, sound):
    fixed = sound.astype(">f4")[::-1].copy()[::-1]
    fixed.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = recognizer._transcriber.waveforms([fixed])
    assert found.text == recognizer._transcriber.waveforms([sound])[0].text


def test_silence_is_a_warning(recognizer, sound, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    with pytest.warns(las.LASWarning, match="it is silent") as caught:
        results = recognizer.transcribe_many([tmp_path / "a.wav", sound, 0 * sound])
    names = [str(one.message).partition(": it")[0] for one in caught]
    assert names == [str(tmp_path / "a.wav"), "audio 2"]
    assert [bool(result.text) for result in results] == [False, True, False]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recognizer.transcribe(sound)


def test_channels_that_cancel_are_turned_over(sound):
    both = np.stack([sound, -sound])
    for samples in (both, torch.from_numpy(both)):
        np.testing.assert_allclose(waveform(samples, None, RATE), sound, atol=1e-7)
    ints = np.stack([np.full(RATE, -32768), np.full(RATE, 32767)]).astype(np.int16)
    assert np.abs(waveform(ints, None, RATE)).min() > 0.99


def test_channels_are_averaged(recognizer, sound):
    both = np.stack([2 * sound, 0 * sound])
    np.testing.assert_allclose(waveform(both, None, RATE), sound, atol=1e-7)


@pytest.mark.parametrize("rate", [4000, 11025, 16000, 44100])
def test_arrays_are_resampled(recognizer, rate):
    found = recognizer.transcribe(whistle("ABE CAB", rate=rate), sample_rate=rate)
    assert found.duration == pytest.approx(len(whistle("ABE CAB", rate=rate)) / rate, abs=1e-3)
    assert len(waveform(np.zeros(rate), rate, RATE)) == RATE


def test_what_is_given_is_not_changed(recognizer, sound):
    before = sound.copy()
    recognizer.transcribe(sound)
    np.testing.assert_array_equal(sound, before)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros((RATE, 2)), "[8000, 2]; give [samples] or [channels, samples], as audio.T"),
        (np.zeros((1, 2, RATE)), "[1, 2, 8000]"),
        (np.zeros(()), "[]"),
        (np.zeros((0, RATE)), "[0, 8000]"),
        (np.zeros(0), "0 samples"),
        (np.zeros(100), "12.5 ms; give at least 50 ms"),
        (np.full(RATE, np.nan), "8000 samples are NaN"),
        (np.append(np.zeros(RATE), np.inf), "1 samples are NaN, infinite"),
        (np.append(np.zeros(RATE), 1e300), "1 samples are"),
    ],
)
def test_what_is_no_audio(recognizer, samples, words):
    with pytest.raises(las.LASError) as caught:
        recognizer.transcribe(samples)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [0, -16000, 1999, 10**9, 16000.5])
def test_a_sample_rate_that_is_none(recognizer, sound, rate):
    with pytest.raises(las.LASError, match="sample_rate"):
        recognizer.transcribe(sound, sample_rate=rate)


@pytest.mark.parametrize(
    "samples",
    [
        [0.0] * RATE,
        None,
        7,
        b"RIFF",
        np.zeros(RATE, bool),
        np.zeros(RATE, np.int64),
        np.zeros(RATE, ">i8"),
        np.zeros(RATE, ">c8"),
        np.zeros(RATE, object),
        torch.zeros(RATE).to_sparse(),
        torch.zeros(RATE, device="meta"),
        torch.zeros(RATE, dtype=torch.complex64).conj(),
    ],
    ids=lambda samples: type(samples).__name__,
)
def test_wrong_types(recognizer, samples):
    with pytest.raises(TypeError, match="audio: "):
        recognizer.transcribe(samples)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.to_sparse(),
        lambda x: x.to("meta"),
        lambda x: torch.quantize_per_tensor(x, 1.0, 0, torch.qint8),
        lambda x: torch.nested.nested_tensor([x], layout=torch.jagged),
    ],
    ids=["sparse", "meta", "quantized", "nested"],
)
def test_tensors_that_hold_no_plain_samples(recognizer, make):
    with pytest.raises(TypeError, match="audio: give a dense tensor"):
        recognizer.transcribe(make(torch.zeros(RATE)))


def test_numbers_that_are_none(recognizer, sound):
    for rate in ("16000", True, [16000]):
        with pytest.raises(TypeError, match="sample_rate: give a number of Hz, not"):
            recognizer.transcribe(sound, sample_rate=rate)
    with pytest.raises(TypeError, match="batch_seconds: give a number of seconds, not str"):
        recognizer.transcribe_many([sound], batch_seconds="60")
    assert recognizer.transcribe(sound, sample_rate=np.int32(RATE)) is not None


@pytest.mark.parametrize("name", ["model", "lm", "words"])
def test_folders_that_are_none(name):
    with pytest.raises(TypeError, match=f"{name}: give a folder, not int"):
        las.load(**{name: 3})


def test_a_file_tells_its_own_rate(recognizer):
    with pytest.raises(TypeError, match="sample_rate"):
        recognizer.transcribe("a.wav", sample_rate=16000)


# --- results --------------------------------------------------------------------------------


def test_words_can_be_left_out(recognizer, sound):
    whole = recognizer.transcribe(sound)
    assert [w.word for w in whole.words] == whole.text.split()
    short = recognizer.transcribe(sound, word_timestamps=False)
    assert short.words == []
    assert short.text == whole.text
    assert [s.tokens for s in short.segments] == [s.tokens for s in whole.segments]


def test_many_are_as_single_and_in_order(recognizer, tmp_path):
    sounds = [whistle(text, seed) for seed, text in enumerate(sentences(5))]
    soundfile.write(tmp_path / "a.wav", sounds[1], RATE, subtype="FLOAT")
    mixed = [sounds[0], tmp_path / "a.wav", sounds[2], torch.from_numpy(sounds[3]), sounds[4]]
    for seconds in (0.1, 100.0):
        found = recognizer.transcribe_many(mixed, batch_seconds=seconds)
        assert [f.text for f in found] == [recognizer.transcribe(s).text for s in sounds]
        durations = [len(s) / RATE for s in sounds]
        assert [f.duration for f in found] == pytest.approx(durations)
    assert recognizer.transcribe_many([]) == []


def test_errors_among_many(recognizer, sound, tmp_path):
    missing = tmp_path / "missing.wav"
    given = [sound, missing, np.zeros(3), sound]
    with pytest.raises(las.LASError, match=r"missing\.wav: no such file"):
        recognizer.transcribe_many(given)
    found = recognizer.transcribe_many(given, return_exceptions=True)
    kinds = [las.Transcription, las.LASError, las.LASError, las.Transcription]
    assert [type(entry) for entry in found] == kinds
    assert found[0] == found[3]


@pytest.mark.parametrize(
    "given", ["a.wav", np.zeros((2, RATE)), torch.zeros(2, RATE), iter(["a.wav"]), None, {"a.wav"}]
)
def test_many_are_a_list(recognizer, given):
    with pytest.raises(TypeError, match="give a list"):
        recognizer.transcribe_many(given)


# --- loading --------------------------------------------------------------------------------


def test_settings_of_the_search(model, sound):
    assert las.load(model).config == SearchConfig()
    given = las.load(model, search={"beam": 3, "ctc": 0.2})
    assert given.config == SearchConfig(beam=3, ctc=0.2)
    assert given.transcribe(sound).duration > 0
    assert las.load(model, search=SearchConfig(beam=2)).config.beam == 2
    with pytest.raises(las.LASError, match="did you mean `beam`"):
        las.load(model, search={"beams": 3})
    with pytest.raises(TypeError, match="search"):
        las.load(model, search="beam=3")


def test_what_the_model_folder_keeps(tmp_path):
    network = small_model()
    network.save_pretrained(tmp_path / "model")
    lm = LanguageModel(LMModelConfig(alphabet=network.config.alphabet, width=8, embedding=4))
    lm.save_pretrained(tmp_path / "lm")
    store_search(tmp_path / "model", SearchConfig(beam=2, lm_weight=0.1), tmp_path / "lm")
    kept = las.load(tmp_path / "model")
    assert (kept.config.beam, kept.config.lm_weight) == (2, 0.1)
    assert kept.lm is not None
    fresh = las.load(tmp_path / "model", search={"beam": 3})
    assert fresh.lm is None
    named = las.load(tmp_path / "model", search={"beam": 3}, lm=tmp_path / "lm")
    assert named.lm is not None
    store_search(tmp_path / "model", SearchConfig(beam=2))
    assert las.load(tmp_path / "model").lm is None
    assert las.load(tmp_path / "model", lm=tmp_path / "lm").config.lm_weight == 0.3
    ready = LanguageModel.load(tmp_path / "lm")
    assert las.load(tmp_path / "model", lm=ready).lm is ready


def test_words_beside_the_language_model(tmp_path):
    small_model().save_pretrained(tmp_path / "model")
    words = word_model(tmp_path / "words")
    named = las.load(tmp_path / "model", words=words)
    assert named.config.word_weight == 0.3
    assert isinstance(named.lm, CharacterAndWordLM) and named.lm.characters is None
    ready = las.load(tmp_path / "model", search={"word_weight": 0.1}, words=named.lm.words)
    assert ready.config.word_weight == 0.1 and ready.lm.words is named.lm.words
    with pytest.raises(LASError, match="words=FOLDER"):
        las.load(tmp_path / "model", search={"word_weight": 0.1})
    store_search(tmp_path / "model", SearchConfig(beam=2, word_weight=0.2), None, words)
    kept = las.load(tmp_path / "model")
    assert kept.config.word_weight == 0.2 and isinstance(kept.lm, CharacterAndWordLM)


def test_what_cannot_be_loaded(tmp_path, model):
    with pytest.raises(las.LASError, match="no such model folder"):
        las.load(tmp_path / "none")
    with pytest.raises(las.LASError, match="use auto, cpu or cuda"):
        las.load(model, device="tpu")


def test_repr_tells_what_it_is(recognizer):
    assert "8000 Hz, on cpu" in repr(recognizer)


# --- the package ----------------------------------------------------------------------------


def test_importing_is_quick_and_names_are_there():
    code = (
        "import sys, las; "
        "heavy = [m for m in ('torch', 'numpy', 'pydantic', 'librosa') if m in sys.modules]; "
        "print(heavy, set(las.__all__) <= set(dir(las)), las.LASError.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[] True LASError\n", done.stderr


def test_every_public_name_is_its_own():
    for name in las.__all__:
        assert getattr(las, name) is not None
    from las import api
    from las.transcription import types

    assert las.load is api.load
    assert las.Transcription is types.Transcription
    with pytest.raises(AttributeError, match="no attribute 'transcribe_all'"):
        las.transcribe_all  # noqa: B018
