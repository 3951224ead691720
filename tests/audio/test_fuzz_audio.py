"""A short run of fuzz_audio.py, and that it sees what it is to see."""

import dataclasses
import time
from pathlib import Path

import fuzz_audio
import fuzz_mutations
import fuzz_worker
import numpy as np
import pytest
from fuzz_audio import verdict
from fuzz_worker import Case, Result

CASE = Case(8, "a.wav", ["zero"], Path("/folder/case.wav"))
WRITES = Case(7, "a.wav", ["zero"], Path("/folder/case.wav"))
SUMMARY = "1 file, 1.2 s of audio in 0.1 s, 12x real time"
FILES = {f"case.{suffix}": '{"text": "A"}' for suffix in ("json", "srt", "tsv", "txt", "vtt")}
LINE = f"error: {CASE.path}: is empty; fetch it again\n"


def test_no_case_breaks_a_rule():
    found = fuzz_audio.fuzz(200, seed=1, share=0.02)
    assert found["broken"] == []
    assert found["again_in_real_processes"] == {"files": 20, "processes": 1}
    assert set(found["outcomes"]) == {"text", "error"}
    assert sum(found["outcomes"].values()) == 200


def test_a_case_follows_from_seed_and_number(tmp_path):
    files = fuzz_mutations.originals(np.sin(np.arange(8000) / 9))
    assert set(files) == {*fuzz_mutations.CONTAINERS, "a.opus", "vorbis.ogg"}
    time.sleep(1.1)  # some formats hold the second of writing
    assert fuzz_mutations.originals(np.sin(np.arange(8000) / 9)) == files
    contents = []
    for seed, number in [(0, 1), (0, 1), (0, 2), (1, 1)]:
        case = fuzz_audio.make(seed, number, files, tmp_path)
        contents.append((case.container, tuple(case.mutations), case.path.read_bytes()))
    assert contents[0] == contents[1]
    assert len(set(contents)) == 3


@pytest.mark.parametrize("mutation", fuzz_mutations.MUTATIONS, ids=lambda m: m.__name__)
def test_mutations_change_files_of_any_size(mutation):
    files = fuzz_mutations.originals(np.sin(np.arange(8000) / 9))
    changed = 0
    for number, data in enumerate([*files.values(), b"", b"x"]):
        mutated = bytearray(data)
        mutation(np.random.default_rng(number), mutated)
        changed += mutated != data
    assert changed > 0


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (Result(0, "A TEXT\n"), "text"),
        (Result(0, "\n"), "text"),
        (Result(1, "", LINE), "error"),
        (Result(0, "", ""), "broken: the text is not whole"),
        (Result(0, "A\nB\n"), "broken: the text is not whole"),
        (Result(0, "A\n", "Warning: odd\n"), "broken: a text, and something on standard error"),
        (Result(1, "", "Note: odd\n" + LINE), "broken: not one line of error"),
        (Result(1, "", ""), "broken: not one line of error"),
        (Result(1, "A\n", LINE), "broken: an error, and some output"),
        (Result(1, "", LINE, {"case.txt": ""}), "broken: an error, and some output"),
        (Result(1, "", "error: it is empty\n"), "broken: the error does not name the file"),
        (Result(1, "", "Traceback (most recent call last):\n"), "broken: traceback"),
        (Result(1, "", f"error: {CASE.path}: decoding failed (X)\n"), "broken: decoding raised"),
        (Result(2, "", LINE), "broken: exit status 2"),
        (Result(None, err="broken: hang"), "broken: hang"),
    ],
)
def test_verdicts(result, expected):
    found = verdict(CASE, result)
    assert found.startswith("broken") == expected.startswith("broken")
    assert found.startswith(expected)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (Result(0, "", f"{SUMMARY}\n", FILES), "text"),
        (Result(1, "", f"{LINE}0 files; 1 failed\n"), "error"),
        (Result(0, "A\n", f"{SUMMARY}\n", FILES), "broken: the text is not whole"),
        (Result(0, "", f"{SUMMARY}\n"), "broken: the text is not whole"),
        (Result(0, "", f"{SUMMARY}\n", FILES | {".partial-case.txt": ""}), "broken: the text"),
        (Result(0, "", f"{SUMMARY}\n", FILES | {"case.json": '{"tex'}), "broken: the text"),
        (Result(0, "", f"odd\n{SUMMARY}\n", FILES), "broken: a text, and something"),
        (Result(1, "", f"{LINE}{SUMMARY}\n", FILES), "broken: an error, and some output"),
    ],
)
def test_verdicts_on_files(result, expected):
    assert verdict(WRITES, result).startswith(expected)


def test_a_name_on_two_lines_is_shown_on_one():
    case = dataclasses.replace(CASE, path=Path("/folder/a\nb.wav"))
    assert verdict(case, Result(1, "", f"error: {str(case.path)!a}: no\n")) == "error"
    assert verdict(case, Result(1, "", f"error: {case.path}: no\n")).startswith("broken")


def test_hangs_and_deaths_are_seen_and_the_next_case_runs(tmp_path, monkeypatch):
    """A path that the worker cannot take ends it; one it never answers for is given up."""
    model = tmp_path / "model"
    fuzz_worker.write_model(model)
    files = fuzz_mutations.originals(np.sin(np.arange(16000) / 9))
    whole = Case(0, "", [], tmp_path / "whole.wav")
    whole.path.write_bytes(files["pcm16.wav"])
    process = fuzz_worker.Worker(model, tmp_path / "worker", whole)
    try:
        assert process.run(whole).status == 0
        process.process.kill()
        process.process.join()
        died = process.run(whole)
        assert died.status is None
        assert died.err.startswith("broken: the process died")
        assert process.run(whole).status == 0
        assert process.replaced == 1
        monkeypatch.setattr(fuzz_worker, "WATCHDOG", 0.0)
        assert process.run(whole).err == "broken: hang"
    finally:
        process.close()
