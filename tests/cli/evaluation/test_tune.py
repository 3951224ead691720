"""``las tune``: what it writes, what the other commands make of it, and how it is misused."""

import gzip
import json

import pytest
import torch
import yaml
from speech import error_line, run_main, sentences, small_model, write_manifest

from las.config import SearchConfig
from las.decoding.hypothesis import CharacterAndWordLM
from las.decoding.presets import store_search, stored_search
from las.evaluation import trials, tune
from las.evaluation.evaluate import transcribe_manifest
from las.evaluation.tune import GREEDY
from tests.decoding.test_presets import language_model, word_model
from tests.evaluation.test_tune import trial


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("tune"), sentences(4))


def write_as_said(manifest, texts, path):
    """The manifest with other texts."""
    with gzip.open(manifest, "rt") as file:
        lines = [json.loads(line) for line in file]
    for cut in lines:
        cut["supervisions"][0]["text"] = texts[cut["id"]]
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(cut) + "\n" for cut in lines)
    return path


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "recogniser"
    small_model().save_pretrained(folder)
    return folder


@pytest.fixture
def las(monkeypatch, capsys):
    def run(*arguments):
        return run_main(monkeypatch, capsys, *arguments)

    return run


def pretend(monkeypatch, errors):
    """Have settings make as many errors as a function of them says."""
    monkeypatch.setattr(trials, "measure", lambda las, batches, c, lm: trial(c, errors(c)))


def test_what_is_chosen_is_the_default_of_the_other_commands(
    las, model, manifest, monkeypatch, tmp_path
):
    # The right texts are those that some settings find.
    right = SearchConfig(beam=2, ctc=0.3, lm_weight=0.0)
    found = transcribe_manifest(small_model(), manifest, torch.device("cpu"), config=right)
    texts = {utterance.id: utterance.hypothesis for utterance in found}
    manifest = write_as_said(manifest, texts, tmp_path / "right.jsonl.gz")
    monkeypatch.setattr(tune, "GRID", {**dict.fromkeys(tune.GRID, (0.0,)), "ctc": (0.0, 0.3, 0.6)})
    monkeypatch.setitem(tune.GRID, "end_threshold", (None,))
    status, out, err = las("tune", model, manifest, "--beam", 2)
    assert (status, err) == (0, "")
    report = json.loads((model / "tuning.json").read_text())
    assert report["better_than_greedy"]
    assert report["chosen"]["word_errors"] < report["greedy"]["word_errors"]
    assert report["chosen"]["wer"] == 0.0
    assert report["words"] == sum(len(text.split()) for text in texts.values())
    assert report["comparison"]["difference"] < 0
    assert report["command"] == f"las tune {model} {manifest} --beam 2"
    assert torch.__version__ in report["versions"]
    text = (model / "tuning.txt").read_text()
    assert out.startswith(text)
    assert all(f"  {row['search']}\n" in text for row in report["trials"])
    settings = yaml.safe_load((model / "search.yaml").read_text())
    assert settings == report["chosen"]["settings"]
    assert stored_search(model) == (SearchConfig(**settings), None)

    status, _, err = las("evaluate", model, manifest)
    assert (status, err) == (0, "")
    scored = json.loads((model / "evaluation-right.json").read_text())
    for name in ("search", "wer", "cer"):
        assert scored[name] == report["chosen"][name]
    _, out, _ = las("info", model)
    assert f"search: {scored['search']}\n" in out
    las("evaluate", model, manifest, "--greedy")
    scored = json.loads((model / "evaluation-right.json").read_text())
    assert (scored["search"], scored["wer"]) == ("greedy", report["greedy"]["wer"])


def test_a_language_model_that_helps_is_kept(las, model, manifest, monkeypatch, tmp_path):
    pretend(monkeypatch, lambda c: 200 if c == GREEDY else 100 - int(50 * c.lm_weight))
    lm = language_model(tmp_path / "books" / "model")
    status, out, err = las(
        "tune", model, manifest, "--lm", lm, "--beam", 2, "--output", tmp_path / "r"
    )
    assert (status, err) == (0, "")
    assert (model / "lm" / "lm.yaml").read_bytes() == (lm / "lm.yaml").read_bytes()
    config, lm = stored_search(model)
    assert config.lm_weight == 1.0 and lm is not None
    assert json.loads((tmp_path / "r.json").read_text())["chosen"]["search"].endswith(
        "lm books/model, lm_weight 1"
    )
    assert "chosen: beam 1, lm books/model, lm_weight 1\n" in out
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["r.json", "r.txt"]


