"""This project with a model folder, its argument; run by benchmarks/peers/score.py."""

import sys
from collections.abc import Callable

import numpy as np
import torch

import las
from benchmarks.peers.hearing import RATE, serve
from las.decoding.search import describe


def prepare(folder: str) -> tuple[str, Callable[[bytes], str]]:
    """What it is, and what transcribes mono samples, int16 at 16 kHz."""
    recognizer = las.load(folder, device="cpu")
    name = None if recognizer.lm is None else "its own"

    def transcribe(pcm: bytes) -> str:
        samples = np.frombuffer(pcm, "<i2").astype(np.int16)
        return recognizer.transcribe(samples, sample_rate=RATE, word_timestamps=False).text

    how = f"the search stored with the model ({describe(recognizer.config, name)}), one thread"
    return f"listen-attend-spell {las.__version__}, {how}", transcribe


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(["torch"], *prepare(sys.argv[1]))
