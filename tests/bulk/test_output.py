"""The folder: a block is done when its part exists; other inputs and settings are refused."""

import json
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="[bulk] is not installed")

from las.bulk.blocks import of_files
from las.bulk.output import BulkOutput, BulkSettings, identity
from las.bulk.results import Result, error_row
from las.config import SearchConfig
from las.errors import LASError
from las.storage.atomic import replacing

BLOCKS = of_files([Path("a.wav"), Path("b.wav"), Path("c.wav")], 1)
GOOD = Result([{"path": "a.wav", "text": "A"}])
BAD = Result([], [error_row("a.wav", None, "a.wav: no such file")])


def output(folder, blocks=BLOCKS, **settings):
    return BulkOutput(folder, BulkSettings(**settings), blocks)


def test_a_block_is_done_when_its_part_exists(tmp_path):
    made = output(tmp_path)
    with made.reserved():
        made.write(1, BAD)
    assert list(output(tmp_path).pending()) == [0, 2]
    assert made.failures() == 1
    assert (tmp_path / "part-00001.jsonl").read_text() == ""
    (error,) = (tmp_path / "errors-00001.jsonl").read_text().splitlines()
    assert json.loads(error) == BAD.errors[0]


def test_the_errors_are_written_before_the_part(tmp_path, monkeypatch):
    made = output(tmp_path)

    def full(path):
        if path.name.startswith("part-"):
            raise OSError(28, "No space left on device", str(path))
        return replacing(path)

    monkeypatch.setattr("las.bulk.output.replacing", full)
    with pytest.raises(OSError, match="No space"):
        made.write(0, BAD)
    assert list(made.pending()) == [0, 1, 2]
    monkeypatch.undo()
    made.write(0, GOOD)  # the file has come back
    assert not list(tmp_path.glob("errors-*"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"search": SearchConfig(beam=4)}, "search.beam: 1 -> 4"),
        ({"format": "parquet"}, "format: jsonl -> parquet"),
        ({"model": "mine 0123"}, "model: '' -> mine 0123"),
        ({"block_files": 2}, "block_files: 64 -> 2"),
    ],
)
def test_other_settings_are_refused(tmp_path, settings, says):
    with output(tmp_path).reserved():
        pass
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(LASError) as caught, output(tmp_path, **settings).reserved():
        pass
    assert says in str(caught.value) and "--output" in str(caught.value)
    assert (tmp_path / "run.json").read_bytes() == before
    with output(tmp_path).reserved():
        pass


def test_other_inputs_are_refused(tmp_path):
    with output(tmp_path).reserved():
        pass
    says = "other inputs \\(3 blocks, now 2\\)"
    with pytest.raises(LASError, match=says), output(tmp_path, BLOCKS[:2]).reserved():
        pass


@pytest.mark.parametrize("text", ["", "[]", '{"format": "las-bulk/2"}', '{"format": "las-bulk/1"}'])
def test_another_record_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(LASError, match="not a record"), output(tmp_path).reserved():
        pass


def test_results_without_a_record_are_refused(tmp_path):
    (tmp_path / "part-00000.jsonl").touch()
    with pytest.raises(LASError, match=r"no run\.json"), output(tmp_path).reserved():
        pass


def test_one_run_at_a_time(tmp_path):
    one, two = output(tmp_path), output(tmp_path)
    with one.reserved(), pytest.raises(LASError, match="another"), two.reserved():
        pass
    with output(tmp_path).reserved():
        pass


def test_a_model_is_known_by_its_name_and_files(tmp_path):
    for name in ("a/m", "b/m"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("x: 1")
    assert identity(tmp_path / "a/m") == identity(tmp_path / "b/m") != identity(None) == ""
    (tmp_path / "b/m/evaluation.json").touch()
    assert identity(tmp_path / "a/m") == identity(tmp_path / "b/m")
    (tmp_path / "b/m/config.yaml").write_text("x: 2")
    assert identity(tmp_path / "a/m") != identity(tmp_path / "b/m")
