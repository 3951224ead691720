"""Reverberation for training.

The rooms are simulated by lhotse (FRA-RIR, Luo and Gu 2022). Simulating one takes longer than
applying it to an utterance, so there is a fixed number of rooms.
"""

import functools

import numpy as np
import torch

ROOMS = 64


@functools.lru_cache(maxsize=ROOMS)
def impulse_response(room: int, sample_rate: int) -> np.ndarray:
    """Impulse response of a room, float32 [N]; direct sound first, with amplitude 1.

    Args:
        room: its number, 0 to :data:`ROOMS` - 1.
        sample_rate: in Hz.
    """
    from lhotse.augmentation.utils import FastRandomRIRGenerator

    generator = FastRandomRIRGenerator(sr=sample_rate, room_seed=room, source_seed=room)
    with torch.random.fork_rng(devices=[]):  # it also uses torch's generator
        torch.manual_seed(room)
        response = generator(1)[0]
    first = int(np.abs(response).argmax())
    return (response[first:] / response[first]).astype(np.float32)


def add_room(samples: np.ndarray, sample_rate: int, room: int) -> np.ndarray:
    """Samples [S] with the reverberation of a room, aligned with the direct sound, of equal power.

    Args:
        samples: float32 [S].
        sample_rate: in Hz.
        room: its number.
    """
    from scipy.signal import oaconvolve  # slow to import

    reverberant = oaconvolve(samples, impulse_response(room, sample_rate))[: len(samples)]
    power = np.square(reverberant).mean()
    if power > 0:
        reverberant *= np.sqrt(np.square(samples).mean() / power)
    return reverberant.astype(np.float32)
