"""Whatever the parts of a run on a GPU do, its archive is there, whole and up to date."""

import contextlib
import itertools
import os
import signal
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import jobs, store
from benchmarks.gpu.jobs import Job
from benchmarks.gpu.store import Store


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(jobs, "PATIENCE", (0.1, 5.0))
    monkeypatch.setattr(jobs, "PAUSE", 0.01)


def new(folder: Path) -> Store:
    return Store(folder / "run", folder / "out" / "results.tgz")


def hangs() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("training: begun", flush=True)
    time.sleep(60)
    return 0


def raises() -> int:
    raise RuntimeError("an illegal memory access was encountered")


def exits() -> int:
    sys.exit("error: it does not want to")


def dies() -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


FAILURES = {"raises": raises, "hangs": hangs, "dies": dies, "exits": exits}
ENDS = {
    "raises": "failed, status 1", "hangs": "cut off", "dies": "failed, status -9",
    "exits": "failed, status 1",
}  # fmt: skip


def every_pair(items: list[str]) -> list[str]:
    """A walk in which each of them once follows each, also itself (along an Eulerian circuit)."""
    found, left = [items[0]], set(itertools.product(items, items))
    while left:
        here = found[-1]
        ahead = [b for a, b in left if a == here]
        if not ahead:  # go on elsewhere
            found.append(min(left)[0])
            continue
        # A loop first; then where most is left.
        found.append(max(ahead, key=lambda b: (b == here, sum(a == b for a, _ in left), b)))
        left.remove((here, found[-1]))
    return found


class Checked(Store):
    """Reads each archive back as soon as it is made."""

    seen = 0

    def pack(self) -> None:
        super().pack()
        with tarfile.open(self.archive) as tar:
            names = tar.getnames()
            for member in tar.getmembers():
                file = tar.extractfile(member)
                assert file is not None and len(file.read()) == member.size
        here = {f"{store.TOP}/{p.relative_to(self.folder)}" for p in self.folder.rglob("*.jsonl")}
        assert here <= set(names)
        assert len(here) == Checked.seen + 1
        Checked.seen += 1


def test_no_order_of_failures_leaves_the_archive_out(tmp_path):
    place = Checked(tmp_path / "run", tmp_path / "results.tgz")
    walk = every_pair(list(FAILURES))
    assert set(itertools.pairwise(walk)) >= set(itertools.product(FAILURES, FAILURES))

    def part(index: int, failure: str) -> Job:
        def measures_then_fails() -> int:
            (place.folder / f"{index}.jsonl").write_text('{"median_us": 1.5}\n')
            return FAILURES[failure]()

        # Long enough to write even on a busy machine.
        limit = 1.0 if failure == "hangs" else 60.0
        return Job(f"{index} {failure}", limit, measures_then_fails)

    some = [part(i, failure) for i, failure in enumerate(walk)]
    assert jobs.run(some, place, lambda: 99.0) == some
    assert Checked.seen == len(some)
    found = place.load("parts")
    assert [found[job.name]["status"] for job in some] == [ENDS[name] for name in walk]
    assert not list(tmp_path.glob("*.part"))


def test_programs_fail_in_the_same_ways(tmp_path):
    place = new(tmp_path)
    shell = {"exits": "echo 'missing: all'; exit 3", "dies": "kill -9 $$", "hangs": "sleep 60"}
    limits = {"hangs": 0.3}
    some = [Job(name, limits.get(name, 60.0), ["sh", "-c", x]) for name, x in shell.items()]
    assert jobs.run(some, place, lambda: 60.0, at_once=3) == some
    ends = {name: place.status(name) for name in shell}
    assert ends == {"exits": "failed, status 3", "dies": "failed, status -9", "hangs": "cut off"}
    assert "missing: all" in (place.folder / "console.txt").read_text()
    (job,) = jobs.run([Job("none", 1.0, [str(tmp_path / "none")])], place, lambda: 60.0)
    assert "No such file" in place.status("none") and job.failed


def test_what_does_not_fit_is_named_and_not_started(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "LEAST", 0.2)
    place, end = new(tmp_path), time.monotonic() + 0.6
    some = [Job("first", 9.0, hangs), Job("second", 9.0, lambda: 0)]
    assert jobs.run(some, place, lambda: end - time.monotonic()) == some
    assert place.status("first") == "cut off"  # by what was left, before its own limit
    assert place.status("second") == "not started: no time left"
    assert not (place.logs / "second.log").exists()


