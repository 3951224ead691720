"""What lies below a folder: all of it once, or said to be skipped over; patterns as of glob."""

import glob
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from las.storage.walk import AGAIN, HIDDEN, UNREADABLE, Skipped, matching, summary, walk


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/b/x", "in/b/c/y", "in/.d/z", "in/.z", "real/c", "real/b/c/y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_every_file_is_found_once_under_its_own_name_if_it_has_one(tree):
    (tree / "in" / "a").symlink_to("b")  # comes first in the alphabet
    (tree / "in" / "link").symlink_to("../real")
    (tree / "in" / "link2").symlink_to(tree / "real" / "b")
    files, skipped = walk(tree / "in")
    assert [str(path.relative_to(tree / "in")) for path in files] == [
        "b/c/y",
        "b/x",
        "link/b/c/y",
        "link/c",
    ]
    assert [(path.path.name, path.reason) for path in skipped] == [
        (".d", HIDDEN),
        (".z", HIDDEN),
        ("a", AGAIN),
        ("link2", AGAIN),
    ]
    assert skipped[2].detail == str(tree / "in" / "b")


def test_circles_end(tree):
    (tree / "in" / "up").symlink_to("..")
    (tree / "real" / "up").symlink_to("../in")
    (tree / "real" / "here").symlink_to(".")
    (tree / "in" / "self").symlink_to("self")
    files, skipped = walk(tree / "in")
    assert {path.name for path in files} == {"x", "y", "c", "self"} and len(files) == 5
    assert sorted(one.path.name for one in skipped if one.reason == AGAIN) == ["here", "in", "up"]
    assert {os.path.realpath(path) for path in matching("in/**")} == {
        os.path.realpath(path) for path in files if path.name != "self"
    }


def test_a_folder_that_cannot_be_read_does_not_hide_the_others(tree, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "c":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    files, skipped = walk(tree / "in")
    assert [path.name for path in files] == ["x"]
    assert Skipped(tree / "in" / "b" / "c", UNREADABLE, "Permission denied") in skipped
    assert walk(tree / "gone")[1] == [
        Skipped(tree / "gone", UNREADABLE, "No such file or directory")
    ]


def test_a_summary_counts_and_names_a_few(tree):
    skipped = [Skipped(tree / name, reason) for name, reason in zip("abcde", "XYYYY", strict=True)]
    assert summary(skipped) == "1 X (a), 4 Y (b, c, d, ...)"


PARTS = ("**", "*", "in", ".d", ".*", "b", "[bc]", "?", "link", "y")


@given(st.lists(st.sampled_from(PARTS), min_size=1))
def test_patterns_match_as_those_of_glob(tmp_path_factory, parts):
    root = tmp_path_factory.getbasetemp() / "patterns"
    if not root.exists():
        for name in ("in/b/x", "in/b/c/y", "in/.d/z", "in/.d/b/y", "real/c", "real/b/c/y", "b/y"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        (root / "in" / "link").symlink_to("../real")
    pattern = str(root.joinpath(*parts))
    found = {Path(path) for path in glob.glob(pattern, recursive=True)}  # noqa: PTH207
    assert matching(pattern) == sorted(path for path in found if path.is_file())
