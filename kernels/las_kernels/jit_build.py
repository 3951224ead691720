"""Builds a source of a ``csrc/`` on demand with ninja, and keeps the result for the next process.

A library lives in ``<cache>/<name>-<key>/``. The key covers all that the machine code depends on:
sources and the headers beside them, commands, the compilers, torch and the processor
(``-march=native``), so a folder never has to be thrown away, only left behind. Builders lock the
folder, and a library gets its final name when it is whole, with its checksum beside it: a broken
one is built again rather than loaded.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

log = logging.getLogger(__name__)

CPU_SOURCES = Path(__file__).parent / "cpu" / "csrc"
CUDA_SOURCES = Path(__file__).parent / "cuda" / "csrc"
TORCH = Path(torch.__file__).parent


class BuildError(RuntimeError):
    """Why a library cannot be had, in one line."""


class Library:
    """A library that is built and loaded when it is first needed, once a process.

    Args:
        what: how an error calls it, such as "the CPU kernel".
        load: builds and loads it; raises :class:`BuildError`, or returns a reason that is not worth
            a line of log.
        instead: what happens without it; a failure is logged once, in one line.
    """

    def __init__(self, what: str, load: Callable[[], ctypes.CDLL | str], instead: str) -> None:
        self.what, self.load, self.instead = what, load, instead
        self.found: ctypes.CDLL | str | None = None

    def available(self) -> str | None:
        """None where it can be used, else the reason in one line; the first call may build it.

        A build takes seconds, once per machine. A failure is not tried again by this process.
        """
        if self.found is None:
            try:
                self.found = self.load()
            except BuildError as error:
                log.warning("%s: %s", self.instead, error)
                self.found = str(error)
        return self.found if isinstance(self.found, str) else None

    def __call__(self) -> ctypes.CDLL:
        """The library.

        Raises:
            RuntimeError: it is not :meth:`available`.
        """
        if isinstance(self.found, ctypes.CDLL):
            return self.found
        if (reason := self.available()) is not None:
            raise RuntimeError(f"{self.what} cannot run: {reason}")
        return self()

    def forget(self) -> None:
        """Look again at the next use, for tests."""
        self.found = None


class Step(NamedTuple):
    """One source to compile."""

    source: Path
    command: Sequence[str]  # compiler and flags; ninja adds the source and the object


def cxx() -> str:
    """Path of the C++ compiler: ``$CXX``, or the first of g++, c++ and clang++.

    Raises:
        BuildError: there is none.
    """
    wanted = os.environ.get("CXX")
    names = [wanted] if wanted else ["g++", "c++", "clang++"]
    for name in names:
        if found := shutil.which(name):
            return found
    raise BuildError(f"no C++ compiler: none of {', '.join(names)} is in PATH")


def cpu_step(source: Path) -> Step:
    """Compile ``source`` for this machine's processor, with torch's threads.

    Not -ffast-math: infinities and NaN must behave.
    """
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    flags = ["-std=c++17", "-O3", native, "-fno-math-errno", "-fno-trapping-math", "-fPIC"]
    if sys.platform == "linux":
        # Without it at::parallel_for silently runs on one thread. Apple's compiler lacks it.
        flags.append("-fopenmp")
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    return Step(source, [cxx(), *flags, abi, f"-I{TORCH / 'include'}"])


def torch_link() -> list[str]:
    """Command that links a library against torch.

    No -fopenmp here: the symbols then come from the OpenMP that torch itself loaded, whichever it
    is, so that there is one pool of threads.
    """
    return [cxx(), "-shared", f"-L{TORCH / 'lib'}", "-ltorch_cpu", "-lc10"]


def load(
    name: str, steps: Sequence[Step], link: Sequence[str], sizes: Mapping[str, int] | None = None
) -> ctypes.CDLL:
    """The library of these sources, built now if it is not in the cache.

    Args:
        name: of the library; letters, digits and underscores.
        steps: what to compile, with which command.
        link: command that links the objects; ninja adds them and the output.
        sizes: bytes of the structs that are packed in Python, by the functions of the library
            that say how many they are in C++.

    Raises:
        BuildError: there is no ninja, a command fails, the cache cannot be written, or the result
            cannot be loaded or has structs of other sizes.
    """
    try:
        library = _folder(name, steps, link) / f"{name}.so"
        if not _whole(library):
            library.parent.mkdir(parents=True, exist_ok=True)
            with _locked(library.parent / "lock"):
                if not _whole(library):  # another process may have built it meanwhile
                    _build(library, steps, link)
        loaded = ctypes.CDLL(str(library))
    except OSError as error:
        raise BuildError(f"{name}: {error}") from error
    for function, packed in (sizes or {}).items():
        size = getattr(loaded, function)
        size.restype = ctypes.c_int64
        if size() != packed:
            raise BuildError(f"{name}: {function} is {size()} bytes, {packed} are packed")
    return loaded


def address(x: Tensor | None) -> int:
    """Of a tensor's first element, as a packed struct holds it; 0, the null pointer, for None."""
    return 0 if x is None else x.data_ptr()


