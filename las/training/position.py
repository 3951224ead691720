"""Where the training of a recogniser is; see :class:`las.optimization.Position`."""

from dataclasses import dataclass, field

from las.optimization import Position


@dataclass
class TrainingPosition(Position):
    """Where a training is.

    ``batches`` are those of all processes.

    Attributes:
        seen: Utterances of the current epoch so far.
        best: Word error rate on the dev set, percent, and number of each epoch, the best first.
        before: Word error rate on the dev set of the model that a fine-tuning started from.
    """

    seen: int = 0
    best: list[tuple[float, int]] = field(default_factory=list)
    before: float | None = None
