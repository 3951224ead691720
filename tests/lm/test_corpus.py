"""Text files become sentences: what is read, skipped, held out and batched."""

import gzip
import lzma
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from las.errors import LASError
from las.lm.corpus import _NORMAL, checksum, read
from las.text.characters import EOS, Characters
from las.text.normalizer import normalise

TEXT = Characters()


def decoded(sentences):
    cut = [
        sentences.ids[a:b] for a, b in zip(sentences.offsets, sentences.offsets[1:], strict=False)
    ]
    return [TEXT.decode(ids.tolist()) for ids in cut]


def write(path, text):
    data = text.encode("utf-8")
    opened = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opened(path, "wb") as file:
        file.write(data)
    return path


LINES = "The café, at last!\r\n\n  ...  \nROOM 101\n\u2019TIS WELL-KNOWN\nLAST LINE"


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.xz", "noext"])
def test_plain_and_compressed(tmp_path, name):
    text = read(write(tmp_path / name, "\ufeff" + LINES), TEXT, 100)
    assert decoded(text.train) == ["THE CAFE AT LAST", "'TIS WELL KNOWN", "LAST LINE"]
    assert (text.empty, text.outside, text.long) == (2, 1, 0)
    assert len(text.dev) == 0
    assert text.train.words == 9


def test_lines_over_the_limit_are_counted_once(tmp_path):
    lines = ["ABCDE", "ABCDEF", "A" * 200_000, "X" * 65_536 + "Y", "OK", "\ufb03ABC", "Z" * 7]
    text = read(write(tmp_path / "a.txt", "\n".join(lines)), TEXT, 5)
    assert decoded(text.train) == ["ABCDE", "OK"]
    assert text.long == 5  # the ligature becomes three letters


def test_a_line_without_end_is_not_held_whole(tmp_path):
    path = write(tmp_path / "a.txt", "GOOD\n" + "A" * 20_000_000 + "\nGOOD TOO\n")
    tracemalloc.start()
    text = read(path, TEXT, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert decoded(text.train) == ["GOOD", "GOOD TOO"]
    assert peak < 2_000_000


def test_memory_is_a_byte_a_character(tmp_path):
    path = write(
        tmp_path / "a.txt.gz", "THE SAME SENTENCE OF SOME LENGTH AGAIN AND AGAIN\n" * 40_000
    )
    tracemalloc.start()
    text = read(path, TEXT, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(text.train) == 40_000
    assert peak < 2 * (text.train.characters + 8 * 40_000) + 1_000_000


@given(st.text(alphabet="ABYZ' ", max_size=20))
def test_what_is_not_normalised_was_normal(line):
    if _NORMAL.fullmatch(line):
        assert normalise(line) == line


def refused(path, *words, **kwargs):
    with pytest.raises(LASError) as caught:
        read(path, TEXT, 100, **kwargs)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and len(message.splitlines()) == 1
    for word in words:
        assert word in message


def test_texts_that_cannot_be_read(tmp_path):
    refused(tmp_path / "none.txt", "No such file")
    refused(tmp_path, "directory")
    refused(write(tmp_path / "empty.txt", ""), "no usable line", "0 empty")
    refused(write(tmp_path / "digits.txt", "1\n2\n\n"), "1 empty, 2 with characters outside")
    (tmp_path / "latin.txt").write_bytes("CAFÉ\n".encode("latin-1"))
    refused(tmp_path / "latin.txt", "UTF-8")
    for suffix in ("gz", "xz"):
        foreign = tmp_path / f"foreign.{suffix}"
        foreign.write_bytes(b"plain text\n")
        refused(foreign, "corrupt")
        whole = write(tmp_path / f"whole.{suffix}", "SOME TEXT\n" * 1000)
        whole.write_bytes(whole.read_bytes()[:-20])
        refused(whole, "corrupt")


def test_no_sentence_is_on_both_sides(tmp_path):
    rng = np.random.default_rng(0)
    letters = np.array(list("ABC "))
    lines = ["".join(rng.choice(letters, rng.integers(1, 6))) for _ in range(3000)]
    path = write(tmp_path / "a.txt", "\n".join(lines))
    text = read(path, TEXT, 100, dev_every=5)
    train, dev = decoded(text.train), decoded(text.dev)
    assert not set(train) & set(dev)
    assert len(train) + len(dev) + text.empty == 3000
    share = len(set(dev)) / len(set(train) | set(dev))
    assert 0.1 < share < 0.3
    shuffled = write(tmp_path / "b.txt", "\n".join(lines[::-1]))  # the place does not matter
    assert set(decoded(read(shuffled, TEXT, 100, dev_every=5).dev)) == set(dev)


sentence_lists = st.lists(st.text(alphabet="ABC", min_size=1, max_size=9), min_size=1, max_size=60)


@given(lines=sentence_lists, characters=st.integers(10, 60), seed=st.integers(0, 5))
def test_an_epoch_has_each_sentence_once(tmp_path_factory, lines, characters, seed):
    path = write(tmp_path_factory.mktemp("text") / "a.txt", "\n".join(lines))
    sentences = read(path, TEXT, 100).train
    batches = list(sentences.shuffled(characters, seed, 0))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lines)))
    for index in batches:
        tokens, lengths = sentences.select(index)
        assert int(lengths.sum()) + len(lengths) <= characters
        for row, length, i in zip(tokens, lengths, index, strict=True):
            assert TEXT.decode(row[:length].tolist()) == lines[i]
            assert (row[length:] == EOS).all()
    parts = sentences.parts(batches[0], 3)
    assert sorted(np.concatenate(parts).tolist()) == sorted(batches[0].tolist())
    lengths = [len(lines[i]) for part in parts for i in part]
    assert lengths == sorted(lengths) and len(parts) == min(3, len(batches[0]))
    sizes = [sum(len(lines[i]) + 1 for i in index) for index in batches]
    for index, size in zip(batches[1:], sizes, strict=False):  # no batch is cut too early
        assert size + len(lines[index[0]]) + 1 > characters
    again = list(sentences.shuffled(characters, seed, 0))
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


def test_epochs_differ(tmp_path):
    path = write(tmp_path / "a.txt", "\n".join("ABCDEFGHIJ"))
    sentences = read(path, TEXT, 100).train
    orders = {tuple(np.concatenate(list(sentences.shuffled(4, 1, e)))) for e in range(3)}
    assert len(orders) == 3


def test_a_sample_is_drawn_once_and_keeps_the_order(tmp_path):
    lines = [a + b for a in "ABCDEFGH" for b in "ABCDEFGH"]
    sentences = read(write(tmp_path / "a.txt", "\n".join(lines)), TEXT, 100).train
    drawn = decoded(sentences.sample(10, seed=1))
    assert len(drawn) == len(set(drawn)) == 10 and drawn == sorted(drawn)
    assert drawn == decoded(sentences.sample(10, seed=1)) != decoded(sentences.sample(10, seed=2))
    assert sentences.sample(64, seed=1) is sentences


def test_the_checksum_sees_letters_and_ends(tmp_path):
    def of(name, text):
        return checksum(read(write(tmp_path / name, text), TEXT, 100).train)

    assert of("a", "AB\nC\n") == of("b", "AB\n\nC")
    assert len({of("a", "AB\nC\n"), of("b", "A\nBC\n"), of("c", "AB\nD\n")}) == 3
