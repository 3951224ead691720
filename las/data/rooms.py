"""Reverberation for training: speech as a room carries it to a microphone.

The rooms are simulated by lhotse (FRA-RIR, Luo and Gu 2022). Making one takes longer than passing
an utterance through it, so there is a fixed number of them.
"""

import functools

import numpy as np
import torch

ROOMS = 64


@functools.lru_cache(maxsize=ROOMS)
def impulse_response(room: int, sample_rate: int) -> np.ndarray:
    """A room's response to an impulse, float32 [N], direct sound first and of amplitude 1.

    Args:
        room: its number, 0 to :data:`ROOMS` - 1.
        sample_rate: in Hz.
    """
    from lhotse.augmentation.utils import FastRandomRIRGenerator

    generator = FastRandomRIRGenerator(sr=sample_rate, room_seed=room, source_seed=room)
    with torch.random.fork_rng(devices=[]):  # some of its draws are from torch's generator
        torch.manual_seed(room)
        response = generator(1)[0]
    first = int(np.abs(response).argmax())
    return (response[first:] / response[first]).astype(np.float32)


def add_room(samples: np.ndarray, sample_rate: int, room: int) -> np.ndarray:
    """Samples [S] as they sound in a room, aligned with the direct sound and as loud as before.

    Args:
        samples: float32 [S].
        sample_rate: in Hz.
        room: its number.
    """
    from scipy.signal import oaconvolve  # slow to import, and few trainings have rooms

    heard = oaconvolve(samples, impulse_response(room, sample_rate))[: len(samples)]
    power = np.square(heard).mean()
    if power > 0:
        heard *= np.sqrt(np.square(samples).mean() / power)
    return heard.astype(np.float32)
