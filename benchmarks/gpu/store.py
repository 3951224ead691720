"""What a run leaves behind: a folder, and one archive of it that is whole at any moment.

The archive is made anew after every part and put in the place of the one before in one step, so
that whoever ends the run, at whatever moment, finds the results of all parts that came before.
"""

import io
import json
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LARGEST = 4 << 20  # bytes of a file that goes into the archive
TOP = "gpu"  # the folder within the archive


class Store:
    """The folder of a run and its archive.

    Args:
        folder: everything is in it, from one command to the next on the same machine.
        archive: the file that is made of it.
    """

    def __init__(self, folder: Path, archive: Path) -> None:
        self.folder, self.archive = folder, archive
        self.begin = time.monotonic()
        self.stopped = False  # from outside
        self.starting = False  # a part is being started
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        archive.parent.mkdir(parents=True, exist_ok=True)

    def say(self, text: str) -> None:
        """A line on the screen and in the archive."""
        line = f"[{time.monotonic() - self.begin:4.0f}] {text}"
        print(line, flush=True)
        with (self.folder / "console.txt").open("a") as file:
            file.write(line + "\n")

    def load(self, name: str) -> dict[str, Any]:
        """A file of this run; nothing where there is none."""
        try:
            found: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    def save(self, name: str, what: dict[str, Any]) -> None:
        """Write a file of this run, whole or not at all."""
        part = self.folder / f"{name}.part"
        part.write_text(json.dumps(what, indent=1) + "\n")
        part.replace(self.folder / f"{name}.json")

    def status(self, part: str) -> str:
        """How a part ended; empty if it has never begun."""
        return str(self.load("parts").get(part, {}).get("status", ""))

    def note(self, part: str, status: str, seconds: float = 0.0) -> None:
        """Keep how a part ended, and say it."""
        parts = self.load("parts")
        parts[part] = {"status": status, "seconds": round(seconds, 1)}
        self.save("parts", parts)
        self.say(f"== {part}: {status}" + (f", {seconds:.0f} s" if seconds else ""))

    def set_aside(self) -> None:
        """Move what other code or another card has measured out of the way."""
        old = self.folder.with_name(f"{self.folder.name}-{time.strftime('%Y%m%d-%H%M%S')}")
        self.folder.rename(old)
        self.logs.mkdir(parents=True)
        self.say(f"what was measured before is of other code or another card: now in {old.name}")

    def pack(self) -> None:
        """Make the archive; a failure is told and does not end the run."""
        part = self.archive.with_name(self.archive.name + ".part")
        try:
            with tarfile.open(part, "w:gz", compresslevel=6) as tar:
                for path in sorted(self.folder.rglob("*")):
                    _add(tar, path, f"{TOP}/{path.relative_to(self.folder)}")
            part.replace(self.archive)
        except Exception as error:
            print(f"the archive cannot be made: {type(error).__name__}: {error}", flush=True)


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    """A file as it is now: read as a whole, for a part may be writing to it."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return
        data = path.read_bytes()
    except OSError:  # gone meanwhile
        return
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(data), int(time.time())
    tar.addfile(member, io.BytesIO(data))


def unpack(archive: Path, wanted: Callable[[Path], bool]) -> dict[Path, bytes]:
    """Files of an archive by their paths within the run's folder."""
    found = {}
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            path = Path(member.name)
            inside = path.parts[:1] == (TOP,) and ".." not in path.parts and member.isfile()
            if inside and wanted(path.relative_to(TOP)):
                file = tar.extractfile(member)
                assert file is not None
                found[path.relative_to(TOP)] = file.read()
    return found
