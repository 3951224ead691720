"""A failure stays with its file: after a failed batch, files are decoded one by one."""

from pathlib import Path

import pytest
import torch

from las.transcription.isolation import transcribe_with_isolation
from las.transcription.transcript import Failure, Transcript

PATHS = [Path(f"{index}.wav") for index in range(100)]


class Fake:
    """Decodes batches of 8 files of a second each, and fails as told."""

    def __init__(self, fails=(), error=None, size=8):
        self.fails = {Path(f"{index}.wav") for index in fails}
        self.error = error or RuntimeError("CUDA error:\nan illegal access")
        self.size, self.calls = size, 0

    def files(self, paths, *, batch_size=None, progress=None, ready=None):
        size = min(self.size, batch_size or self.size)
        for start in range(0, len(paths), size):
            batch = paths[start : start + size]
            self.calls += 1
            if self.fails & set(batch):
                raise self.error
            if progress is not None:
                progress(float(start + len(batch)))
            for path in batch:
                yield Transcript(path, 1.0, [])


@pytest.mark.parametrize("fails", [(), (0,), (99,), (3, 4, 40), range(0, 100, 7), range(100)])
def test_what_fails_is_found_and_the_others_go_on(fails):
    fake = Fake(fails)
    seconds = []
    results = list(transcribe_with_isolation(fake, PATHS, None, seconds.append))
    assert [result.path for result in results] == PATHS
    failed = [i for i, result in enumerate(results) if isinstance(result, Failure)]
    assert failed == list(fails)
    assert max(seconds, default=0) == 100 - len(failed) and seconds == sorted(seconds)
    for result in results:
        if isinstance(result, Failure):
            assert result.reason.startswith(f"{result.path}: decoding failed (RuntimeError: CUDA")
            assert len(result.reason.splitlines()) == 1 and "try it alone" in result.reason


def test_after_a_failure_batches_come_back():
    fake = Fake([0])
    list(transcribe_with_isolation(fake, PATHS))
    # The batch, the file alone, and the other 99 in batches of 8 again.
    assert fake.calls == 1 + 1 + 13


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")]
)
def test_memory(error):
    results = list(transcribe_with_isolation(Fake([5], error), PATHS))
    assert "not enough memory" in results[5].reason
    assert sum(isinstance(result, Failure) for result in results) == 1


@pytest.mark.parametrize("error", [TypeError("x"), AssertionError("x"), KeyboardInterrupt()])
def test_errors_of_the_program_and_interrupts_are_not_hidden(error):
    done, seconds = [], []
    with pytest.raises(type(error)):
        done.extend(transcribe_with_isolation(Fake([50], error), PATHS, None, seconds.append))
    assert seconds[-1] == 48


def test_the_size_of_batches_is_passed_on():
    fake = Fake()
    list(transcribe_with_isolation(fake, PATHS, 2))
    assert fake.calls == 50
