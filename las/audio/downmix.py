"""Downmix to mono: the average of the channels, unless they would cancel each other.

The average of a channel and its inverse (a microphone with swapped wires) is silence. The polarity
of such channels is inverted first.
"""

from collections.abc import Iterable, Iterator

import numpy as np

_UNIT_SECONDS = 0.5  # unit of the decision, counted from the start of the recording
# The average of unrelated channels has 1 / channels of their power; a tenth of that is cancelled.
_CANCELLED = 0.1
_FLOOR = 1e-10  # mean square, -100 dB of full scale; lower levels are not checked


def mono(blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Average the channels of every block; the result does not depend on the blocks.

    Args:
        blocks: float32 [n, channels].
        rate: of the samples, in Hz.

    Yields:
        float32 [n].
    """
    size = max(1, round(_UNIT_SECONDS * rate))
    mixer = _Mixer()
    rest: np.ndarray | None = None
    for block in blocks:
        if block.shape[1] == 1:
            yield np.mean(block, axis=1)
            continue
        held = block if rest is None else np.concatenate([rest, block])
        whole = len(held) - len(held) % size
        if whole:
            yield np.concatenate([mixer.mix(held[i : i + size]) for i in range(0, whole, size)])
        rest = held[whole:]
    if rest is not None and len(rest):
        yield mixer.mix(rest)


class _Mixer:
    """The polarity of the channels, decided at the last unit that was cancelled."""

    def __init__(self) -> None:
        self.signs: np.ndarray | None = None

    def mix(self, unit: np.ndarray) -> np.ndarray:
        """The average [n] of a unit [n, channels]."""
        mixed = self._mean(unit)
        power = float(np.mean(np.square(unit)))
        if power > _FLOOR and np.mean(np.square(mixed)) < _CANCELLED * power / unit.shape[1]:
            loudest = unit[:, np.square(unit).sum(0).argmax()]
            self.signs = np.where(loudest @ unit < 0, -1, 1).astype(np.float32)
            mixed = self._mean(unit)
        return mixed

    def _mean(self, unit: np.ndarray) -> np.ndarray:
        return np.mean(unit if self.signs is None else unit * self.signs, axis=1)
