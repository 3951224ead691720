"""The command: all kinds of inputs, reruns, and one line about what is wrong.

Workers are functions of this process here; `tests/bulk/test_workers.py` starts and kills real ones.
"""

import contextlib
import json
import shutil
import sys

import pytest
from speech import error_line

from tests.cli.transcribe.files import recording, tree


@pytest.fixture
def bulk(las, model, tmp_path, monkeypatch):
    """The command with a small model; results go to the folder ``out``."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.wav", "a.flac", "c.ogg"):
        recording(tmp_path / "calls" / name)

    def run(*arguments):
        return las("transcribe-bulk", "--model", model, "-o", "out", *arguments)

    return run


@pytest.fixture
def here(monkeypatch):
    """Blocks are transcribed in this process; the numbers of those that are begun."""
    import las.bulk  # noqa: F401  (before Ray, which reads what it sets)

    pytest.importorskip("ray", reason="[bulk] is not installed")
    from las.bulk import workers

    begun = []

    def transcribe(blocks, make, using):
        recogniser = make(using.device)
        for number, block in blocks.items():
            begun.append(number)
            yield number, recogniser(block)

    monkeypatch.setattr(workers, "ray_running", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(workers, "pool", lambda *_: workers.Pool(1, 0, "cpu"))
    monkeypatch.setattr(workers, "transcribe", transcribe)
    return begun


def rows(folder, name="part"):
    paths = sorted(folder.glob(f"{name}-*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text("utf-8").splitlines()]


def test_all_kinds_of_inputs(bulk, here, manifest, tmp_path):
    from las.data.manifests import read_manifest

    cuts = read_manifest(manifest).to_eager()
    (tmp_path / "shards/a").mkdir(parents=True)
    cuts.to_shar(tmp_path / "shards/a", fields={"recording": "flac"}, shard_size=4)
    (tmp_path / "calls/x.pdf").touch()
    (tmp_path / "bad.wav").touch()
    inputs = ["calls", "calls/*.wav", manifest, "shards/*", "shards/a", "bad.wav", "*.none"]
    status, out, err = bulk(*inputs, "--block-files", 3)
    assert (status, out) == (1, "")
    *lines, summary = err.splitlines()
    assert lines[0] == "calls: skipped 1 not audio by its name (x.pdf)"
    assert lines[1].startswith("error: *.none: ") and lines[2].startswith("error: bad.wav: ")
    assert len(lines) == 3
    assert summary.startswith("15 files, ") and summary.endswith("; 2 failed")
    # Two blocks of files, two of the manifest, two shards.
    assert here == list(range(6))
    found = rows(tmp_path / "out")
    assert [row["path"] for row in found[:3]] == ["calls/a.flac", "calls/b.wav", "calls/c.ogg"]
    assert [row["id"] for row in found[3:]] == [cut.id for cut in cuts] * 2
    (error,) = rows(tmp_path / "out", "errors")
    assert lines[2] == f"error: {error['error']}"
    # Again: nothing is left to do, and what failed is still a failure.
    status, _, err = bulk(*inputs[:-1], "--block-files", 3)
    assert status == 1 and err.splitlines()[1:] == [
        "1 file failed before and are not tried again: see out/errors-*.jsonl",
        "0 files; 6 blocks skipped",
    ]


def test_a_rerun_does_what_is_left(bulk, here, tmp_path, monkeypatch):
    from las.bulk import workers

    transcribe = workers.transcribe

    def interrupted(*arguments):
        yield next(transcribe(*arguments))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workers, "transcribe", interrupted)
        status, _, err = bulk("calls", "--block-files", 1)
    cure = "the same command continues with the others"
    assert (status, err) == (130, f"interrupted: 1 of 3 blocks are done; {cure}\n")
    status, _, err = bulk("calls", "--block-files", 1)
    assert status == 0 and err.startswith("2 files, ") and err.endswith("; 1 block skipped\n")
    assert here == [0, 1, 2]
    assert [row["path"] for row in rows(tmp_path / "out")] == [
        f"calls/{name}" for name in ("a.flac", "b.wav", "c.ogg")
    ]
    status, _, err = bulk("calls", "--block-files", 1)
    assert (status, err) == (0, "0 files; 3 blocks skipped\n")


def test_other_inputs_and_settings_are_refused(bulk, here, tmp_path):
    assert bulk("calls")[0] == 0
    before = tree(tmp_path / "out")
    for arguments, says in (
        (["calls", "--beam", 3], "search.beam: 1 -> 3"),
        (["calls", "-f", "parquet"], "format: jsonl -> parquet"),
        (["calls/a.flac"], "other inputs"),
    ):
        status, _, err = bulk(*arguments)
        assert status == 1 and says in error_line(err)
        assert error_line(err).startswith("error: out/run.json: ")
    assert here == [0] and tree(tmp_path / "out") == before


def test_a_table_of_another_format_holds_the_same(bulk, here, las, model, tmp_path):
    import pyarrow.parquet as pq

    assert bulk("calls", "--word-timestamps")[0] == 0
    others = ["-o", "parquet", "-f", "parquet", "--word-timestamps"]
    assert las("transcribe-bulk", "--model", model, "calls", *others)[0] == 0
    table = pq.read_table(tmp_path / "parquet/part-00000.parquet")
    assert table.to_pylist() == rows(tmp_path / "out")


def test_inputs_without_files_leave_the_folder_free(bulk, here, tmp_path):
    (tmp_path / "empty").mkdir()
    status, _, err = bulk("empty")
    assert status == 1 and error_line(err).startswith("error: empty: no audio files")
    (tmp_path / "x.jsonl.gz").write_text("no gzip")
    status, _, err = bulk("calls", "x.jsonl.gz")
    assert status == 1 and error_line(err).startswith("error: x.jsonl.gz: not a manifest")
    assert not (tmp_path / "out").exists()


def test_what_lies_below_a_folder_without_audio_is_named(bulk, manifest, tmp_path):
    (tmp_path / "data/train").mkdir(parents=True)
    shutil.copy(manifest, tmp_path / "data/dev.jsonl.gz")
    status, _, err = bulk("data")
    assert status == 1 and "data/dev.jsonl.gz: named itself, it is transcribed\n" in err
    (tmp_path / "data/dev.jsonl.gz").unlink()
    for name in ("cuts.000000.jsonl.gz", "recording.000000.tar"):
        (tmp_path / "data/train" / name).touch()
    status, _, err = bulk("data")
    assert status == 1 and "data/train: named itself, it is transcribed\n" in err


def test_a_model_that_is_none_is_found_before_anything_starts(bulk, here, tmp_path):
    status, _, err = bulk("calls", "--model", tmp_path / "calls")
    assert status == 1 and "not a model folder" in error_line(err)
    status, _, err = bulk("calls", "-")
    assert status == 1 and error_line(err).startswith("error: -: ")
    assert here == []


def test_without_the_extra(bulk, monkeypatch):
    monkeypatch.delitem(sys.modules, "las.bulk.workers", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _, err = bulk("calls")
    assert (status, error_line(err)) == (
        1,
        "error: ray is not installed, which this command needs: "
        "pip install 'listen-attend-spell[bulk]' (in a checkout: pip install -e '.[bulk]')",
    )
