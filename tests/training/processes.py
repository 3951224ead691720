"""Several processes of one group, forked from one that has imported torch and done nothing else.

A fork of a test's process would inherit the threads of autograd, with which it then refuses to
work.
"""

import datetime
import multiprocessing
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

_SERVED = multiprocessing.get_context("forkserver")
_SERVED.set_forkserver_preload(["las.training.trainer"])


def together(world: int, folder: Path, work: Callable[[int], object], seconds: float = 60) -> list:
    """What ``work(rank)`` gives in each process; an exception is given, too.

    None stands for a process that ended otherwise. The work is a function of a module, or a partial
    of one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    children = [
        _SERVED.Process(target=_work, args=(world, rank, folder, work, seconds))
        for rank in range(world)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    results = [folder / f"result{rank}" for rank in range(world)]
    return [pickle.loads(path.read_bytes()) if path.exists() else None for path in results]


def _work(world, rank, folder, work, seconds):
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
