"""Letters beyond A to Z: from a corpus over a training to a transcript they stay what they are."""

import json
import unicodedata

import numpy as np
import pytest
import soundfile
import yaml
from speech import RATE, TONES, error_line, run_config, run_main, sentences, whistle

from las import config_files as configuration
from las.config import ModelConfig, TextConfig
from las.data.manifests import read_manifest
from las.errors import LASError
from las.model.las import LAS
from las.storage.settings import save_settings

# Alphabets, and what the whistled letters A to F are written as.
LANGUAGES = {"de": (" 'AÄÖÜSE", "ÄÖÜASE"), "ru": (" АЙЁБВГ", "ЙЁАБВГ")}


def spelt(text: str, letters: str) -> str:
    """A whistled text in the letters of a language."""
    return text.translate(dict(zip(map(ord, TONES), letters, strict=True)))


@pytest.fixture
def las(monkeypatch, capsys):
    return lambda *arguments: run_main(monkeypatch, capsys, *arguments)


@pytest.mark.parametrize("language", ["de", "ru"])
def test_a_model_writes_the_letters_that_it_was_taught(language, las, tmp_path):
    alphabet, letters = LANGUAGES[language]
    settings = run_config(
        tmp_path / "data/mine.jsonl.gz",
        tmp_path / "run",
        data__batch_seconds=20.0,
        training__epochs=35,
        training__hold=0.6,
    ).model_copy(
        update={
            "alphabet": alphabet,
            "text": TextConfig(normalizer="upper", language=language),
        }
    )
    save_settings(settings, tmp_path / "run.yaml")
    (tmp_path / "mine").mkdir()
    texts = sentences(16)
    for index, text in enumerate(texts):
        path = tmp_path / f"mine/{index:02}.wav"
        soundfile.write(path, whistle(text, index), RATE)
        # As people write: lower case, letters and their accents apart.
        path.with_suffix(".txt").write_text(
            unicodedata.normalize("NFD", spelt(text, letters)).lower()
        )
    prepared = las(
        "prepare", "folder", tmp_path / "mine", tmp_path / "data", "--like", tmp_path / "run.yaml"
    )
    assert prepared[0] == 0 and "accents" not in prepared[1], prepared
    manifest = list(read_manifest(tmp_path / "data/mine.jsonl.gz"))
    assert [cut.supervisions[0].text for cut in manifest] == [spelt(t, letters) for t in texts]
    assert las("train", tmp_path / "run.yaml")[0] == 0
    out = tmp_path / "out"
    model = tmp_path / "run/model"
    status, _, err = las("transcribe", tmp_path / "mine", "--model", model, "-f", "json", "-o", out)
    assert (status, err.count("error")) == (0, 0)
    found = [json.loads(path.read_text()) for path in sorted(out.iterdir())]
    right = sum(r["text"] == spelt(t, letters) for r, t in zip(found, texts, strict=True))
    assert right > 6  # it is small, and nobody spells by chance
    assert {result["language"] for result in found} == {language}
    assert set("".join(result["text"] for result in found)) >= set(letters)


@pytest.mark.parametrize(
    ("alphabet", "normalizer", "strange"),
    [
        (" AÖ", "english", "Ö"),
        (" abA", "english", "ab"),
        (" Aa", "upper", "a"),
        (" A.-", "upper", ".-"),
        (" A\u0438\u0306", "none", ""),
        (" aÖ.!", "none", ""),
    ],
)
def test_an_alphabet_that_the_normalizer_never_leaves(las, tmp_path, alphabet, normalizer, strange):
    given = {"alphabet": alphabet, "text": {"normalizer": normalizer}}
    commands = [
        (
            "prepare",
            "folder",
            tmp_path,
            tmp_path / "d",
            "--alphabet",
            alphabet,
            "--normalizer",
            normalizer,
        ),
        (
            "lm",
            "words",
            tmp_path / "t.txt",
            tmp_path / "w",
            "--alphabet",
            alphabet,
            "--normalizer",
            normalizer,
        ),
    ]
    (tmp_path / "t.txt").write_text("a\n")
    if not strange:
        assert ModelConfig.model_validate(given).alphabet == alphabet
        return
    with pytest.raises(ValueError, match="removes or changes"):
        ModelConfig.model_validate(given)
    for command in commands:
        status, _, err = las(*command)
        assert status == 1
        assert f"removes or changes {strange!r}" in error_line(err)


def test_a_folder_of_before_there_was_a_normalizer_loads(tmp_path):
    settings = ModelConfig(
        alphabet=" abÖ", text={"normalizer": "none"}, listener={"width": 4}, speller={"width": 4}
    )
    LAS(settings).save_pretrained(tmp_path)
    before = yaml.safe_load((tmp_path / "config.yaml").read_text())
    del before["text"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(before))
    assert LAS.from_pretrained(tmp_path).text.normalise("Ö b") == "Ö b"
    before["alphabet"] = ""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(before))
    with pytest.raises(LASError, match="alphabet"):
        LAS.from_pretrained(tmp_path)


def test_accents_that_are_lost_are_told(las, tmp_path):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.sin(np.arange(RATE)), RATE)
    (tmp_path / "list.csv").write_text("audio,text\na.wav,schöne Grüße\n")
    status, out, _ = las("prepare", "folder", tmp_path / "list.csv", tmp_path / "d")
    assert status == 0 and "1 transcripts lost accents; --normalizer upper" in out


@pytest.mark.parametrize(
    ("written", "alphabet"), [(" 'AB", " 'AB"), ("' AB'", " AB"), (" АБ", " АБ"), ("206", "206")]
)
def test_texts_on_the_command_line_are_as_they_are_written(tmp_path, written, alphabet):
    (tmp_path / "a.yaml").write_text("text: {normalizer: none}\n")
    settings = configuration.load(ModelConfig, tmp_path / "a.yaml", [f"alphabet={written}"])
    assert settings.alphabet == alphabet


def test_like_names_both(las, tmp_path):
    (tmp_path / "a.yaml").write_text("alphabet: ' AB'\n")
    soundfile.write(tmp_path / "a.wav", 0.1 * np.ones(RATE), RATE)
    (tmp_path / "list.csv").write_text("audio,text\na.wav,c\n")
    status, _, err = las(
        "prepare",
        "folder",
        tmp_path / "list.csv",
        tmp_path / "d",
        "--like",
        tmp_path / "a.yaml",
        "--alphabet",
        "C",
    )
    assert status == 1 and "--like" in error_line(err)
    status, _, err = las(
        "prepare", "folder", tmp_path / "list.csv", tmp_path / "d", "--like", tmp_path / "a.yaml"
    )
    assert status == 1 and "1 characters outside the alphabet" in error_line(err)
