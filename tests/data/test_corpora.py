"""Preparing a corpus: what is not usable is counted, listed and left out; splits by speaker."""

import json
import os

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from lhotse import CutSet
from speech import RATE, full_disk, whistle

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
