"""The demo corpus that ships ready-made, the sample files, and the generator of both."""

import importlib.util
import sys
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

import las
from las.errors import LASError

DEMO = Path(__file__).parents[2] / "recipes" / "demo"
CORPUS = DEMO / "corpus"
SAMPLES = Path(las.__file__).parent / "samples"
PARTS = ("train", "dev", "test")
ALPHABET = set("ABCDEFGHIJKLMNOPQRSTUVWXYZ' ")


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_synthesise", DEMO / "synthesise.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


synthesise = load_generator()


def transcripts(part: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    for file in sorted((CORPUS / part).rglob("*.trans.txt")):
        for line in file.read_text(encoding="ascii").splitlines():
            name, text = line.split(" ", 1)
            assert name not in texts
            texts[name] = text
    return texts


@pytest.fixture(scope="module")
def texts() -> dict[str, dict[str, str]]:
    return {part: transcripts(part) for part in PARTS}


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, str]]:
    header, *rows = (CORPUS / "SPEAKERS.TXT").read_text(encoding="ascii").splitlines()
    keys = [key.strip() for key in header.removeprefix(";").split("|")]
    return {row.split(" | ")[0]: dict(zip(keys, row.split(" | "), strict=True)) for row in rows}


def voice(speaker: dict[str, str]) -> str:
    """What makes a voice: the variant of espeak-ng whatever its accent, the speaker of flite."""
    return f"{speaker['synthesiser']} {speaker['voice'].split('+')[-1]}"


@pytest.mark.parametrize("part", PARTS)
def test_every_line_has_its_audio_and_vice_versa(part, texts):
    files = {
        f"{file.parts[-3]}/{file.parts[-2]}/{file.stem}" for file in (CORPUS / part).rglob("*.opus")
    }
    lines = {"/".join([*name.split("-")[:2], name]) for name in texts[part]}
    assert files == lines
    assert len(files) >= (1000 if part == "train" else 80)


@pytest.mark.parametrize("part", PARTS)
def test_texts_are_commands_in_the_alphabet(part, texts):
    words = {word for text in texts[part].values() for word in text.split(" ")}
    assert words <= synthesise.vocabulary()
    assert set("".join(words)) <= ALPHABET
    assert {2 <= len(text.split()) <= 8 for text in texts[part].values()} == {True}


def test_train_speaks_every_word_often(texts):
    spoken = [word for text in texts["train"].values() for word in text.split()]
    counts = {word: spoken.count(word) for word in synthesise.vocabulary()}
    assert min(counts.values()) >= 15, counts


def test_no_sentence_is_in_two_parts(texts):
    train, dev, test = (set(texts[part].values()) for part in PARTS)
    assert not train & dev
    assert not train & test
    assert not dev & test


def test_speakers_are_listed_and_speak_in_one_part(texts, table):
    heard = {(name.split("-")[0], part) for part in PARTS for name in texts[part]}
    assert heard == {(number, speaker["part"]) for number, speaker in table.items()}


def test_voices_of_test_are_heard_nowhere_else(table):
    voices = {part: {voice(s) for s in table.values() if s["part"] == part} for part in PARTS}
    assert not voices["test"] & (voices["train"] | voices["dev"])
    assert voices["dev"] <= voices["train"]
    assert len(voices["test"]) >= 10


@pytest.mark.parametrize("part", PARTS)
def test_both_synthesisers_speak(part, texts, table):
    flite = [table[name.split("-")[0]]["synthesiser"] == "flite" for name in texts[part]]
    assert 0.2 <= np.mean(flite) <= 0.45


def test_the_corpus_is_small():
    assert sum(file.stat().st_size for file in CORPUS.rglob("*") if file.is_file()) <= 5_000_000


