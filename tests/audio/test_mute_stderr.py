"""C's standard error is silent while asked for, Python's never."""

import ctypes
import os
import sys
import threading

import numpy as np
import pytest
import soundfile

from las.audio import mute_stderr
from las.audio.sndfile import _Reader

if mute_stderr._streams() is None:
    pytest.skip("C's standard error is left alone here", allow_module_level=True)


def c_print(text: bytes) -> None:
    library = ctypes.CDLL(None)
    name = "stderr" if sys.platform == "linux" else "__stderrp"
    library.fputs(text, ctypes.c_void_p.in_dll(library, name))


def test_c_is_silent_and_python_is_not(capfd):
    c_print(b"before,")
    with mute_stderr.c_stderr():
        c_print(b"not heard,")
        os.write(2, b"python,")
    c_print(b"after")
    assert capfd.readouterr().err == "before,python,after"


def test_an_error_ends_the_silence(capfd):
    with pytest.raises(ValueError), mute_stderr.c_stderr():
        raise ValueError
    c_print(b"after")
    assert capfd.readouterr().err == "after"


def test_the_last_thread_that_leaves_ends_the_silence(capfd):
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with mute_stderr.c_stderr():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with mute_stderr.c_stderr():
        thread.start()
        inside.wait()
    c_print(b"not heard,")
    leave.set()
    thread.join()
    c_print(b"after")
    assert capfd.readouterr().err == "after"


def test_a_damaged_mp3_prints_nothing(tmp_path, capfd):
    path = tmp_path / "a.mp3"
    tone = np.sin(np.arange(32000) / 10).astype(np.float32)
    soundfile.write(path, tone, 16000)
    data = bytearray(path.read_bytes())
    data[1000:1200] = b"\x55" * 200
    path.write_bytes(data)
    with soundfile.SoundFile(path) as file:
        file.read(32000)
    assert "Illegal Audio-MPEG-Header" in capfd.readouterr().err  # the test can fail
    with _Reader(os.fsencode(path)) as file:
        file.read(32000)
    assert capfd.readouterr().err == ""
