"""Chunks and hypotheses of known alignment, for tests of quality and stitching."""

import numpy as np
import torch

from las.decoding.hypothesis import Hypothesis
from las.text.characters import EOS, Characters
from las.transcription.chunking import Chunk

RATE = 1000
TEXT = Characters()
FRAME = 0.04


def hypothesis(text: str, times: list[float], seconds: float, finished: bool = True) -> Hypothesis:
    """Characters attended at these times of a chunk; the end of sentence at its end."""
    ids = [*TEXT.encode(text), *([EOS] if finished else [])]
    times = [*times, *([seconds] if finished else [])]
    columns = int(np.ceil(seconds / FRAME))
    alignment = torch.zeros(len(ids), 1, columns)
    for row, time in enumerate(times):
        alignment[row, 0, min(columns - 1, int(time / FRAME))] = 1.0
    return Hypothesis(
        text,
        -1.0,
        finished,
        alignment,
        torch.tensor(ids),
        -torch.arange(len(ids)) / 10,
        ctc_times=torch.tensor(times),
    )


def spread(text: str, start: float, end: float) -> list[float]:
    return np.linspace(start, end, len(text) + 2)[1:-1].tolist()


def chunk(seconds: float, start: float = 0.0, overlap: float = 0.0, speech=None) -> Chunk:
    size = round(seconds * RATE)
    mask = np.ones(size // 10 + 1, bool) if speech is None else speech
    samples = np.ones(size, np.float32)
    return Chunk(round(start * RATE), samples, mask, round(overlap * RATE))
