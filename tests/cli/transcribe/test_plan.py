"""The plan: what exists is skipped, what collides is refused, what is wrong is listed."""

from pathlib import Path

import pytest

from las.cli.transcribe.inputs import Source
from las.cli.transcribe.output import ALL, Output
from las.cli.transcribe.plan import check_collisions, make_plan
from las.errors import LASError


def output(inputs, kind="txt", folder=Path("out")):
    return Output.from_options(kind, folder, inputs, word_timestamps=False, scores=False)


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.wav", "in/b.wav", "in/notes.pdf", "out/a.txt", "other/a.flac"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return ["in", "gone/*.wav"]


def names(sources):
    return [str(source.name) for source in sources]


def test_what_exists_is_skipped_when_resuming(inputs):
    plan = make_plan(inputs, output(inputs), resume=True)
    assert (names(plan.pending), names(plan.skipped)) == (["b"], ["a"])
    assert [str(error).split(":")[0] for error in plan.errors] == ["gone/*.wav"]
    assert len(plan.notes) == 1 and "notes.pdf" in plan.notes[0]
    assert plan.files == 3
    plan = make_plan(inputs, output(inputs), resume=False)
    assert (names(plan.pending), plan.skipped) == (["a", "b"], [])
    # All formats are asked for, and one is there.
    plan = make_plan(inputs, output(inputs, ALL), resume=True)
    assert names(plan.pending) == ["a", "b"]


def test_collisions_matter_where_files_are_written(inputs):
    several = ["in/a.wav", "other/a.flac"]
    with pytest.raises(LASError, match="both be written"):
        make_plan(several, output(several), resume=False)
    printed = make_plan(several, output(several, None, None), resume=False)
    assert len(printed.pending) == 2


def test_collisions_name_both_files():
    sources = [Source(Path("a/x.wav"), Path("x")), Source(Path("b/y.wav"), Path("y"))]
    check_collisions(sources)
    for name in ("x", "X"):
        with pytest.raises(LASError) as caught:
            check_collisions([*sources, Source(Path("b/x.flac"), Path(name))])
        message = str(caught.value)
        assert "a/x.wav" in message and "b/x.flac" in message and len(message.splitlines()) == 1
