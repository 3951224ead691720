"""Layouts on disk become manifests; what is not usable is counted, listed and left out."""

import json
import os

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from lhotse import CutSet
from speech import RATE, whistle, write_folder

from las import corpora
from las.corpora import Item, prepare
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


@pytest.mark.parametrize("reader", [corpora.librispeech, corpora.an4, corpora.folder])
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
        ("a.tsv", "audio,text\na.wav,ABE\n", ["header"]),
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
