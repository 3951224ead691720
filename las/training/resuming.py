"""What a training goes on from: position, batches of a step, and what may have changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from las.config import RunConfig
from las.storage import checkpoint, settings_diff
from las.training.distributed import DistributedGroup
from las.training.position import TrainingPosition

# Settings that may change when a training is resumed: paths, hardware, how often it validates and
# saves, an average that does not act on the training, and its length. The learning rate then
# follows the new number of epochs.
_RESUMABLE_CHANGES = frozenset(
    [
        "data.train",
        "data.dev",
        "data.cache",
        "data.cache_gigabytes",
        "data.workers",
        "training.output",
        "training.epochs",
        "training.moving_average",
        "training.threads",
        "training.device",
        "training.evaluate_every",
        "training.checkpoint_minutes",
        "training.peer_minutes",
    ]
)


@dataclass(frozen=True)
class Resumed:
    """A training state, checked against the settings of the run.

    Attributes:
        model: Weights by name.
        optimizer: State of the optimizer.
        average: State of the moving average, if there was one.
        position: Where the training is.
        step_batches: Batches of an optimizer step, over all processes.
        changed: Whether settings differ from those of the state.
        lines: What there is to say.
    """

    model: dict[str, Any]
    optimizer: dict[str, Any]
    average: dict[str, Any] | None
    position: TrainingPosition
    step_batches: int
    changed: bool
    lines: list[str]


def read(
    path: Path, config: RunConfig, group: DistributedGroup, step_batches: int
) -> Resumed | None:
    """Read the training state, if there is one; the first process does it for all.

    Args:
        path: of the state.
        config: of the run.
        group: processes of the training; their number may be another than before.
        step_batches: batches of an optimizer step by the settings.

    Raises:
        LASError: the state is damaged, or of a training with other settings.
    """
    found = group.from_first(
        lambda: checkpoint.load_last(path) if checkpoint.exists(path) else None
    )
    if found is None:
        return None
    state, damage = found
    world, batches = sharing(state)
    free = _RESUMABLE_CHANGES
    if step_batches == batches:  # other processes, each with another number of batches
        free = free | {"training.accumulate"}
    changed = settings_diff.check(config, state.get("config"), path, free)
    values = state["position"]
    position = TrainingPosition(**{**values, "best": [(wer, n) for wer, n in values["best"]]})
    lines = [damage] if damage else []
    if changed:
        lines.append(f"resumes with changed settings: {settings_diff.shown(changed)}")
    if "step_batches" not in state and world > 1 and position.batches:
        position.batches *= world  # they were those of one process
        lines.append("of an earlier version: the rest of this epoch is in another order")
    lines += resharing(world, group.world, batches)
    return Resumed(
        model=state["model"],
        optimizer=state["optimizer"],
        average=state.get("average"),
        position=position,
        step_batches=batches,
        changed=bool(changed),
        lines=lines,
    )


def sharing(state: Mapping[str, Any]) -> tuple[int, int]:
    """The number of processes that wrote a training state, and of the batches of a step.

    In states of earlier versions each process had ``accumulate`` batches.
    """
    world = int(state.get("world", 1))
    if "step_batches" in state:
        return world, int(state["step_batches"])
    try:
        accumulate = int(yaml.safe_load(state["config"])["training"]["accumulate"])
    except (KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError):
        accumulate = 1
    return world, world * accumulate


def resharing(before: int, now: int, batches: int) -> list[str]:
    """What there is to say when a training goes on with another number of processes.

    Args:
        before: number of processes until now.
        now: number of processes.
        batches: of an optimizer step, which stay.
    """
    if before == now:
        return []
    some = f"{now} process" if now == 1 else f"{now} processes"
    line = f"{some} in place of {before}: a step has {batches} batches as before"
    if now > batches:
        line += f", so that {now - batches} processes have nothing to do"
    elif batches % now:
        line += ", not the same number for each"
    return [line]
