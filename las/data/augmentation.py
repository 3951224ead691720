"""Augmentation of training utterances; the random choices depend on (seed, epoch, utterance).

In the physical order: speed, room, noise, volume, codec. A share of the utterances can be replaced
by sounds that are not speech, with an empty transcript; a share can be joined into longer ones.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.utils import fastcopy

from las.config import DataConfig
from las.data.codec import KILOBITS, through_mp3
from las.data.noise import add_random_noise, random_sound
from las.data.rooms import ROOMS, add_room

GAINS = (-30.0, 6.0)  # dB, range of `data.volume`
JOINED_SECONDS = (6.0, 20.0)  # shortest and longest joined utterance, approximately
GAPS = (0.1, 0.9)  # seconds of silence between two utterances
_BUFFER = 32  # utterances that are held to be joined


def draw(kind: str, seed: int, epoch: int, cut: Cut) -> int:
    """A pseudo-random 32-bit number that depends on the arguments."""
    return zlib.crc32(f"{kind} {seed} {epoch} {cut.id}".encode())


def _selected(kind: str, share: float, seed: int, epoch: int, cut: Cut) -> bool:
    return draw(kind, seed, epoch, cut) < share * 2**32


def text_of(cut: Cut) -> str:
    """The transcript of a cut; of a joined cut those of its parts."""
    return " ".join(supervision.text for supervision in cut.supervisions if supervision.text)


def perturb_speed(cut: Cut, speeds: list[float], seed: int, epoch: int) -> Cut:
    """A cut at one of the speeds, drawn by (seed, epoch, utterance)."""
    # Without a kind, as in older versions, so that their trainings can be repeated.
    speed = speeds[zlib.crc32(f"{seed} {epoch} {cut.id}".encode()) % len(speeds)]
    return cut if speed == 1.0 else cut.perturb_speed(speed)


def drop_transcript(cut: Cut, share: float, seed: int, epoch: int) -> Cut:
    """Drop the transcript of a share of the cuts, so that :func:`distort` replaces their audio."""
    if not _selected("silence", share, seed, epoch, cut):
        return cut
    return cut.map_supervisions(partial(fastcopy, text=""))


def mp3_kilobits(cut: Cut, share: float, seed: int, epoch: int) -> int:
    """MP3 bit rate in kbit/s for a share of the cuts, else 0; by (seed, epoch, utterance)."""
    drawn = draw("mp3", seed, epoch, cut)
    return KILOBITS[drawn % len(KILOBITS)] if drawn < share * 2**32 else 0


def distort(
    cut: Cut, samples: np.ndarray, config: DataConfig, sample_rate: int, seed: int, epoch: int
) -> np.ndarray:
    """Samples [S] with room, noise, gain and MP3 codec applied, each with its probability."""
    if not text_of(cut):
        random = np.random.default_rng(draw("sound", seed, epoch, cut))
        samples = random_sound(len(samples), sample_rate, random)
    if _selected("room", config.rooms, seed, epoch, cut):
        samples = add_room(samples, sample_rate, draw("room", seed, epoch, cut) % ROOMS)
    drawn = draw("noise", seed, epoch, cut)
    if drawn < config.noise * 2**32:
        samples = add_random_noise(samples, np.random.default_rng(drawn))
    if _selected("volume", config.volume, seed, epoch, cut):
        random = np.random.default_rng(draw("volume", seed, epoch, cut))
        gain = np.float32(10 ** (random.uniform(*GAINS) / 20))
        samples = np.clip(samples * gain, -1, 1)  # as an overdriven recorder does
    kilobits = mp3_kilobits(cut, config.mp3, seed, epoch)
    return through_mp3(samples, sample_rate, kilobits) if kilobits else samples


@dataclass
class Joined:
    """A set of cuts in which a share of the short ones is joined into longer ones.

    Half of the joined cuts consist of neighbours in the manifest, mostly of one speaker, the others
    of random cuts. Only a few cuts are held in memory.

    Args:
        cuts: utterances.
        share: of the cuts under 6 s that are joined.
        seed: of the training.
        epoch: counted from 0.
    """

    cuts: CutSet
    share: float
    seed: int
    epoch: int

    def __iter__(self) -> Iterator[Cut]:
        random = np.random.default_rng([self.seed, self.epoch])
        waiting: list[Cut] = []
        for cut in self.cuts:
            short = cut.duration < JOINED_SECONDS[0] and text_of(cut)
            if not (short and _selected("join", self.share, self.seed, self.epoch, cut)):
                yield cut
                continue
            waiting.append(cut)
            if len(waiting) == _BUFFER:
                yield self._join(waiting, random)
        while waiting:
            yield self._join(waiting, random)

    def _join(self, waiting: list[Cut], random: np.random.Generator) -> Cut:
        """Remove the first cut from the list, and others that fit, and join them."""
        found = waiting.pop(0)
        limit = random.uniform(*JOINED_SECONDS)
        neighbours = random.random() < 0.5
        while waiting:
            index = 0 if neighbours else int(random.integers(len(waiting)))
            gap = random.uniform(*GAPS)
            if found.duration + gap + waiting[index].duration > limit:
                break
            found = append_after(found, gap, waiting.pop(index))
        return found


def append_after(cut: Cut, gap: float, other: Cut) -> Cut:
    """A cut with another after it, and seconds of silence between them."""
    cut = cut.pad(cut.duration + gap, preserve_id=True)
    return cut.append(other, preserve_id="left")


def join(cuts: CutSet, share: float, seed: int, epoch: int) -> CutSet:
    """The set with a share of its short utterances joined."""
    return CutSet(Joined(cuts, share, seed, epoch)) if share else cuts