@pytest.mark.parametrize("part", PARTS)
def test_audio_is_speech_at_16_khz(part):
    for file in (CORPUS / part).rglob("*.opus"):
        audio, rate = sf.read(file, dtype="float32")
        assert (rate, audio.ndim) == (16_000, 1), file
        assert 0.5 <= len(audio) / rate <= 5, file
        assert 0.1 < np.abs(audio).max() < 1, file
        assert 0.01 < np.sqrt(np.mean(audio**2)) < 0.5, file
        # Silence at both ends, a tenth of a second, and no more than that.
        loud = np.flatnonzero(np.abs(audio) > 0.05 * np.abs(audio).max())
        assert 0.03 < loud[0] / rate < 0.4, file
        assert 0.03 < (len(audio) - loud[-1]) / rate < 0.4, file


def test_samples_are_utterances_of_test(texts, table):
    lines = (SAMPLES / "references.tsv").read_text(encoding="ascii").splitlines()
    references = dict(line.split("\t") for line in lines)
    files = {file.name for file in SAMPLES.iterdir() if file.suffix not in {".tsv", ".py"}}
    assert files == set(references)
    assert {Path(name).stem: text for name, text in references.items()}.items() <= texts[
        "test"
    ].items()
    assert len({name.split("-")[0] for name in references}) == len(references)
    assert {table[name.split("-")[0]]["synthesiser"] for name in references} == {
        "espeak-ng",
        "flite",
    }
    assert {Path(name).suffix for name in references} == {".wav", ".flac", ".opus", ".mp3", ".ogg"}


def test_samples_are_readable_and_small():
    files = [file for file in SAMPLES.iterdir() if file.suffix not in {".tsv", ".py"}]
    assert sum(file.stat().st_size for file in files) < 400_000
    for file in files:
        audio, rate = sf.read(file)
        assert 0.5 <= len(audio) / rate <= 5
        assert np.sqrt(np.mean(audio**2)) > 0.01


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_grammar_yields_its_own_words_and_the_same_for_a_seed(seed):
    first = list(islice(synthesise.sentences(seed), 50))
    assert first == list(islice(synthesise.sentences(seed), 50))
    assert {word for text in first for word in text.split(" ")} <= synthesise.vocabulary()
    assert all(2 <= len(text.split()) <= 8 for text in first)
    assert len(set(first)) > 30


def test_grammar_leaves_no_symbol_unexpanded():
    assert set("".join(synthesise.vocabulary())) <= ALPHABET - {" "}
    assert set(" ".join(islice(synthesise.sentences(0), 5000)).split()) == synthesise.vocabulary()


def test_plan_depends_on_the_seed_alone():
    assert synthesise.plan(1) == synthesise.plan(1)
    assert synthesise.plan(1) != synthesise.plan(2)


@pytest.mark.parametrize("seed", [0, 7])
def test_plan_keeps_the_parts_apart(seed):
    plan = synthesise.plan(seed)
    assert len({u.name for u in plan}) == len(plan)
    sentences = {part: {u.text for u in plan if u.speaker.part == part} for part in PARTS}
    assert not sentences["train"] & (sentences["dev"] | sentences["test"])
    assert all(synthesise.part_of(u.text, seed) == u.speaker.part for u in plan)


def test_shipped_corpus_is_the_plan_of_seed_0(texts):
    planned: dict[str, dict[str, str]] = {part: {} for part in PARTS}
    for utterance in synthesise.plan(0):
        planned[utterance.speaker.part][utterance.name] = utterance.text
    assert texts == planned


def test_trim_leaves_a_tenth_of_a_second():
    speech = np.sin(np.arange(8000, dtype=np.float32))
    for before, after in [(0, 0), (9000, 20_000)]:
        audio = synthesise.trim(np.pad(speech, (before, after)), gain=1.2)
        assert abs(len(audio) - (8000 + 2 * 1600)) < 600
        assert np.abs(audio).max() == pytest.approx(0.6)


def test_missing_program_is_named_with_its_cure(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LASError, match=r"espeak-ng, flite.*apt install espeak-ng flite"):
        synthesise.synthesise(tmp_path / "corpus")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path):
    with pytest.raises(LASError, match="exists"):
        synthesise.synthesise(tmp_path)