def cache() -> Path:
    """Folder of all libraries: ``$LAS_KERNELS_CACHE``, or las_kernels in the user's cache."""
    if folder := os.environ.get("LAS_KERNELS_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "las_kernels"
    except RuntimeError as error:  # a container's user without an entry in passwd
        raise BuildError("no home folder for the cache: set LAS_KERNELS_CACHE") from error


def _folder(name: str, steps: Sequence[Step], link: Sequence[str]) -> Path:
    parts = [torch.__version__, sys.platform, _processor(), shlex.join(link), _identity(link[0])]
    for step in steps:
        parts += [shlex.join(step.command), _identity(step.command[0])]
        beside = step.source.parent.iterdir()
        headers = sorted(path for path in beside if path.suffix in (".h", ".cuh"))
        parts += [path.read_text() for path in (step.source, *headers)]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return cache() / f"{name}-{digest[:16]}"


def _identity(command: str) -> str:
    """Changes when a compiler is replaced; quicker than asking it for its version."""
    found = shutil.which(command)
    if found is None:
        raise BuildError(f"no compiler: {command} is not in PATH")
    path = Path(found).resolve()
    status = path.stat()
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def _processor() -> str:
    """What ``native`` means here: model and instruction sets."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kept = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(line for line in first.splitlines() if line.startswith(kept))


def _digest(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()


def _whole(library: Path) -> bool:
    """Mapping a truncated library would kill the process, so its checksum is compared first."""
    try:
        return library.with_suffix(".sha256").read_text() == _digest(library)
    except OSError:
        return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released with the file, also when the process dies
        yield


def _build(library: Path, steps: Sequence[Step], link: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        work = Path(folder)
        (work / "build.ninja").write_text(_ninja_file(library.name, steps, link))
        run = subprocess.run(
            [_ninja(), "-C", folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},  # so that `_cause` finds the word error
        )
        if run.returncode != 0:
            raise BuildError(f"{library.stem} does not build: {_cause(run.stdout)}")
        (work / "sha256").write_text(_digest(work / library.name))
        # The library first: a checksum without its library is never taken for a whole one.
        (work / library.name).replace(library)
        (work / "sha256").replace(library.with_suffix(".sha256"))


def _ninja_file(output: str, steps: Sequence[Step], link: Sequence[str]) -> str:
    rules, edges, objects = [], [], []
    for i, step in enumerate(steps):
        rules.append(f"rule compile{i}\n  command = {_escape(step.command)} -c $in -o $out\n")
        source = str(step.source.resolve()).replace("$", "$$").replace(":", "$:")
        edges.append(f"build {i}.o: compile{i} {source.replace(' ', '$ ')}\n")
        objects.append(f"{i}.o")
    # Objects before libraries: some linkers drop a library that nothing before it needs.
    compiler, *flags = link
    rules.append(f"rule link\n  command = {_escape([compiler])} $in {_escape(flags)} -o $out\n")
    return "".join([*rules, *edges, f"build {output}: link {' '.join(objects)}\n"])


def _escape(command: Sequence[str]) -> str:
    return shlex.join(command).replace("$", "$$")


def _ninja() -> str:
    """The program of the ``ninja`` package, which need not be in PATH, or the system's."""
    with contextlib.suppress(ImportError):
        import ninja

        program = Path(ninja.BIN_DIR) / "ninja"
        if program.exists():
            return str(program)
    if found := shutil.which("ninja"):
        return found
    raise BuildError("no ninja: install the package ninja")


def _cause(output: str) -> str:
    """The line of a failed build that says most."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for line in lines:
        if "error" in line.lower():
            return line
    return lines[-1] if lines else "no output"
