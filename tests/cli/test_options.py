"""The options of a search, from the command to the result."""

import json

import pytest
import soundfile
import torch
from speech import RATE, error_line, run_main, sentences, small_model, whistle, write_manifest

from las.cli import options as cli_options
from las.cli.loading import search_settings
from las.config import SearchConfig
from las.decoding.hypothesis import CharacterAndWordLM
from las.decoding.presets import WORD_WEIGHT, store_search
from las.errors import LASError
from las.lm.config import LMModelConfig
from las.lm.lstm import LanguageModel
from las.text.characters import EOS
from tests.decoding.test_presets import word_model


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
    only(small_model().config.alphabet, "A").save_pretrained(tmp_path / "characters")
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


def test_a_language_model_is_used(las, model, manifest, audio, lm, tmp_path):
    weight = ("--lm", tmp_path / "characters", "--lm-weight", 30, "--search", "max_steps=5")
    status, out, err = las("transcribe", "--model", model, *weight, audio[0])
    assert (status, out, err) == (0, "AAAAA\n", "")
    status, _, _ = las("evaluate", model, manifest, *weight, "--output", tmp_path / "r")
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["search"] == "beam 1, lm characters, lm_weight 30, max_steps 5"
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


# What a model folder keeps

KEPT = SearchConfig(beam=4, ctc=0.25, lm_weight=0.7, coverage=0.1)


@pytest.fixture
def tuned(tmp_path, lm):
    """A model folder that keeps settings and a language model."""
    folder = tmp_path / "tuned"
    small_model().save_pretrained(folder)
    store_search(folder, KEPT, tmp_path / "characters")
    return folder


def settings(folder, lm=None, given=None, **options):
    return search_settings(small_model(), torch.device("cpu"), folder, lm, given, **options)


def test_kept_settings_are_the_default(tuned):
    config, lm = settings(tuned)
    assert config == KEPT and lm is not None


def test_options_replace_single_settings_and_later_ones_count_more(tuned):
    def changed(**changes):
        return KEPT.model_copy(update=changes)

    assert settings(tuned, beam=2, ctc=None)[0] == changed(beam=2)
    assert settings(tuned, ctc=0.0, lm_weight=0.1)[0] == changed(ctc=0.0, lm_weight=0.1)
    assert settings(tuned, None, ["coverage=0"], beam=6)[0] == changed(beam=6, coverage=0.0)
    assert settings(tuned, None, ["beam=3"], beam=2)[0] == changed(beam=3)


def test_a_weight_of_zero_turns_the_kept_language_model_off(tuned):
    assert settings(tuned, lm_weight=0.0)[1] is None
    assert settings(tuned, None, ["lm_weight=0"])[1] is None


def test_greedy_begins_with_nothing_kept(tuned, tmp_path):
    assert settings(tuned, greedy=True) == (SearchConfig(), None)
    assert settings(tuned, greedy=True, beam=3) == (SearchConfig(beam=3), None)
    config, lm = settings(tuned, tmp_path / "characters", greedy=True)
    assert config == SearchConfig() and lm is not None
    with pytest.raises(LASError, match="--lm FOLDER"):
        settings(tuned, greedy=True, lm_weight=0.5)


def test_a_named_language_model_replaces_the_kept_one(tuned, tmp_path):
    only(small_model().config.alphabet, "B").save_pretrained(tmp_path / "b")
    config, lm = settings(tuned, tmp_path / "b")
    assert config == KEPT
    assert lm.output.bias.argmax() == small_model().text.encode("B")[0] - EOS


def test_a_named_language_model_is_weighed_where_none_was(tuned, tmp_path):
    store_search(tuned, KEPT)  # without one: its weight is stored as 0
    assert settings(tuned)[1] is None
    config, lm = settings(tuned, tmp_path / "characters")
    assert config.lm_weight == SearchConfig().lm_weight > 0 and lm is not None
    assert settings(tuned, tmp_path / "characters", lm_weight=0.9)[0].lm_weight == 0.9
    assert settings(tuned, lm_weight=0.2)[1] is not None  # the stored one, by name of its weight


