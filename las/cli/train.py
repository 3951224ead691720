"""The command ``las train``."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from las.errors import LASError
from las.imports import frozen_imports
from las.standard_streams import complain

if TYPE_CHECKING:
    from las.config import RunConfig


def train(
    config: Annotated[Path, typer.Argument(help="YAML file of settings.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings that replace those of the file, e.g. training.epochs=3",
        ),
    ] = None,
    processes: Annotated[
        int,
        typer.Option(
            min=1, help="Number of processes: one per GPU, or one per one or two CPU cores."
        ),
    ] = 1,
    nodes: Annotated[
        str, typer.Option(help="Number of machines, or a range FEWEST:MOST of them.")
    ] = "1",
    rendezvous: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Address of one of the machines, for all to meet."),
    ] = "",
    restarts: Annotated[
        int,
        typer.Option(min=0, help="Times to go on from the last checkpoint after a process failed."),
    ] = 0,
) -> None:
    """Train a model; the same command resumes an interrupted training.

    On several machines, run the same command on each, with --nodes and
    --rendezvous, or by torchrun --nnodes: see docs/distributed.md.
    """
    with frozen_imports():
        from las.training.finetuning import load

    settings = load(config, overrides or [])
    if processes > 1 or nodes != "1" or restarts:
        from las.training.launch import Machines, run_together

        machines = Machines.from_options(nodes, rendezvous, restarts)
        arguments = ["train", str(config), *(overrides or [])]
        raise typer.Exit(run_together(processes, arguments, machines))
    if "LOCAL_RANK" in os.environ:
        _one_of_several(settings)
        return

    with frozen_imports():
        from las.training.trainer import InterruptedTrainingError, Trainer

    try:
        Trainer(settings).run()
    except InterruptedTrainingError as error:
        print(f"interrupted: {error}", file=sys.stderr)
        raise typer.Exit(130) from None


def _one_of_several(settings: "RunConfig") -> None:
    """Train as one of the processes of a launcher; what ends all of them is said once."""
    with frozen_imports():
        import torch

        from las.runtime import end_with_parent
        from las.training import distributed
        from las.training.trainer import InterruptedTrainingError, Trainer

    end_with_parent()
    cuda = torch.cuda.is_available() and settings.training.device != "cpu"
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store = None
    try:
        with distributed.joined(cuda, settings.training.peer_minutes) as store:
            Trainer(settings).run()
    except LASError as error:
        interrupted = isinstance(error, InterruptedTrainingError)
        line = f"{'interrupted' if interrupted else 'error'}: {error}"
        distributed.report(line, isinstance(error, distributed.LostProcessError))
        if distributed.first_to_say(store, line):
            complain(line)
        raise typer.Exit(130 if interrupted else 1) from None
