"""The options of a search, from the command to the result."""

import json

import pytest
import soundfile
import torch
from speech import RATE, error_line, run_main, sentences, small_model, whistle, write_manifest

from las.lm import LanguageModel
from las.lm_config import LMModelConfig
from las.text import EOS


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    small_model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("search"), sentences(4))


@pytest.fixture
def las(monkeypatch, capsys):
    def run(*arguments):
        return run_main(monkeypatch, capsys, *arguments)

    return run


@pytest.fixture
def audio(tmp_path):
    paths = []
    for text in ("ABE CAB", "BEAD"):
        paths.append(tmp_path / f"{text[:3]}.wav")
        soundfile.write(paths[-1], whistle(text), RATE)
    return paths


def only(alphabet: str, character: str) -> LanguageModel:
    """A language model that wants one character over and over."""
    model = LanguageModel(LMModelConfig(alphabet=alphabet, width=4, embedding=4))
    with torch.no_grad():
        model.output.weight.zero_()
        model.output.bias.zero_()
        model.output.bias[model.text.encode(character)[0] - EOS] = 50.0  # blank has no unit
    return model


@pytest.fixture
def lm(tmp_path):
    """Folders of two language models, one of another alphabet."""
    only(small_model().config.alphabet, "A").save_pretrained(tmp_path / "letters")
    only("XYZ", "X").save_pretrained(tmp_path / "other")


def test_evaluate_searches_as_told_and_says_how(las, model, manifest, tmp_path):
    options = ("--beam", 3, "--ctc", 0.25, "--search", "max_steps=9", "--search", "coverage=0.5")
    status, _, err = las(
        "evaluate", model, manifest, *options, "--output", tmp_path / "r", "--check-batching"
    )
    assert (status, err) == (0, "")
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["search"] == "beam 3, ctc 0.25, coverage 0.5, max_steps 9"
    assert report["batching"]["differ"] == []
    assert max(len(u["hypothesis"]) for u in report["utterances"]) <= 9


def test_a_language_model_is_heard(las, model, manifest, audio, lm, tmp_path):
    weight = ("--lm", tmp_path / "letters", "--lm-weight", 30, "--search", "max_steps=5")
    status, out, err = las("transcribe", "--model", model, *weight, audio[0])
    assert (status, out, err) == (0, "AAAAA\n", "")
    status, _, _ = las("evaluate", model, manifest, *weight, "--output", tmp_path / "r")
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["search"] == "beam 1, lm letters, lm_weight 30, max_steps 5"
    assert {u["hypothesis"] for u in report["utterances"]} == {"AAAAA"}


def test_a_language_model_of_another_alphabet_is_refused(las, model, audio, lm, tmp_path):
    status, out, err = las(
        "transcribe", "--model", model, "--lm", tmp_path / "other", "--beam", 2, audio[0]
    )
    assert (status, out) == (1, "")
    assert "'XYZ'" in error_line(err) and str(tmp_path / "other") in err


def test_n_best(las, model, audio):
    options = ("--model", model, "--beam", 4, "--n-best", 3, "--search", "max_steps=6")
    status, out, err = las("transcribe", *options, audio[0])
    assert (status, err) == (0, "")
    scores, texts = zip(*(line.split("\t") for line in out.splitlines()), strict=True)
    assert len(set(texts)) == 3
    assert all(float(score) < 0 for score in scores)
    status, out, err = las("transcribe", *options, *audio)
    fields = [line.split("\t") for line in out.splitlines()]
    assert [f[0] for f in fields] == [str(audio[0])] * 3 + [str(audio[1])] * 3
    assert tuple(f[2] for f in fields[:3]) == texts


def test_the_text_of_a_file_is_its_best_hypothesis(las, model, audio):
    options = ("--model", model, "--beam", 4, "--search", "max_steps=6")
    _, three, _ = las("transcribe", *options, "--n-best", 3, audio[0])
    _, one, _ = las("transcribe", *options, audio[0])
    assert three.splitlines()[0].split("\t")[1] == one.removesuffix("\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ctc", 1), "`ctc`"),
        (("--ctc", -0.1), "`ctc`"),
        (("--n-best", 2), "n_best 2 is more than beam 1"),
        (("--lm-weight", 0.5), "--lm FOLDER"),
        (("--search", "lenght_power=1"), "did you mean `length_power`?"),
        (("--search", "coverage"), "key=value"),
        (("--search", "end_threshold=0.5"), "`end_threshold`"),
    ],
)
def test_wrong_settings(las, model, audio, options, words):
    status, out, err = las("transcribe", "--model", model, *options, audio[0])
    assert (status, out) == (1, "")
    assert words in error_line(err)


def test_settings_after_options_count_more(las, model, manifest, tmp_path):
    las("evaluate", model, manifest, "--beam", 2, "--search", "beam=3", "--output", tmp_path / "r")
    assert json.loads((tmp_path / "r.json").read_text())["search"] == "beam 3"