def test_a_weight_needs_a_language_model(tuned, tmp_path):
    folder = tmp_path / "plain"
    small_model().save_pretrained(folder)
    (folder / "search.yaml").write_text("beam: 4\n")
    assert settings(folder) == (SearchConfig(beam=4), None)
    with pytest.raises(LASError, match="--lm FOLDER"):
        settings(folder, lm_weight=0.5)


def test_commands_use_what_is_kept_and_say_so(las, tuned, manifest, audio, tmp_path):
    store_search(tuned, SearchConfig(beam=2, lm_weight=30, max_steps=5), tmp_path / "characters")
    status, out, err = las("transcribe", "--model", tuned, audio[0])
    assert (status, out, err) == (0, "AAAAA\n", "")
    _, greedy, _ = las("transcribe", "--model", tuned, "--greedy", audio[0])
    assert greedy != out
    assert las("transcribe", "--model", tuned, "--no-stored-search", audio[0])[1] == greedy
    las("evaluate", tuned, manifest, "--output", tmp_path / "r", "--beam", 3)
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["search"] == "beam 3, lm tuned/lm, lm_weight 30, max_steps 5"
    assert {u["hypothesis"] for u in report["utterances"]} == {"AAAAA"}
    las("evaluate", tuned, manifest, "--output", tmp_path / "r", "--lm", tmp_path / "characters")
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["search"] == "beam 2, lm characters, lm_weight 30, max_steps 5"
    _, out, _ = las("info", tuned)
    assert "search: beam 2, lm tuned/lm, lm_weight 30, max_steps 5\n" in out


@pytest.mark.parametrize("command", ["transcribe", "evaluate", "info"])
def test_kept_settings_that_are_not_right_are_one_line(las, tuned, manifest, audio, command):
    (tuned / "search.yaml").write_text("beem: 3")
    arguments = {
        "transcribe": ("--model", tuned, audio[0]),
        "evaluate": (tuned, manifest),
        "info": (tuned,),
    }
    status, _, err = las(command, *arguments[command])
    assert status == 1
    assert f"{tuned / 'search.yaml'}: " in error_line(err) and "`beam`" in err
    if command != "info":
        assert las(command, *arguments[command], "--greedy")[0] == 0


# Words


def test_words_are_used(las, model, manifest, tmp_path):
    words = word_model(tmp_path / "books")
    options = ("--words", words, "--search", "word_weight=30", "--search", "max_steps=6")
    las("evaluate", model, manifest, *options, "--beam", 3, "--output", tmp_path / "r")
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["search"] == "beam 3, words books, word_weight 30, max_steps 6"
    # A word costs 30: where characters cost less, none is finished.
    assert all(len(u["hypothesis"].strip()) == 6 for u in report["utterances"])


def test_named_words_are_weighed_and_kept_ones_are_found(tuned, tmp_path):
    words = word_model(tmp_path / "books")
    config, lm = settings(tuned, words=words)
    assert config == KEPT.model_copy(update={"word_weight": WORD_WEIGHT})
    assert isinstance(lm, CharacterAndWordLM) and lm.characters is not None
    given = settings(tuned, None, ["word_weight=0.1"], words=words, greedy=True)
    assert given[0] == SearchConfig(word_weight=0.1) and given[1].characters is None
    with pytest.raises(LASError, match="--words FOLDER"):
        settings(tuned, None, ["word_weight=0.1"])
    store_search(tuned, SearchConfig(word_weight=0.2), None, words)
    config, lm = settings(tuned)
    assert config.word_weight == 0.2 and lm.words.words == ["AB", "A"]
    assert settings(tuned, None, ["word_weight=0"])[1] is None


def test_help_names_no_default_that_the_model_replaces():
    for name in ("Beam", "CTC", "LM", "LMWeight", "Words"):
        (option,) = getattr(cli_options, f"{name}Option").__metadata__
        assert "Default: the stored search" in option.help or "Default: the model's" in option.help
