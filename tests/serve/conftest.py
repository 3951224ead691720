"""Recordings of whistles, and a small model that transcribes them."""

import numpy as np
import pytest
import soundfile
import torch
from speech import RATE, sentences, small_model, whistle

from las.transcription.chunking import ChunkingConfig
from las.transcription.transcriber import Transcriber
from las.transcription.word_timestamps import timed_words


@pytest.fixture(scope="package")
def transcriber():
    """Of random weights: the same sounds always give the same text. Chunks are of seconds."""
    limits = ChunkingConfig(max_seconds=4, target_seconds=2, min_seconds=0.5, overlap_seconds=0.5)
    return Transcriber(small_model(), torch.device("cpu"), chunking=limits, timer=timed_words)


@pytest.fixture(scope="package")
def sounds(tmp_path_factory):
    """Recordings of 0.5 to 10 s."""
    folder = tmp_path_factory.mktemp("sounds")
    paths = []
    for index, text in enumerate(sentences(6, seed=9)):
        paths.append(folder / f"{index}.wav")
        samples = np.concatenate([whistle(text, index + n) for n in range(1 + index % 3 * 3)])
        soundfile.write(paths[-1], samples, RATE)
    return paths


@pytest.fixture(scope="package")
def alone(transcriber, sounds):
    """The text of each recording, transcribed alone."""
    found = {path: next(iter(transcriber.files([path]))) for path in sounds}
    assert len({transcript.text for transcript in found.values()}) > 2
    return found


@pytest.fixture(scope="module")
def worker(transcriber):
    from las.serve.metrics import Metrics  # need the extra [serve], without which tests are skipped
    from las.serve.worker import Worker

    worker = Worker(transcriber, Metrics())
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture
def service(worker):
    from las.serve.service import Service
    from tests.serve.client import LIMITS

    return Service(worker, ["small", "whisper-1"], worker.metrics, LIMITS)
