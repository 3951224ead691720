"""Layouts on disk become manifests; what is not usable is counted, listed and left out."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from lhotse import CutSet
from speech import RATE, full_disk, whistle, write_folder

from las.audio import reader as audio_reader
from las.data import corpora
from las.data.corpora import Item, prepare
from las.errors import LASError


def sound(path, text="ABE", seed=0, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, whistle(text, seed), RATE, **settings)
    return path


def one_line(caught, *words):
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for word in words:
        assert str(word) in message
    return message


def ids(manifest):
    return [cut.id for cut in CutSet.from_jsonl(manifest)]


# --- LibriSpeech ----------------------------------------------------------------------------


@pytest.fixture
def librispeech(tmp_path):
    root = tmp_path / "LibriSpeech"
    for part, speaker in (("train-clean-100", 19), ("train-clean-100", 26), ("my own part", 84)):
        chapter = root / part / str(speaker) / "121"
        lines = []
        for n in range(2):
            id = f"{speaker}-121-{n:04d}"
            sound(chapter / f"{id}.flac", seed=n)
            lines.append(f"{id} CAB'S FADE {'ABE ' * n}")
        chapter.joinpath(f"{speaker}-121.trans.txt").write_text("\n".join(lines) + "\n")
    (root / "README.TXT").write_text("no part")
    (root / "empty").mkdir()
    return root


def test_librispeech_finds_parts_of_any_name(librispeech, tmp_path):
    parts = corpora.librispeech(librispeech)
    assert list(parts) == ["my own part", "train-clean-100"]
    items = parts["train-clean-100"]
    assert [item.id for item in items] == [
        "19-121-0000",
        "19-121-0001",
        "26-121-0000",
        "26-121-0001",
    ]
    assert len({item.speaker for item in items}) == 2
    result = prepare("my own part", parts["my own part"], tmp_path / "out")
    assert result.utterances == 2 and not result.skipped and len(result.speakers) == 1
    cut = next(iter(CutSet.from_jsonl(result.manifest)))
    assert cut.supervisions[0].text == "CAB'S FADE"
    assert cut.duration * RATE == cut.num_samples == len(whistle("ABE", 0))
    assert result.seconds == pytest.approx(
        sum(c.duration for c in CutSet.from_jsonl(result.manifest))
    )
    assert not (tmp_path / "out" / "my own part.skipped.jsonl").exists()


def test_librispeech_takes_the_parts_that_are_named(librispeech):
    assert list(corpora.librispeech(librispeech, ["my own part"])) == ["my own part"]
    with pytest.raises(LASError) as caught:
        corpora.librispeech(librispeech, ["dev-clean"])
    one_line(caught, "dev-clean", "trans.txt")


def test_librispeech_reads_bom_crlf_blank_lines_and_tabs(librispeech):
    chapter = librispeech / "my own part" / "84" / "121"
    text = "\ufeff84-121-0000 ABE CAB\r\n\r\n  \r\n84-121-0001\tFADE\u2028DAB\r\n"
    chapter.joinpath("84-121.trans.txt").write_bytes(text.encode())
    items = corpora.librispeech(librispeech, ["my own part"])["my own part"]
    assert [(i.id, i.text) for i in items] == [
        ("84-121-0000", "ABE CAB"),
        ("84-121-0001", "FADE\u2028DAB"),
    ]


def test_librispeech_lists_what_has_no_usable_transcript(librispeech, tmp_path):
    part = librispeech / "train-clean-100"
    sound(part / "19" / "121" / "19-121-0009.flac")
    (part / "26" / "121" / "26-121.trans.txt").write_bytes(b"26-121-0000 \xff\n")
    (part / "19" / "121" / "._19-121.trans.txt").write_bytes(b"\xff")
    (part / "26" / "121" / "notes.doc").touch()
    sound(part / "30" / "5" / "30-5-0000.flac")
    (part / "31" / "6").mkdir(parents=True)
    (part / "31" / "6" / "31-6.trans.txt").write_bytes(b"\xff")
    (part / "32").symlink_to("19")
    items = corpora.librispeech(librispeech, ["train-clean-100"])["train-clean-100"]
    result = prepare("p", items, tmp_path / "out")
    assert ids(result.manifest) == ["19-121-0000", "19-121-0001"]
    assert {skipped.id: skipped.reason for skipped in result.skipped} == {
        "19/121/._19-121.trans.txt": "hidden",
        "19-121-0009": "empty text",
        "26-121-0000": "unreadable text",
        "26-121-0001": "unreadable text",
        "26/121/notes.doc": "not audio by its name",
        "30-5-0000": "empty text",
        "31/6": "unreadable text",
        "32": "link to a folder that is searched anyway",
    }


@pytest.mark.parametrize(
    "reader", [corpora.librispeech, corpora.an4, corpora.commonvoice, corpora.folder]
)
def test_sources_that_are_no_folder(reader, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(LASError) as caught:
        reader(tmp_path / "missing")
    one_line(caught, tmp_path / "missing", "no such folder")
    with pytest.raises(LASError) as caught:
        reader(tmp_path / "file")
    one_line(caught, tmp_path / "file", "not a folder")


def test_librispeech_layout_is_not_there(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(LASError) as caught:
        corpora.librispeech(tmp_path)
    one_line(caught, tmp_path, "<part>/<speaker>/<chapter>")


# --- AN4 ------------------------------------------------------------------------------------


@pytest.fixture
def an4(tmp_path):
    root = tmp_path / "an4"
    (root / "etc").mkdir(parents=True)
    for part, folder, template in (
        ("train", "an4_clstk", "<s> {} </s> ({})"),
        ("test", "an4test_clstk", "{} ({})"),
    ):
        names = [
            f"{folder}/{speaker}/an{n}-{speaker}-b" for n, speaker in ((253, "fash"), (8, "mdxn"))
        ]
        for name in names:
            sound(root / "wav" / f"{name}.sph", format="NIST")
        (root / "etc" / f"an4_{part}.fileids").write_text("".join(f"{n}\n" for n in names))
        lines = [
            template.format("GO" if "fash" in n else "E N T E R", n.rsplit("/", 1)[1])
            for n in names
        ]
        (root / "etc" / f"an4_{part}.transcription").write_text("\n".join(lines) + "\n")
    return root


def test_an4_as_it_is_shipped(an4, tmp_path):
    parts = corpora.an4(an4)
    for part in ("train", "test"):
        assert [(i.id, i.text, i.speaker) for i in parts[part]] == [
            ("an253-fash-b", "GO", "fash"),
            ("an8-mdxn-b", "E N T E R", "mdxn"),
        ]
        result = prepare(part, parts[part], tmp_path / "out", strict=True)
        assert result.utterances == 2 and result.speakers == {"fash", "mdxn"}


def test_an4_without_its_transcript_or_list(an4, tmp_path):
    (an4 / "etc" / "an4_train.transcription").write_text("<s> GO </s> (an253-fash-b)\nrubbish\n")
    result = prepare("train", corpora.an4(an4)["train"], tmp_path / "out")
    assert result.utterances == 1 and result.counts() == {"empty text": 1}
    (an4 / "etc" / "an4_test.fileids").unlink()
    with pytest.raises(LASError) as caught:
        corpora.an4(an4)
    one_line(caught, "an4_test.fileids", "cannot read")


# --- Common Voice ---------------------------------------------------------------------------


@pytest.fixture
def commonvoice(tmp_path):
    root = tmp_path / "en"
    header = "client_id\tpath\tsentence\tup_votes\n"
    for name in ("a.mp3", "b.wav", "c.mp3"):
        sound(root / "clips" / name)
    (root / "train.tsv").write_bytes(
        "\ufeff".encode()
        + header.encode()
        + b'eve\ta.mp3\t"Abe", he said\t2\n'
        + b'ann\tb\t"Cab\t2\r\n'
        + b"ann\tc.mp3\tDab\n"
        + b"ann\tc.mp3\t\xff\t1\n\n"
        + b"ann\tgone.mp3\tDab\t1\n"
        + b"ann\tc.mp3\tFade\t1\n"
    )
    (root / "test.tsv").write_text(header + "ann\tc.mp3\tFade\t1\n")
    (root / "other.tsv").write_text(header)
    (root / "reported.tsv").write_text("sentence\treason\n")
    return root


def test_commonvoice_as_it_is_shipped(commonvoice, tmp_path):
    parts = corpora.commonvoice(commonvoice)
    assert list(parts) == ["train", "test"]
    result = prepare("train", parts["train"], tmp_path / "out")
    cuts = [cut.supervisions[0] for cut in CutSet.from_jsonl(result.manifest)]
    assert [(cut.id, cut.text, cut.speaker) for cut in cuts] == [
        ("a", "ABE HE SAID", "eve"),
        ("b", "CAB", "ann"),
        ("c", "FADE", "ann"),
    ]
    assert [(s.id, s.reason, s.detail) for s in result.skipped] == [
        ("train.tsv:4", "malformed row", "line 4 has 3 fields, the header 4"),
        ("train.tsv:5", "malformed row", "line 5 is not UTF-8 text"),
        ("gone", "missing audio", "no such file"),
    ]
    assert corpora.commonvoice(commonvoice, ["other"]) == {"other": []}


def test_commonvoice_is_not_there(commonvoice, tmp_path):
    with pytest.raises(LASError) as caught:
        corpora.commonvoice(commonvoice, ["reported"])
    one_line(caught, commonvoice / "reported.tsv", "header", "reason")
    with pytest.raises(LASError) as caught:
        corpora.commonvoice(commonvoice, ["gone"])
    one_line(caught, commonvoice / "gone.tsv", "No such file")
    with pytest.raises(LASError) as caught:
        corpora.commonvoice(commonvoice / "clips")
    one_line(caught, "train.tsv")


# --- a user's folder and tables -------------------------------------------------------------


def test_folder_of_audio_and_text(tmp_path):
    write_folder(tmp_path / "mine", ["ABE CAB", "FADE", "DAB ACE"])
    sound(tmp_path / "mine" / "alone.flac")
    (parts,) = [corpora.folder(tmp_path / "mine")]
    assert list(parts) == ["mine"]
    assert [(i.id, i.text.strip(), i.speaker) for i in parts["mine"]] == [
        ("alone", "", "alone"),
        ("s0-u000", "ABE CAB", "s0"),
        ("s0-u002", "DAB ACE", "s0"),
        ("s1-u001", "FADE", "s1"),
    ]
    result = prepare("mine", parts["mine"], tmp_path / "out")
    assert result.utterances == 3 and result.counts() == {"empty text": 1}


def test_nothing_of_a_folder_is_passed_over_unsaid(tmp_path):
    root = tmp_path / "in"
    for name in ("a.wav", "B.WAV", "c.wav", "d.wav", "e.wav", "s/f.wav", "._a.wav", ".h/x.wav"):
        sound(root / name, format="WAV")
        (root / name).with_suffix(".txt").write_text("ABE")
    (root / "B.txt").rename(root / "B.TXT")
    (root / "c.txt").write_bytes("ÄBE".encode("latin-1"))
    (root / "d.txt").unlink()
    (root / "d.txt").mkdir()
    (root / "e.txt").unlink()
    (root / "b.m4a").write_bytes(b"\0\0\0\x1cftypM4A " + bytes(100))
    (root / "b.txt").write_text("ABE")
    (root / "notes.txt").write_text("ABE")
    (root / "notes.pdf").touch()
    (root / "link").symlink_to("../real")
    (root / "again").symlink_to("s")
    (root / "s" / "up").symlink_to("..")
    (root / "z.wav").symlink_to("gone.wav")
    (root / "z.txt").write_text("ABE")
    sound(tmp_path / "real" / "g.wav").with_suffix(".txt").write_text("ABE")
    items = corpora.folder(root)["in"]
    result = prepare("in", items, tmp_path / "out")
    assert ids(result.manifest) == ["B", "a", "link-g", "s-f"]
    assert {skipped.id: skipped.reason for skipped in result.skipped} == {
        "._a.txt": "hidden",
        "._a.wav": "hidden",
        ".h": "hidden",
        "again": "link to a folder that is searched anyway",
        "b": "unreadable audio",
        "c": "unreadable text",
        "d": "empty text",
        "e": "empty text",
        "notes.pdf": "not audio by its name",
        "notes.txt": "text without audio",
        "s/up": "link to a folder that is searched anyway",
        "z": "missing audio",
    }
    assert {s.id: s.detail for s in result.skipped}[
        "c"
    ] == f"{root / 'c.txt'}: not UTF-8 text (line 1)"
    assert all(s.path.startswith(str(root)) and s.detail for s in result.skipped)
    # What lies beside the utterances is no reason to stop, nor a speaker.
    good = [item for item in items if item.beside or item.id in ("a", "s-f", "link-g", "B")]
    assert prepare("in", good, tmp_path / "out", strict=True).utterances == 4
    with pytest.raises(LASError, match=r"b\.m4a: unreadable audio"):
        prepare("in", items, tmp_path / "out", strict=True)
    stay, moved = corpora.split_speakers(items, 1)
    assert sorted(i.id for i in [*stay, *moved]) == sorted(i.id for i in items)
    assert not [item for item in moved if item.beside]


def test_a_folder_that_cannot_be_read_is_listed(tmp_path, monkeypatch):
    sound(tmp_path / "in" / "a.wav").with_suffix(".txt").write_text("ABE")
    (tmp_path / "in" / "closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    items = corpora.folder(tmp_path / "in")["in"]
    result = prepare("in", items, tmp_path / "out")
    assert result.utterances == 1 and result.counts() == {"unreadable folder": 1}
    with pytest.raises(LASError, match="closed: unreadable folder: Permission denied"):
        prepare("in", items, tmp_path / "out", strict=True)


def test_folder_without_audio(tmp_path):
    (tmp_path / "a.txt").write_text("ABE")
    with pytest.raises(LASError) as caught:
        corpora.folder(tmp_path)
    one_line(caught, tmp_path, "no audio", ".flac")


TABLES = {
    "a.csv": 'audio,text\r\nx/a.wav,ABE\r\n\r\n"x/b.wav","CAB, FADE"\r\n',
    "a.tsv": "audio\ttext\nx/a.wav\tABE\n\nx/b.wav\tCAB, FADE\n",
    "a.jsonl": '{"audio": "x/a.wav", "text": "ABE"}\n\n{"audio": "x/b.wav", "text": "CAB, FADE"}\n',
}


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path, name, bom):
    (tmp_path / name).write_bytes((bom + TABLES[name]).encode())
    sound(tmp_path / "x" / "a.wav")
    sound(tmp_path / "x" / "b.wav")
    items = corpora.folder(tmp_path / name)["a"]
    assert [(i.id, i.text, i.speaker) for i in items] == [
        ("x-a", "ABE", "x"),
        ("x-b", "CAB, FADE", "x"),
    ]
    assert prepare("a", items, tmp_path / "out", strict=True).utterances == 2


def test_tables_may_name_ids_speakers_and_absolute_paths(tmp_path):
    path = sound(tmp_path / "elsewhere" / "a.wav")
    table = tmp_path / "t.csv"
    table.write_text(f"speaker,id,text,audio\nEVE,one,ABE,{path}\n,,ABE,{path}\n")
    named, plain = corpora.folder(table)["t"]
    assert (named.id, named.speaker, named.path) == ("one", "EVE", path)
    assert plain.id.endswith("elsewhere-a") and not plain.id.startswith(("/", "-"))
    assert plain.speaker == "elsewhere"


def test_a_text_may_hold_line_breaks_and_separators(tmp_path):
    (tmp_path / "a.csv").write_text('audio,text\na.wav,"ABE\nCAB\x0bFADE"\n')
    (tmp_path / "a.jsonl").write_text('{"audio": "a.wav", "text": "ABE\u2028CAB\x85FADE"}\n')
    for name in ("a.csv", "a.jsonl"):
        (item,) = corpora.folder(tmp_path / name)["a"]
        assert item.text.split() == ["ABE", "CAB", "FADE"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "audio,text\na.wav,ABE\nb.wav\n", ["line 3", "lacks"]),
        ("a.csv", "audio,text\n,ABE\n", ["line 2", "lacks"]),
        ("a.csv", "audio,text\na.wav,ABE, CAB\n", ["line 2", "more fields", "double quotes"]),
        ("a.csv", 'audio,text\na.wav,"ABE\n', ["malformed", "line 2"]),
        ("a.csv", 'audio,text\na.wav,"ABE" CAB\n', ["malformed", "line 2"]),
        ("a.csv", "audio,text\na.wav," + "A" * 200_000 + "\n", ["malformed", "line 2"]),
        ("a.csv", "file,transcript\na.wav,ABE\n", ["header", "audio", "file"]),
        ("a.csv", "", ["header"]),
        ("a.csv", 'audio,text\na.wav,"A\nB"\n\nb.wav,"ABE\nCAB\n', ["malformed", "line 5"]),
        ("a.csv", 'audio,text\na.wav,"A\nB"\nb.wav\n', ["line 4", "lacks"]),
        ("a.tsv", "audio,text\na.wav,ABE\n", ["header"]),
        ("a.tsv", "audio\ttext\na.wav\tABE\tCAB\n", ["line 2", "more fields", "tab"]),
        ("a.tsv", "audio\ttext\n\nb.wav\n", ["line 3", "lacks"]),
        ("a.tsv", "client_id\tpath\tsentence\n", ["header", "las prepare commonvoice"]),
        ("a.jsonl", '{"audio": "a.wav", "text": ["A"]}\n', ["line 1", "`text`"]),
        ("a.jsonl", '{"audio": "a.wav", "text": "A"}\n\n{"audio"\n', ["line 3", "not JSON"]),
        ("a.jsonl", "[1]\n", ["line 1", "not a JSON object"]),
        ("a.jsonl", "[" * 100_000 + "\n", ["line 1", "not JSON"]),
        ("a.jsonl", '{"audio": "a.wav", "text": null}\n', ["line 1", "lacks"]),
    ],
)
def test_malformed_tables(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(LASError) as caught:
        corpora.folder(tmp_path / name)
    one_line(caught, tmp_path / name, *words)


def test_quotes_in_a_tsv_are_characters_like_others(tmp_path):
    lines = ["audio\ttext", 'a.wav\t"ABE" CAB', 'b.wav\t"ABE', 'c.wav\tA "B" E', 'd.wav\t"A, B"']
    (tmp_path / "a.tsv").write_text("\r\n".join(lines))
    texts = [item.text for item in corpora.folder(tmp_path / "a.tsv")["a"]]
    assert texts == ['"ABE" CAB', '"ABE', 'A "B" E', '"A, B"']


def test_a_row_that_is_not_utf_8_is_named_by_its_line(tmp_path):
    for name, text in TABLES.items():
        data = text.encode().replace(b"CAB", b"C\xffB")
        (tmp_path / name).write_bytes(data)
        with pytest.raises(LASError) as caught:
            corpora.folder(tmp_path / name)
        line = data[: data.index(b"\xff")].count(b"\n") + 1
        one_line(caught, tmp_path / name, f"line {line}", "UTF-8")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\0"), min_size=1),
            st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\0")),
        ),
        min_size=1,
    )
)
def test_what_is_written_by_a_format_s_rules_is_read(tmp_path_factory, kind, rows):
    path = tmp_path_factory.getbasetemp() / f"table.{kind}"
    named = [{"audio": f"x/{n}.wav", "id": id, "text": text} for n, (id, text) in enumerate(rows)]
    with path.open("w", encoding="utf-8", newline="") as file:
        if kind == "csv":
            writer = csv.DictWriter(file, ["id", "text", "audio"])
            writer.writeheader()
            writer.writerows(named)
        elif kind == "tsv":
            lines = (f"{row['id']}\t{row['text']}\t{row['audio']}\n" for row in named)
            file.write("id\ttext\taudio\n" + "".join(lines))
        else:
            file.writelines(json.dumps(row) + "\n" for row in named)
    items = corpora.folder(path)["table"]
    assert [(item.id, item.text) for item in items] == rows


def test_the_speaker_of_a_table_does_not_depend_on_where_one_stands(tmp_path, monkeypatch):
    folder = tmp_path / "eve"
    (folder / "ann").mkdir(parents=True)
    (folder / "t.csv").write_text("audio,text\na.wav,ABE\nann/b.wav,ABE\n../c.wav,ABE\n/d.wav,A\n")
    absolute = corpora.folder(folder / "t.csv")["t"]
    assert [item.speaker for item in absolute] == ["eve", "ann", tmp_path.name, "t"]
    monkeypatch.chdir(folder)
    relative = corpora.folder(Path("t.csv"))["t"]
    assert [(i.id, i.speaker) for i in relative] == [(i.id, i.speaker) for i in absolute]


def test_tables_that_are_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes("audio,text\na.wav,ABE\n".encode("utf-16"))
    (tmp_path / "b.csv").mkdir()
    for name, words in (("a.csv", "UTF-8"), ("b.csv", "directory"), ("c.csv", "No such file")):
        with pytest.raises(LASError) as caught:
            corpora.folder(tmp_path / name)
        one_line(caught, tmp_path / name, words)


@pytest.mark.parametrize("audio", ["/", ".", "..", "a\\u0000b.wav", "\\ud800.wav", "x" * 5000])
def test_paths_that_cannot_be_files_are_counted(tmp_path, audio):
    sound(tmp_path / "good.wav")
    (tmp_path / "a.jsonl").write_text(
        f'{{"audio": "{audio}", "text": "ABE"}}\n{{"audio": "good.wav", "text": "ABE"}}\n'
    )
    result = prepare("a", corpora.folder(tmp_path / "a.jsonl")["a"], tmp_path / "out")
    assert result.utterances == 1
    assert sum(result.counts().values()) == 1
    assert set(result.counts()) <= {"missing audio", "unreadable audio"}


# --- what is left out -----------------------------------------------------------------------


def bad_items(folder):
    """Items that cannot be used, with the reason that should be counted."""
    good = sound(folder / "good.wav")
    flac = sound(folder / "long.flac", "FADE " * 10)
    (folder / "cut.flac").write_bytes(flac.read_bytes()[: flac.stat().st_size // 2])
    (folder / "text.wav").write_text("This is a text.\n" * 50)
    (folder / "folder.wav").mkdir()
    (folder / "zero.wav").touch()
    soundfile.write(folder / "header.wav", np.zeros(0, np.float32), RATE)
    soundfile.write(folder / "short.wav", np.zeros(RATE // 100, np.float32), RATE)
    samples = whistle("ABE")
    samples[100] = np.nan
    soundfile.write(folder / "nan.wav", samples, RATE, subtype="FLOAT")
    return [
        (Item("good", good, "ABE", "a"), None),
        (Item("gone", folder / "gone.wav", "ABE", "a"), "missing audio"),
        (Item("blank", good, " \t", "a"), "empty text"),
        (Item("dots", good, "...", "a"), "empty text"),
        (Item("digits", good, "AGENT 007", "a"), "characters outside the alphabet"),
        (Item("nul", good, "A\0B", "a"), "characters outside the alphabet"),
        (Item("text", folder / "text.wav", "ABE", "b"), "unreadable audio"),
        (Item("cut", folder / "cut.flac", "ABE", "b"), "unreadable audio"),
        (Item("folder", folder / "folder.wav", "ABE", "b"), "unreadable audio"),
        (Item("zero", folder / "zero.wav", "ABE", "b"), "unreadable audio"),
        (Item("nan", folder / "nan.wav", "ABE", "b"), "unreadable audio"),
        (Item("header", folder / "header.wav", "ABE", "b"), "too short audio"),
        (Item("short", folder / "short.wav", "ABE", "b"), "too short audio"),
        (Item("good", good, "CAB", "b"), "repeated id"),
    ]


def test_unusable_utterances_are_counted_listed_and_left_out(tmp_path):
    expected = bad_items(tmp_path)
    calls = []
    result = prepare("p", [i for i, _ in expected], tmp_path / "out", progress=calls.append)
    assert ids(result.manifest) == ["good"]
    assert (result.utterances, result.speakers) == (1, {"a"})
    assert calls == list(range(1, len(expected) + 1))
    lines = (tmp_path / "out" / "p.skipped.jsonl").read_text().splitlines()
    listed = [json.loads(line) for line in lines]
    assert [(row["id"], row["reason"]) for row in listed] == [
        (item.id, reason) for item, reason in expected if reason
    ]
    assert all(row["path"] and row["detail"] for row in listed)
    reasons = [reason for _, reason in expected if reason]
    assert result.counts() == {reason: reasons.count(reason) for reason in sorted(set(reasons))}


def test_whatever_a_file_makes_a_library_raise_the_others_go_on(tmp_path, monkeypatch):
    paths = [sound(tmp_path / f"{name}.wav") for name in "abc"]
    sound(tmp_path / "d.wav").rename(tmp_path / os.fsdecode(b"\xff.wav"))
    load = audio_reader.load

    def fail(path, rate):
        if path.stem == "b":
            raise RuntimeError("no\nmemory")
        return load(path, rate)

    monkeypatch.setattr(audio_reader, "load", fail)
    items = [Item(path.stem, path, "ABE", "s") for path in paths]
    items.append(Item("d", tmp_path / os.fsdecode(b"\xff.wav"), "ABE", "s"))
    result = prepare("p", items, tmp_path / "out")
    assert ids(result.manifest) == ["a", "c"]
    assert [(s.id, s.reason) for s in result.skipped] == [
        ("b", "unreadable audio"),
        ("d", "name that is not UTF-8"),
    ]
    assert result.skipped[0].detail == "RuntimeError: no memory"


def test_an_output_that_is_a_file_or_on_a_full_disk(tmp_path):
    path = sound(tmp_path / "a.wav")
    items = [Item(f"u{n}", path, "ABE", "s") for n in range(50)]
    for output in (path, path / "below"):
        with pytest.raises(LASError) as caught:
            prepare("p", items, output)
        one_line(caught, output, "a file is in its place")
    with full_disk(50), pytest.raises(OSError, match="too large") as caught:
        prepare("p", items, tmp_path / "out")
    assert caught.value.filename == str(tmp_path / "out" / "p.jsonl.gz")
    bad = [Item("gone", tmp_path / "gone.wav", "ABE", "s"), *items]
    with full_disk(50), pytest.raises(OSError, match="too large") as caught:
        prepare("p", bad, tmp_path / "out")
    assert caught.value.filename == str(tmp_path / "out" / "p.skipped.jsonl")
    assert list((tmp_path / "out").iterdir()) == []


def test_strict_stops_at_each_of_them(tmp_path):
    good, *bad = bad_items(tmp_path)
    for item, reason in bad:
        with pytest.raises(LASError) as caught:
            prepare("p", [good[0], item], tmp_path / "out", strict=True)
        one_line(caught, item.path, reason, item.id)
    assert not (tmp_path / "out" / "p.jsonl.gz").exists()


def test_trusting_headers_finds_the_damage_that_headers_show(tmp_path):
    items = [i for i, _ in bad_items(tmp_path)]
    result = prepare("p", items, tmp_path / "out", decode=False)
    assert {"good", "cut"} <= set(ids(result.manifest)) <= {"good", "cut", "nan"}


def test_nothing_left_is_an_error_with_the_counts(tmp_path):
    items = [i for i, reason in bad_items(tmp_path) if reason and reason != "repeated id"]
    with pytest.raises(LASError) as caught:
        prepare("p", items, tmp_path / "out")
    one_line(caught, "no usable utterance", "1 missing audio", "2 too short audio")
    with pytest.raises(LASError) as caught:
        prepare("p", [], tmp_path / "out")
    one_line(caught, "no usable utterance")


def test_a_clean_run_removes_the_list_of_an_earlier_one(tmp_path):
    items = [i for i, _ in bad_items(tmp_path)]
    prepare("p", items, tmp_path / "out")
    prepare("p", items[:1], tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["p.jsonl.gz"]


def test_another_alphabet(tmp_path):
    path = sound(tmp_path / "a.wav")
    items = [Item("a", path, "BAD", "s"), Item("b", path, "CAB FED", "s")]
    result = prepare("p", items, tmp_path / "out", alphabet="ABD")
    assert ids(result.manifest) == ["a"]
    assert "'CEF'" in result.skipped[0].detail.replace(" ", "")


def test_manifests_name_audio_by_absolute_paths(tmp_path, monkeypatch):
    sound(tmp_path / "a.wav")
    monkeypatch.chdir(tmp_path)
    result = prepare("p", [Item("a", tmp_path.relative_to(tmp_path) / "a.wav", "A", "s")], tmp_path)
    (cut,) = CutSet.from_jsonl(result.manifest)
    assert os.path.isabs(cut.recording.sources[0].source)  # noqa: PTH117


# --- splits ---------------------------------------------------------------------------------


@given(
    speakers=st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=30),
    count=st.integers(1, 7),
    seed=st.integers(0, 5),
)
def test_split_is_by_speaker_disjoint_and_deterministic(speakers, count, seed, tmp_path_factory):
    path = tmp_path_factory.getbasetemp()
    items = [Item(str(n), path, "A", speaker) for n, speaker in enumerate(speakers)]
    if count >= len(set(speakers)):
        with pytest.raises(LASError, match="use fewer"):
            corpora.split_speakers(items, count, seed)
        return
    stay, moved = corpora.split_speakers(items, count, seed)
    assert len({i.speaker for i in moved}) == count
    assert not {i.speaker for i in moved} & {i.speaker for i in stay}
    assert sorted([*stay, *moved], key=lambda i: int(i.id)) == items
    # Neither the order of the corpus nor another run changes the choice.
    again = corpora.split_speakers(items[::-1], count, seed)[1]
    assert {i.id for i in again} == {i.id for i in moved}


def test_another_seed_gives_another_split(tmp_path):
    items = [Item(str(n), tmp_path, "A", str(n)) for n in range(20)]
    splits = {tuple(i.id for i in corpora.split_speakers(items, 5, seed)[1]) for seed in range(10)}
    assert len(splits) > 5
