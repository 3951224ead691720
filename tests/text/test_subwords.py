"""Byte-pair encoding against sentencepiece, and what models of pieces write."""

import json

import pytest
import sentencepiece
import torch
from hypothesis import given
from hypothesis import strategies as st
from speech import error_line, run_config, run_main, sentences, train, write_manifest

from las import config_files as configuration
from las.config import ModelConfig, RunConfig, SearchConfig
from las.decoding.greedy import greedy
from las.decoding.hypothesis import Hypothesis
from las.decoding.presets import load_lm
from las.decoding.search import search
from las.errors import LASError
from las.lm.config import LMModelConfig
from las.lm.lstm import LanguageModel
from las.model.las import LAS
from las.text.characters import ALPHABET, EOS, Characters
from las.text.subwords import Subwords, learn, tokenizer
from las.transcription.word_timestamps import timed_words

LINES = [
    "THE CAT SAT ON THE MAT",
    "THAT THE OTHER CAT CAN'T SEE",
    "HE'S THE ONE THEY SAW AT NOON",
    "AN AUNT AND A CAT ON A MAT",
] * 4
transcripts = st.lists(st.text("ACEHNOST'", min_size=1, max_size=9), max_size=5).map(" ".join)


@pytest.fixture(scope="module")
def pieces():
    return Subwords(ALPHABET, learn(LINES, 25))


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    prefix = tmp_path_factory.mktemp("bpe") / "bpe"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_prefix=str(prefix),
        model_type="bpe",
        vocab_size=25 + len(set("".join(LINES))) + 1,
        bos_id=-1,
        eos_id=-1,
        character_coverage=1.0,
        normalization_rule_name="identity",
        split_by_unicode_script=False,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")


@given(transcripts)
def test_segments_are_those_of_sentencepiece(pieces, oracle, text):
    mine = [pieces._units[i - EOS - 1] for i in pieces.encode(text)]
    theirs = [piece.replace("\u2581", " ") for piece in oracle.encode(text, out_type=str)]
    assert mine == theirs


@given(st.text(ALPHABET, max_size=30))
def test_decoding_undoes_encoding(pieces, text):
    ids = pieces.encode(text)
    assert pieces.decode(ids) == text
    assert pieces.decode([*ids, EOS, 5]) == text
    assert len(ids) <= len(text) + 1


@given(st.lists(st.integers(2, 54), max_size=12), st.booleans())
def test_spelling_is_the_decoded_text(pieces, ids, ended):
    written = [*ids, EOS] if ended else ids
    letters = [letter for spelt in pieces.to_characters(written) for letter in spelt]
    characters = Characters(ALPHABET)
    assert characters.decode(letters) == pieces.decode(written)
    assert (letters[-1:] == [EOS]) == ended


def test_frequent_words_become_one_piece(pieces):
    assert " THE" in pieces.subwords
    assert len(pieces.encode("THE")) == 1
    assert len(pieces) == len(Characters()) + 25


@pytest.mark.parametrize(
    ("wrong", "match"),
    [(["A"], "two or more"), (["A B"], "one word"), (["Ab"], "over"), (["AB", "AB"], "twice")],
)
def test_pieces_that_cannot_be(wrong, match):
    with pytest.raises(LASError, match=match):
        Subwords(ALPHABET, wrong)


def test_what_cannot_be_learnt_or_encoded(pieces):
    with pytest.raises(LASError, match="not in the alphabet"):
        pieces.encode("the")
    with pytest.raises(LASError, match="cannot learn 5000 subwords"):
        learn(LINES, 5000)
    with pytest.raises(LASError, match="needs a space"):
        tokenizer("AB", ["AB"])
    assert type(tokenizer("AB")) is Characters


def test_a_hypothesis_of_pieces_is_one_of_characters(pieces):
    ids = torch.tensor([*pieces.encode("THE CAT"), EOS])
    assert len(ids) < 8
    alignment = torch.softmax(torch.randn(len(ids), 1, 9), -1)
    log_probs = -torch.rand(len(ids))
    found = Hypothesis.from_ids(pieces, ids, -1.0, True, alignment, log_probs)
    assert found.text == "THE CAT"
    assert found.ids.tolist() == [*Characters(ALPHABET).encode("THE CAT"), EOS]
    assert found.alignment.shape == (8, 1, 9) and found.log_probs.shape == (8,)
    assert torch.equal(found.alignment[:3], alignment[:1].expand(3, 1, 9))
    assert torch.equal(found.alignment[-1], alignment[-1])
    torch.testing.assert_close(found.log_probs.sum(), log_probs.sum())
    assert [word.word for word in timed_words(found, 0.04, 0.0)] == ["THE", "CAT"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces")
    manifest = write_manifest(folder, sentences(8))
    letters = sorted(set("".join(sentences(8))) - {" "})
    found = [f" {a}" for a in letters] + [a + b for a in letters for b in letters][:4]
    config = run_config(manifest, folder / "run", training__epochs=1)
    return train(config.model_copy(update={"pieces": found}))


def test_a_model_of_pieces_trains_searches_and_comes_back(trained):
    model = LAS.from_pretrained(trained.output / "model")
    assert isinstance(model.text, Subwords) and model.text.subwords == trained.model.text.subwords
    assert model.speller.output.out_features == len(model.text)
    waveforms, samples = torch.randn(2, 16000), torch.tensor([16000, 9000])
    with torch.inference_mode():
        encoded = model.encode(waveforms, samples)
    beam = search(model, encoded, SearchConfig(beam=3, ctc=0.3, n_best=3))
    for hypothesis in [*greedy(model, encoded), *beam[0], *beam[1]]:
        assert len(hypothesis.ids) == len(hypothesis.text) + hypothesis.finished
        assert len(hypothesis.alignment) == len(hypothesis.log_probs) == len(hypothesis.ids)


def test_a_language_model_of_characters_is_refused(trained, tmp_path):
    alphabet = trained.model.text.alphabet
    LanguageModel(LMModelConfig(alphabet=alphabet, width=4)).save_pretrained(tmp_path / "lm")
    with pytest.raises(LASError, match="writes subwords"):
        load_lm(tmp_path / "lm", trained.model.text, "cpu")


def test_the_command_and_its_file(monkeypatch, capsys, tmp_path):
    text, output = tmp_path / "text.txt", tmp_path / "pieces.txt"
    text.write_text("\n".join(LINES))
    code, out, _ = run_main(monkeypatch, capsys, "bpe", text, output, "--size", 12)
    assert code == 0 and "12 subwords from 16 sentences" in out
    config = configuration.parse(RunConfig, {}, "here", [f"pieces={output}"])
    assert config.pieces == learn(LINES, 12)
    assert ModelConfig.model_validate(json.loads(config.model_settings().model_dump_json()))
    with pytest.raises(LASError, match=r"pieces.*las bpe"):
        configuration.parse(RunConfig, {}, "here", ["pieces=missing.txt"])
    code, _, err = run_main(monkeypatch, capsys, "bpe", text, output, "--size", 999)
    assert code != 0 and "cannot learn 999 subwords" in error_line(err)
    assert len(output.read_text().splitlines()) == 12  # what was there stays
