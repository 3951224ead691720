"""`las transcribe`: a failure stays with its file; collisions and contradictions are refused."""

import errno
from pathlib import Path

import pytest
import soundfile
from speech import error_line, full_disk

from las.transcription import transcriber
from tests.cli.transcribe.files import recording, tree, tree_of_calls


def test_bad_inputs_are_reported_and_the_others_go_on(las, calls, tmp_path):
    (calls / "bad.wav").write_text("a text\n" * 100)
    (tmp_path / "empty").mkdir()
    status, out, err = las("calls", "gone.wav", "*.none", "empty", "-o", "out", "-f", "vtt")
    assert (status, out) == (1, "")
    *errors, summary = err.splitlines()
    assert sorted(line.split(": ")[1] for line in errors) == [
        "*.none",
        "calls/bad.wav",
        "empty",
        "gone.wav",
    ]
    assert all(line.startswith("error: ") for line in errors)
    assert summary.startswith("3 files, ") and summary.endswith("; 4 failed")
    assert tree(tmp_path / "out") == ["monday/x.vtt", "monday/y.vtt", "x.vtt"]


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, OSError])
def test_an_error_in_decoding_is_one_line(las, calls, monkeypatch, kind):
    n_best = transcriber.Transcriber.n_best
    size = len(soundfile.read(calls / "x.wav")[0])

    def fail(self, waveforms):
        if any(len(waveform) == size for waveform in waveforms):
            raise kind("no kernel\nimage")
        return n_best(self, waveforms)

    monkeypatch.setattr(transcriber.Transcriber, "n_best", fail)
    status, out, err = las("calls/x.wav", "calls/monday/y.ogg")
    assert status == 1 and out.startswith("calls/monday/y.ogg\t")
    line, summary = err.splitlines()
    assert line.startswith(
        f"error: calls/x.wav: decoding failed ({kind.__name__}: no kernel image)"
    )
    assert summary.endswith("; 1 failed")


def test_names_may_be_as_long_as_the_file_system_takes(las, calls, tmp_path):
    long = recording(calls / ("字" * 82 + "a.wav"))  # 251 bytes, as its result has
    status, _, err = las(long, calls / "x.wav", "-f", "txt", "-o", "out", "--resume")
    assert status == 0 and err.startswith("2 files, ")
    assert tree(tmp_path / "out") == ["x.txt", long.with_suffix(".txt").name]
    for name in ("字" * 82 + "a.json", "b" * 300):
        status, _, err = las(name, calls / "x.wav", "-f", "json", "-o", "out", "--resume")
        assert status == 1 and err.splitlines()[0].startswith(f"error: {name}: ")


def test_a_result_that_cannot_be_written_does_not_end_the_others(las, calls, tmp_path):
    (tmp_path / "out" / "x.txt").mkdir(parents=True)
    (tmp_path / "out" / "monday").touch()
    recording(calls / "z.wav")
    status, _, err = las("calls", "-f", "txt", "-o", "out")
    assert status == 1 and tree(tmp_path / "out") == ["monday", "z.txt"]
    *errors, summary = err.splitlines()
    assert [line.split(": ")[1] for line in errors] == ["out/monday", "out/monday", "out/x.txt"]
    assert summary.startswith("1 file, ") and summary.endswith("; 3 failed")


def test_a_full_disk_names_the_result_and_ends_the_run(las, calls, tmp_path, monkeypatch):
    assert las("calls", "-f", "txt", "-o", "out")[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    with full_disk(2):
        status, _, err = las("calls", "-f", "txt", "-o", "out")
    assert status == 1 and "error: out/x.txt: File too large\n" in err

    def full(self, *_, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        status, _, err = las("calls", "-f", "txt", "-o", "out")
    assert (status, error_line(err)) == (1, "error: out/monday/x.txt: No space left on device")
    assert {path: path.read_bytes() for path in before} == before
    assert tree(tmp_path / "out") == ["monday/x.txt", "monday/y.txt", "x.txt"]


def test_what_a_folder_has_beside_audio_is_said(las, calls):
    (calls / "x.pdf").touch()
    (calls / "again").symlink_to("monday")
    status, out, err = las("calls")
    assert status == 0 and len(out.splitlines()) == 3
    line, _ = err.splitlines()
    assert line == (
        "calls: skipped 1 link to a folder that is searched anyway (again), 1 not audio by its "
        "name (x.pdf)"
    )


def test_results_never_replace_each_other(las, calls, tmp_path):
    status, out, err = las("calls/x.wav", "calls/monday/x.flac", "--format", "txt")
    assert (status, out) == (1, "")
    assert "calls/x.wav" in error_line(err) and "calls/monday/x.flac" in error_line(err)
    assert tree(tmp_path) == tree_of_calls()
    assert las("calls/x.wav", "calls/monday/x.flac")[0] == 0  # printed, there is no harm


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--resume"], "--resume"),
        (["--word-timestamps"], "--format json"),
        (["--word-timestamps", "--format", "srt"], "--format json"),
        (["--n-best", "2", "--beam", "2", "--format", "txt"], "--n-best"),
        (["-o", "calls/x.wav"], "calls/x.wav"),
        (["-o", "calls/x.wav/below"], "calls/x.wav"),
    ],
)
def test_options_that_do_not_go_together(las, calls, tmp_path, arguments, says):
    status, out, err = las(calls / "x.wav", *arguments)
    assert (status, out) == (1, "") and says in error_line(err)
    assert tree(tmp_path) == tree_of_calls()


def test_a_format_that_is_none(las, calls):
    status, _, err = las(calls / "x.wav", "--format", "docx")
    assert status == 2 and "docx" in err
