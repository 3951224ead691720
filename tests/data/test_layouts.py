"""Corpora as they are shipped, and folders of a user: what is there, and what is not used."""

import os
from pathlib import Path

import pytest
from lhotse import CutSet
from speech import RATE, whistle, write_folder

from las.data import corpora
from las.data.corpora import prepare
from las.errors import LASError
from tests.data.test_corpora import ids, one_line, sound


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
