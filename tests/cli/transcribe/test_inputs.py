"""Files, folders, patterns and standard input; results never get the same name unsaid."""

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from las.audio import AUDIO_SUFFIXES
from las.audio.arriving import copy
from las.cli.transcribe.inputs import Source, find, is_many, read_stdin, readable
from las.data.corpora import AUDIO_SUFFIXES as CORPUS_SUFFIXES
from las.errors import LASError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "a/x.wav",
        "a/x.txt",
        "a/sub/y.FLAC",
        "a/sub/x.mp3",
        "a/.hidden/z.wav",
        "a/._x.wav",
        "b/x.wav",
        "b/notes.txt",
        "c/notes.txt",
        "p[1].wav",
        "talk.part.wav",
        "[d]/v.wav",
        "[d]/e/w.wav",
        "d/u.wav",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def found(*arguments):
    """Path and name of sources; the message of errors."""
    return [
        (str(item.path), str(item.name)) if isinstance(item, Source) else str(item)
        for item in find(arguments)
    ]


def test_files_there_or_not(tree):
    assert found("a/x.wav", "talk.part.wav", "gone.wav", "a/x.txt") == [
        ("a/x.wav", "x"),
        ("talk.part.wav", "talk.part"),
        ("gone.wav", "gone"),
        ("a/x.txt", "x"),
    ]


def test_a_folder_keeps_its_layout(tree):
    assert found("a") == [("a/sub/x.mp3", "sub/x"), ("a/sub/y.FLAC", "sub/y"), ("a/x.wav", "x")]
    assert found(str(tree / "b")) == [(str(tree / "b" / "x.wav"), "x")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a/*.wav", [("a/x.wav", "x")]),
        ("[ab]/x.wav", [("a/x.wav", "a/x"), ("b/x.wav", "b/x")]),
        ("*/x.wav", [("a/x.wav", "a/x"), ("b/x.wav", "b/x")]),
        ("a/**", [("a/sub/x.mp3", "sub/x"), ("a/sub/y.FLAC", "sub/y"), ("a/x.wav", "x")]),
        ("a/**/*.mp3", [("a/sub/x.mp3", "sub/x")]),
        ("b/*", [("b/x.wav", "x")]),
        ("b/*.txt", [("b/notes.txt", "notes")]),
        ("[ab]/x.wa?", [("a/x.wav", "a/x"), ("b/x.wav", "b/x")]),
        ("p[1].wav", [("p[1].wav", "p[1]")]),  # there is a file of this name
        ("[d]/*.wav", [("[d]/v.wav", "v")]),  # and a folder
        ("[d]/**/*.wav", [("[d]/e/w.wav", "e/w"), ("[d]/v.wav", "v")]),
        ("[[]d]/*.wav", [("[d]/v.wav", "[d]/v")]),
        ("[de]/*.wav", [("d/u.wav", "d/u")]),
    ],
)
def test_patterns(tree, pattern, expected):
    assert found(pattern) == expected
    absolute = [(str(tree / path), name) for path, name in expected]
    assert found(str(tree / pattern)) == absolute


def test_what_gives_nothing_is_one_error_each(tree):
    first, second, good, third = found("c", "a/*.ogg", "b/x.wav", "c/**")
    assert good == ("b/x.wav", "x")
    for line, start in ((first, "c: no audio"), (second, "a/*.ogg: no "), (third, "c/**: no ")):
        assert line.startswith(start) and len(line.splitlines()) == 1
    (line,) = found("[xy]/*.wav")
    assert line.endswith("write [[] for a [ in a name")
    (line,) = found("two\nlines/*.wav")
    assert line.startswith("'two\\nlines/*.wav': ")


@pytest.mark.parametrize(
    ("name", "column"),
    [("a b.wav", "a b.wav"), ("a\tb.wav", r"'a\tb.wav'"), ("a\nb", r"'a\nb'"), ("\x85", r"'\x85'")],
)
def test_a_name_is_one_column_of_one_line(name, column):
    assert Source(Path(name), Path("x")).column == column


def test_a_folder_that_cannot_be_read(tree, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    line = "a/sub: cannot be read (Permission denied); change its permissions"
    assert found("a", "b") == [line, ("a/x.wav", "x"), ("b/x.wav", "x")]
    assert found("a/sub") == [line]


def test_links_to_folders_are_followed_as_a_pattern_follows_them(tree):
    (tree / "a" / "link").symlink_to("../b")
    (tree / "a" / "aa").symlink_to(".")  # before `sub` in the alphabet, and in a circle
    (tree / "b" / "up").symlink_to("../a")
    (tree / "a" / "self.wav").symlink_to("self.wav")
    paths = ["a/link/x.wav", "a/sub/x.mp3", "a/sub/y.FLAC", "a/x.wav"]
    assert [path for path, _ in found("a/**")] == paths
    assert [path for path, _ in found("a")] == [*paths[:1], "a/self.wav", *paths[1:]]


def test_what_is_skipped_is_reported(tree):
    (tree / "a" / "aa").symlink_to("sub")
    (tree / "a" / "notes.pdf").touch()
    for name in "1234":
        (tree / "b" / f"{name}.none").touch()
    notes = []
    assert len(list(find(["a", "b", "b/**", "b/*.none", "c"], notes.append))) == 9
    other = "b: skipped 4 not audio by its name (1.none, 2.none, 3.none, ...)"
    assert notes == [
        "a: skipped 2 hidden (._x.wav, .hidden), 1 link to a folder that is searched anyway "
        "(aa), 1 not audio by its name (notes.pdf)",
        other,
        other.replace("b: ", "b/**: "),
    ]


def test_names_too_long_to_be_folders_are_left_to_the_reader(tree):
    assert found("a" * 300, "[a]" * 100) == [
        ("a" * 300, "a" * 300),
        f"{'[a]' * 100}: no audio file matches this pattern; write [[] for a [ in a name",
    ]


def test_every_file_once(tree):
    (tree / "link.wav").symlink_to(tree / "a" / "x.wav")
    assert found("a/x.wav", "a", "./a/x.wav", "link.wav", "-", "-") == [
        ("a/x.wav", "x"),
        ("a/sub/x.mp3", "sub/x"),
        ("a/sub/y.FLAC", "sub/y"),
        ("-", "stdin"),
    ]


def test_is_many(tree):
    assert [is_many(a) for a in ("a", "a/*", "-", "p[1].wav", "a/x.wav")] == [True, True] + [
        False
    ] * 3


def test_corpora_and_folders_know_the_same_audio():
    assert frozenset(CORPUS_SUFFIXES) < AUDIO_SUFFIXES


def test_standard_input(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = bytes(range(256)) * 100
    with read_stdin(io.TextIOWrapper(io.BytesIO(data))) as path:
        copy.of(path).wait()
        assert path.read_bytes() == path.read_bytes() == data
        assert list(tmp_path.iterdir()) == []  # a process that is killed leaves nothing
    assert not path.exists()
    terminal = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    for stream in (None, terminal):
        with pytest.raises(LASError, match="stdin"), read_stdin(stream):
            pass


def test_files_are_read_where_they_are_and_standard_input_from_a_copy(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"data")))
    with readable([Source(Path("a.wav"), Path("a")), Source(Path("-"), Path("stdin"))]) as paths:
        copy.of(paths[1]).wait()
        assert paths[0] == Path("a.wav") and paths[1].read_bytes() == b"data"


def test_no_heavy_modules():
    code = (
        "import sys, las.cli.transcribe.main; "
        "print([m for m in ('torch', 'lhotse', 'librosa') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
