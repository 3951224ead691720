"""Several processes of one group, forked from this one, which has imported torch."""

import datetime
import os
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist


def together(world: int, folder: Path, work: Callable[[int], object], seconds: float = 60) -> list:
    """What ``work(rank)`` gives in each process; an exception is given, too.

    None stands for a process that ended otherwise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    children = []
    for rank in range(world):
        child = os.fork()
        if not child:
            _work(world, rank, folder, work, seconds)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    results = [folder / f"result{rank}" for rank in range(world)]
    return [pickle.loads(path.read_bytes()) if path.exists() else None for path in results]


def _work(world, rank, folder, work, seconds):
    status = 1
    try:
        limit = datetime.timedelta(seconds=seconds)
        meeting = dist.FileStore(str(folder / "meet"), world)
        dist.init_process_group("gloo", store=meeting, rank=rank, world_size=world, timeout=limit)
        try:
            result = work(rank)
        except Exception as error:
            traceback.print_exc()
            result = error
        (folder / f"part{rank}").write_bytes(pickle.dumps(result))
        (folder / f"part{rank}").rename(folder / f"result{rank}")
        status = 0
    finally:
        os._exit(status)
