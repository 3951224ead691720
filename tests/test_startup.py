"""What a short command costs in processor time, and what it must not import."""

import resource
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import soundfile

from las import imports

UNUSED = ("librosa", "numba", "lhotse", "matplotlib", "tensorboard", "scipy", "triton")


def spent(code: str) -> tuple[float, str]:
    """Seconds of processor time that a process of Python takes, and what it prints."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, done.stdout


def command(*arguments: str) -> str:
    return (
        "import atexit, sys\n"
        "from las.cli.main import main\n"
        f"sys.argv = {['las', *arguments]!r}\n"
        f"unused = {UNUSED!r} + ('torch._dynamo',)\n"
        "atexit.register(lambda: print([m for m in unused if m in sys.modules]))\n"
        "main()"
    )


def soon(within: Callable[[], bool]) -> bool:
    """Whether it holds once in three tries: the first may build the kernels or read a cold disk."""
    return any(within() for _ in range(3))


def test_transcribing_costs_little_more_than_importing_torch(tmp_path):
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, 0.1 * np.random.default_rng(0).standard_normal(32000), 16000)

    def within() -> bool:
        least, _ = spent("import torch, torchaudio")
        used, printed = spent(command("transcribe", str(clip)))
        assert printed.endswith("[]\n"), printed
        return used <= 1.6 * least

    assert soon(within)


def test_help_is_quick():
    assert soon(lambda: spent(command("--help"))[0] < 0.5)


@pytest.mark.parametrize("on", [True, False])
def test_imports_leave_the_collector_as_it_was(monkeypatch, on):
    calls = []
    for name in ("disable", "freeze", "enable"):
        monkeypatch.setattr(imports.gc, name, lambda name=name: calls.append(name))
    monkeypatch.setattr(imports.gc, "isenabled", lambda: on)
    with imports.frozen_imports():  # torch is here already
        assert calls == []
    monkeypatch.delitem(sys.modules, "torch")
    with pytest.raises(KeyError), imports.frozen_imports():
        raise KeyError
    assert calls == (["disable", "freeze", "enable"] if on else [])
