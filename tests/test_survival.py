"""Killed at any moment, a command goes on to the same results, and no file is half-written.

The long form, with ten moments each and processes that are killed by the clock, is `make soak`.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from speech import error_line, run_main
from survival import KINDS, work

TESTS = Path(__file__).parent


def test_killed_twice_each_kind_of_work_ends_with_the_same_results(tmp_path):
    command = [sys.executable, TESTS / "survival.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"{kind}: killed twice" in done.stdout for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_that_cannot_be_written_to_is_one_line(kind, tmp_path, monkeypatch, capsys):
    place = Path("/proc/las")  # not even root may
    given = work(kind, tmp_path / "given", tmp_path / "out")
    arguments = [str(place) if word == str(given.output) else word for word in given.arguments]
    if kind == "train":
        arguments.append(f"training.output={place}")
    status, _, err = run_main(monkeypatch, capsys, *arguments)
    assert status == 1
    assert error_line(err).startswith(f"error: {place}: not a folder that can be written to (")


# A mount of its own needs a namespace, which not every machine permits.
FULL = """
set -e
mount -t tmpfs -o size=64k none "$1"
cd "$1"
set +e
shift
"$@"
status=$?
find . -type f
exit $status
"""


def on_a_full_disk(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    folder.mkdir()
    command = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", FULL, "bash"]
    las = [sys.executable, "-m", "las", *map(str, arguments)]
    try:
        probe = [*command[:-3], "-c", 'mount -t tmpfs none "$1"', "bash", str(folder)]
        subprocess.run(probe, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    return subprocess.run([*command, str(folder), *las], capture_output=True, text=True)


def test_a_disk_that_is_really_full_is_one_line(tmp_path):
    training = work("train", tmp_path / "given", tmp_path / "run")
    place = tmp_path / "full"
    done = on_a_full_disk(place, *training.arguments, f"training.output={place}/run")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {place}/run/") and line.endswith(": No space left on device")
    assert ".partial" not in done.stdout