def test_words_that_help_are_kept(las, model, manifest, monkeypatch, tmp_path):
    words = word_model(tmp_path / "words")
    pretend(monkeypatch, lambda config: 100 - int(100 * (config.word_weight == 0.2)))
    status, out, err = las("tune", model, manifest, "--words", words, "--beam", 1)
    assert (status, err) == (0, "")
    assert "chosen: beam 1, word_weight 0.2" in out
    config, lm = stored_search(model)
    assert config.word_weight == 0.2 and isinstance(lm, CharacterAndWordLM)
    assert json.loads((model / "tuning.json").read_text())["word_model"].endswith("/words")


def test_one_that_does_not_is_not(las, model, manifest, monkeypatch, tmp_path):
    pretend(monkeypatch, lambda c: 100 + int(50 * c.lm_weight) - 90 * (c.ctc > 0))
    lm = language_model(tmp_path / "books")
    las("tune", model, manifest, "--lm", lm, "--beam", 2)
    assert not (model / "lm").exists()
    assert stored_search(model) == (SearchConfig(ctc=0.1, lm_weight=0.0), None)


def test_greedy_search_stays_where_nothing_is_better(las, model, manifest, monkeypatch):
    pretend(monkeypatch, lambda c: 100 if c == GREEDY else 120)
    status, out, _ = las("tune", model, manifest, "--beam", 2)
    assert status == 0
    assert "no settings save the 2 word errors" in out and "greedy search is chosen" in out
    assert stored_search(model) == (GREEDY, None)
    report = json.loads((model / "tuning.json").read_text())
    assert (report["better_than_greedy"], report["chosen"]["search"]) == (False, "greedy")


def test_stored_settings_stay_unless_better_ones_are_found(
    las, model, manifest, monkeypatch, tmp_path
):
    lm = language_model(tmp_path / "books")
    stored = SearchConfig(beam=5, ctc=0.35, lm_weight=0.7)
    store_search(model, stored, lm)
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    pretend(monkeypatch, lambda c: 80 if c.lm_weight == 0.7 and c.beam == 5 else 90)
    status, out, err = las("tune", model, manifest, "--beam", 2, "--output", tmp_path / "r")
    assert (status, err) == (0, "")
    assert "(stored)\n" in out and "the stored settings are kept: 8.00 % WER" in out
    assert {path: path.read_bytes() for path in before} == before
    # It begins there, with the language model that is there.
    pretend(monkeypatch, lambda c: 40 if c.lm_weight == 0.8 else 80)
    las("tune", model, manifest, "--beam", 2)
    assert stored_search(model)[0].lm_weight == 0.8
    assert (model / "lm/lm.yaml").read_bytes() == (lm / "lm.yaml").read_bytes()


def test_some_of_a_large_set(las, model, manifest, monkeypatch, tmp_path):
    pretend(monkeypatch, lambda c: 100)
    drawn = ("--utterances", 2, "--seed", 3)
    _, out, _ = las("tune", model, manifest, *drawn, "--output", tmp_path)  # a folder
    assert out.startswith("part.jsonl.gz: 2 utterances\n")
    report = json.loads((tmp_path / "tuning.json").read_text())
    assert report["drawn"] == {"utterances": 2, "seed": 3}


def test_misuse(las, model, manifest, tmp_path):
    other = language_model(tmp_path / "other", "XYZ")
    for arguments, words in (
        ((tmp_path / "none", manifest), "no such model folder"),
        ((model, tmp_path / "none.jsonl.gz"), "no such manifest"),
        ((model, manifest, "--lm", other), "'XYZ'"),
        ((model, manifest, "--lm", model), "not a language model folder"),
    ):
        status, _, err = las("tune", *arguments)
        assert status == 1
        assert words in error_line(err)
    assert not (model / "search.yaml").exists()
