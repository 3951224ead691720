"""What the training loops of the recogniser and of the language model share.

The position in the training, the learning rate, and optimizer steps that survive a bad gradient.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from torch.optim import Optimizer

from las.errors import LASError


@dataclass
class Position:
    """Where a training is; saved in its checkpoint beside weights and optimizer.

    Attributes:
        step: Optimizer steps so far, skipped ones included.
        epoch: Complete epochs.
        batches: Batches of the current epoch.
        skipped: Steps that were skipped because their gradient was not finite.
        in_a_row: Steps skipped since the last one that was not.
    """

    step: int = 0
    epoch: int = 0
    batches: int = 0
    skipped: int = 0
    in_a_row: int = 0


def learning_rate(
    step: int, progress: float, *, peak: float, warmup: int, hold: float = 0.0, final_rate: float
) -> float:
    """Linear warm-up over steps, then a hold, then cosine decay over the rest of the training.

    Args:
        step: optimizer steps so far.
        progress: share of the training that is done, 0 to 1.
        peak: learning rate after the warm-up.
        warmup: steps from 0 to the peak.
        hold: share of the training before the decay.
        final_rate: learning rate at the end, as a share of the peak.
    """
    warm = min(1.0, (step + 1) / warmup) if warmup else 1.0
    done = max(0.0, min(1.0, (progress - hold) / max(1e-9, 1.0 - hold)))
    decay = final_rate + (1 - final_rate) * 0.5 * (1 + math.cos(math.pi * done))
    return peak * warm * decay


def optimizer_step(
    optimizer: Optimizer, rate: float, norm: float, position: Position, limit: int, output: Path
) -> bool:
    """Take one optimizer step, or skip and count it if the gradient is not finite.

    Args:
        optimizer: its gradients are clipped already.
        rate: learning rate.
        norm: of the gradient.
        position: counts the step.
        limit: skipped steps in a row that end the training.
        output: folder of the training, for the message.

    Returns:
        whether the step was taken.

    Raises:
        LASError: the limit is reached.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    if math.isfinite(norm):
        optimizer.step()
        position.in_a_row = 0
    else:
        position.skipped += 1
        position.in_a_row += 1
        if position.in_a_row >= limit:
            raise LASError(
                f"{output}: {position.in_a_row} steps in a row had a gradient that is not finite; "
                "lower training.learning_rate or check the data"
            )
    position.step += 1
    return not position.in_a_row
