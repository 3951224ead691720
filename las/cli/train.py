"""The command ``las train``."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from las.imports import frozen_imports


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
) -> None:
    """Train a model; the same command resumes an interrupted training.

    On several machines: torchrun --nnodes 2 --nproc-per-node 8 ... -m las train CONFIG.yaml
    """
    with frozen_imports():
        from las.training.finetuning import load

    settings = load(config, overrides or [])
    if processes > 1:
        from las.training.launch import run_together

        raise typer.Exit(run_together(processes, ["train", str(config), *(overrides or [])]))

    with frozen_imports():
        import torch
        import torch.distributed as dist

        from las.training.trainer import InterruptedTrainingError, Trainer

    distributed = "LOCAL_RANK" in os.environ
    if distributed:
        cuda = torch.cuda.is_available() and settings.training.device != "cpu"
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if cuda else "gloo")
    try:
        Trainer(settings).run()
    except InterruptedTrainingError as error:
        print(f"interrupted: {error}", file=sys.stderr)
        raise typer.Exit(130) from None
    finally:
        if distributed:
            dist.destroy_process_group()