def test_results_are_shown_as_they_come(tmp_path, capsys):
    def talks() -> int:
        print("device: a GPU\ntraining: auto: 5 x real time")
        print("attention: half a line", end="")
        return 0

    place = new(tmp_path)
    assert jobs.run([Job("talks", 9.0, talks, lines=2)], place, lambda: 60.0) == []
    told = capsys.readouterr().out
    assert "training: auto" in told and "half a line" in told and "device" not in told
    assert "device: a GPU" in (place.logs / "talks.log").read_text()
    (row,) = [line for line in told.splitlines() if "==" in line]
    assert "talks: done" in row


def stopped(folder: Path, what: int, wait: Callable[[Path], None]) -> tuple[Path, int]:
    """An archive and an exit status, of a run that gets a signal some time after its first words.

    ``wait`` is given the archive, and returns when it is time.
    """
    place = new(folder)
    (place.folder / "results").mkdir()
    pid = os.fork()
    if pid == 0:

        def writes() -> int:
            (place.folder / "results" / f"{time.monotonic_ns()}.json").write_bytes(
                os.urandom(1 << 18)
            )
            return 0

        def work() -> int:
            place.say("begins")
            some = [Job(str(i), 9.0, writes) for i in range(3)]
            some.append(Job("hangs", 60.0, hangs))
            return len(jobs.run(some, place, lambda: 60.0, at_once=2))

        os._exit(gpu.guarded(place, work))
    while not (place.folder / "console.txt").exists():
        time.sleep(0.01)
    wait(place.archive)
    os.kill(pid, what)
    return place.archive, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.3])
def test_a_run_that_is_stopped_leaves_its_archive_and_no_process(tmp_path, seconds, capfd):
    archive, status = stopped(tmp_path, signal.SIGTERM, lambda _: time.sleep(seconds))
    assert status == 143
    results = store.unpack(archive, lambda path: path.parts[0] == "results")
    whole = {path.name: path.stat().st_size for path in (tmp_path / "run" / "results").iterdir()}
    assert {path.name: len(data) for path, data in results.items()} == whole
    assert "stopped from outside" in capfd.readouterr().out
    assert not processes_of(tmp_path)


def processes_of(folder: Path) -> list[int]:
    """Those that still write to a log in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/fd/1"):
        with contextlib.suppress(OSError):  # it ended, or is another user's
            if path.readlink().is_relative_to(folder):
                found.append(int(path.parts[2]))
    return found


def test_a_run_that_is_killed_leaves_the_archive_of_the_part_before(tmp_path):
    def results(archive: Path) -> int:
        return len(store.unpack(archive, lambda path: path.parts[0] == "results"))

    def all_three(archive: Path) -> None:
        while not archive.exists() or results(archive) < 3:
            time.sleep(0.02)
        time.sleep(0.1)

    archive, status = stopped(tmp_path, signal.SIGKILL, all_three)
    assert status == -signal.SIGKILL
    assert results(archive) == 3
    for left in processes_of(tmp_path):  # nobody was there to end them
        os.kill(left, signal.SIGKILL)


def test_an_archive_takes_no_large_files_and_none_from_outside(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "LARGEST", 10)
    place = new(tmp_path)
    (place.folder / "small").write_text("1")
    (place.folder / "large").write_text("1" * 11)
    place.pack()
    assert list(store.unpack(place.archive, lambda _: True)) == [Path("small")]
    with tarfile.open(tmp_path / "bad.tgz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("gpu/results/../../../etc/passwd"))
    assert store.unpack(tmp_path / "bad.tgz", lambda _: True) == {}


def test_an_archive_that_cannot_be_made_ends_nothing(tmp_path, monkeypatch, capsys):
    place = new(tmp_path)
    place.pack()
    before = place.archive.read_bytes()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    place.say("something")
    assert jobs.run([Job("fine", 9.0, lambda: 0)], place, lambda: 60.0) == []
    assert "cannot be made: OSError: No space left" in capsys.readouterr().out
    assert place.archive.read_bytes() == before


def test_what_other_code_has_measured_is_set_aside(tmp_path):
    place = new(tmp_path)
    place.save("parts", {"bounds": {"status": "done"}})
    place.set_aside()
    assert place.status("bounds") == ""
    (old,) = [path for path in tmp_path.iterdir() if path.name.startswith("run-")]
    assert "bounds" in (old / "parts.json").read_text()
