"""A file is there whole or not at all."""

import errno
import gzip
import os
import shutil
import signal
import stat

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from speech import full_disk

from las.errors import LASError
from las.evaluation import plots
from las.storage import atomic, checkpoint
from las.storage.atomic import (
    attribute_errors,
    check_file,
    check_folder,
    locked,
    make_folder,
    remove_leftovers,
    replacing,
)
from las.storage.weights import write_weights


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
        with pytest.raises(
            LASError, match=f"^{folder}: this folder cannot be created, as a file is in its place"
        ):
            use(folder)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    check_folder(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(
        LASError, match=f"^{tmp_path}: this file cannot be written, as it is a folder"
    ):
        check_file(tmp_path)
    monkeypatch.setattr("las.storage.atomic.tempfile.TemporaryFile", refuse)
    with pytest.raises(LASError, match=rf"^{tmp_path}: not a folder .*\(Permission denied\)"):
        check_file(tmp_path / "a.json")


# --- several at once ------------------------------------------------------------------------


def test_two_writers_of_one_name_do_not_meet(tmp_path):
    path = tmp_path / "race.txt"
    with replacing(path) as last:
        with replacing(path) as first:
            first.write_text("A" * 10)
            last.write_text("BBB")
        assert path.read_text() == "A" * 10
    assert path.read_text() == "BBB"
    assert list(tmp_path.iterdir()) == [path]


@given(
    stem=st.text("a字.é ", min_size=1, max_size=255).filter(lambda text: text.strip(".")),
    suffix=st.sampled_from(["", ".txt", ".jsonl.gz", ".x" * 100]),
)
def test_names_may_be_as_long_as_the_file_system_takes(tmp_path_factory, stem, suffix):
    room = 255 - len(os.fsencode(suffix))
    name = os.fsencode(stem)[:room].decode(errors="ignore") + suffix
    path = tmp_path_factory.getbasetemp() / "long" / name
    with replacing(path) as temporary:
        temporary.write_text(name)
    assert path.read_text() == name and len(list(path.parent.iterdir())) == 1
    path.unlink()


def test_a_name_too_long_is_told(tmp_path):
    path = tmp_path / ("a" * 256)
    with pytest.raises(OSError, match="too long") as caught, replacing(path) as temporary:
        temporary.touch()
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_its_place_is_told(tmp_path):
    path = tmp_path / "a.txt"
    path.mkdir()
    with pytest.raises(IsADirectoryError) as caught, replacing(path) as temporary:
        temporary.touch()
    assert (caught.value.filename, caught.value.filename2) == (str(path), None)
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_has_left_goes_with_the_next_writing(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    child = os.fork()
    if not child:
        with replacing(path) as temporary:
            temporary.write_text("ha")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert not path.exists() and len(list(tmp_path.iterdir())) == 2
    with replacing(path) as temporary:
        assert not temporary.exists()
        temporary.write_text("whole")
    assert list(tmp_path.iterdir()) == [path] and path.read_text() == "whole"


def test_without_locks_every_writer_has_a_name_of_its_own(tmp_path, monkeypatch):
    def refuse(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(atomic.fcntl, "flock", refuse)
    test_two_writers_of_one_name_do_not_meet(tmp_path)


def test_a_suffix_like_that_of_a_lock(tmp_path):
    for name in ("a.lock", "a", "-lock"):
        with replacing(tmp_path / name) as temporary:
            temporary.write_text(name)
        assert (tmp_path / name).read_text() == name
    assert len(list(tmp_path.iterdir())) == 3


# --- modes and full disks -------------------------------------------------------------------

WRITERS = {
    "text.json": lambda path: _text(path),
    "manifest.jsonl.gz": lambda path: _gzip(path),
    "training.pt": lambda path: checkpoint.save(path, {"weights": torch.randn(5000)}),
    "model.safetensors": lambda path: write_weights({"weights": torch.randn(5000)}, path),
    "copy.bin": lambda path: _copy(path),
    "picture.png": lambda path: plots.save(Figure(), path),
}


def _text(path):
    with replacing(path) as temporary:
        temporary.write_text("x" * 20_000)


def _gzip(path):
    with replacing(path) as temporary, gzip.open(temporary, "wb") as file:
        file.write(os.urandom(20_000))


def _copy(path):  # whose error names what is read
    with replacing(path) as temporary:
        shutil.copyfile(__file__, temporary)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
@pytest.mark.parametrize("name", WRITERS)
def test_modes_follow_the_umask(tmp_path, name, mask):
    before = os.umask(mask)
    try:
        WRITERS[name](tmp_path / name)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path, name):
    path = tmp_path / name
    path.write_text("old")
    with full_disk(100), pytest.raises(OSError, match="too large") as caught:
        WRITERS[name](path)
    assert caught.value.errno == errno.EFBIG and caught.value.filename == str(path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_other_errors_of_the_writers_stay_what_they_are(tmp_path, monkeypatch):
    def refuse(*_):
        raise safetensors.SafetensorError("no such type")

    monkeypatch.setattr(safetensors.torch, "save_file", refuse)
    with pytest.raises(safetensors.SafetensorError, match="no such type"):
        write_weights({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(AttributeError, match="lambda"):
        checkpoint.save(tmp_path / "training.pt", {"what": lambda: None})


def test_naming_leaves_the_names_that_there_are(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, attribute_errors(tmp_path / "log"):
        (tmp_path / "other").read_text()
    assert caught.value.filename == str(tmp_path / "other")


# --- the lock -------------------------------------------------------------------------------


def test_one_has_the_lock_and_leaves_nothing(tmp_path):
    folder = tmp_path / "run"
    with locked(folder) as first:
        with locked(folder) as second, locked(tmp_path / "other") as other:
            assert (first, second, other) == (True, False, True)
        with locked(folder) as third:
            assert not third
    assert list(folder.iterdir()) == []
    with locked(folder) as again:
        assert again


def test_the_lock_of_a_process_that_is_gone_is_free(tmp_path):
    (tmp_path / ".lock").touch()
    with locked(tmp_path) as ours:
        assert ours


def test_a_forked_process_does_not_hold_the_lock(tmp_path):
    read, write = os.pipe()
    with locked(tmp_path):
        child = os.fork()
        if not child:
            os.close(write)
            os.read(read, 1)  # until the test is over
            os._exit(0)
        os.close(read)
    try:
        with locked(tmp_path) as ours:
            assert ours
    finally:
        os.close(write)
        os.waitpid(child, 0)


def test_a_lock_whose_file_was_removed_meanwhile_is_asked_for_again(tmp_path, monkeypatch):
    flock = atomic.fcntl.flock

    def late(descriptor, how):
        monkeypatch.setattr(atomic.fcntl, "flock", flock)
        flock(descriptor, how)
        (tmp_path / ".lock").unlink()  # as who had it does

    monkeypatch.setattr(atomic.fcntl, "flock", late)
    with locked(tmp_path) as ours, locked(tmp_path) as other:
        assert ours and not other


def test_without_locks_nobody_is_kept_out(tmp_path, monkeypatch):
    def refuse(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(atomic.fcntl, "flock", refuse)
    with locked(tmp_path) as ours, locked(tmp_path) as other:
        assert ours and other


def test_leftovers_of_one_kind_are_removed(tmp_path):
    for name in (".partial-1.pt", ".partial-2.json", "training.pt"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, ".pt")
    remove_leftovers(tmp_path / "missing", ".pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".partial-2.json", "training.pt"]
