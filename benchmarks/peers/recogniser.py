"""A recogniser in a process of its own, and what it answers; see hearing.py for the other side."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.peers.hearing import request
from las.errors import LASError


class Recogniser:
    """A program that transcribes on request, with one thread.

    Args:
        name: for messages; ``las`` has this project's modules, others have their own alone.
        command: what to start.

    Raises:
        LASError: it ends instead of answering.
    """

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if name != "las":
            environment.pop("PYTHONPATH", None)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as this)
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self.about = self._read()

    def hear(self, pcm: bytes) -> dict[str, Any]:
        """What was said in samples, int16 at 16 kHz: ``text``, and ``cpu_s`` that it took."""
        assert self._process.stdin is not None
        try:
            print(request(pcm), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise self._died() from None
        return self._read()

    def close(self) -> None:
        """End the program."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._errors.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        return dict(json.loads(line))

    def _died(self) -> LASError:
        self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines() or ["no message"]
        return LASError(f"{self.name}: the recogniser has died: {said[-1]}")
