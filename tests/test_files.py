"""A file is there whole or not at all."""

import pytest

from las.errors import LASError
from las.files import check_file, check_folder, make_folder, replacing


def test_written_file_takes_the_name_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "a.json"
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert temporary.parent == path.parent and temporary.suffix == path.suffix
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_failure_keeps_the_old_file_and_removes_the_half_written_one(tmp_path, kind):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(kind), replacing(path) as temporary:
        temporary.write_text("ha")
        raise kind
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_failure_before_anything_is_written_is_the_one_that_is_raised(tmp_path):
    with pytest.raises(ValueError, match="first"), replacing(tmp_path / "a"):
        raise ValueError("first")
    assert list(tmp_path.iterdir()) == []


def test_nothing_written_is_an_error_not_an_empty_file(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def write_into(folder):
    with replacing(folder / "a"):
        pass


@pytest.mark.parametrize("use", [make_folder, check_folder, write_into])
def test_a_file_where_a_folder_is_to_be_is_named(tmp_path, use):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(LASError, match=f"^{folder}: a file is where this folder is to be"):
            use(folder)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    check_folder(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(LASError, match=f"^{tmp_path}: a folder is where this file is to be"):
        check_file(tmp_path)
    monkeypatch.setattr("las.files.tempfile.TemporaryFile", refuse)
    with pytest.raises(LASError, match=rf"^{tmp_path}: not a folder .*\(Permission denied\)"):
        check_file(tmp_path / "a.json")
