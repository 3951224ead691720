"""What processes that train together agree on, with two that really run."""

import os
import signal
import time
from datetime import timedelta
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn

from las.errors import LASError
from las.training.distributed import LOST, DistributedGroup, LostProcessError, first_to_say
from tests.training.processes import together

CPU = torch.device("cpu")


def agreements(rank):
    group = DistributedGroup(CPU)
    found = {
        "rank": group.rank,
        "first": group.first,
        "total": group.total([rank + 5, 0.5]),
        "any": group.any(rank == 0, False, rank == 1, True),
        "gathered": group.gather({"rank": rank}),
        "made": group.from_first(lambda: [rank, torch.ones(2)])[0],
    }
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.fill_(rank + 1.0)
    unused = nn.Parameter(torch.zeros(1))
    parameters = [unused, *model.parameters()]
    if rank:  # the first has had no batch
        model(torch.tensor([[1.0, 3.0]])).sum().backward()
    used = [int(n) for n in group.total([float(p.grad is not None) for p in parameters])]
    group.add_gradients(parameters, used)
    found["gradients"] = [None if p.grad is None else p.grad.tolist() for p in parameters]
    group.copy_first([model.weight])
    found["weight"] = model.weight.tolist()
    for name, wrong in (("second", 1), ("both", -1), ("neither", 2)):
        try:
            with group.together():
                if wrong in (rank, -1):
                    raise LASError(f"of {rank}")
            found[name] = None
        except LASError as error:
            found[name] = str(error)
    with pytest.raises(LASError, match="only the first"):
        group.from_first(lambda: fail("only the first"))
    group.barrier()
    return found


def fail(message):
    raise LASError(message)


def test_two_agree(tmp_path):
    one, other = together(2, tmp_path, agreements)
    assert (one.pop("rank"), other.pop("rank")) == (0, 1)
    assert (one.pop("first"), other.pop("first")) == (True, False)
    assert one == other
    assert one == {
        "total": [11, 1.0],
        "any": [True, False, True, True],
        "gathered": [{"rank": 0}, {"rank": 1}],
        "made": 0,
        "gradients": [None, [[1.0, 3.0]], [1.0]],
        "weight": [[1.0, 1.0]],
        "second": "of 1",
        "both": "of 0",
        "neither": None,
    }


def lost(error, words):
    assert isinstance(error, LostProcessError)
    assert str(error).startswith(f"{LOST} {words}") and len(str(error).splitlines()) == 1


def lose(rank):
    group = DistributedGroup(CPU)
    group.barrier()
    if rank:
        os.kill(os.getpid(), signal.SIGKILL)
    group.barrier()


def test_a_process_that_is_gone_is_told(tmp_path):
    error, other = together(2, tmp_path, lose)
    lost(error, "has ended: ")
    assert other is None


def hang(folder, rank):
    group = DistributedGroup(CPU, minutes=0.1)
    patient = dist.new_group(timeout=timedelta(seconds=6))
    dist.barrier()
    if not rank:
        dist.all_reduce = partial(dist.all_reduce, group=patient)
        group.barrier()
    while not (folder / "result0").exists():
        time.sleep(0.05)


def test_a_process_that_hangs_is_told(tmp_path):
    error, _ = together(2, tmp_path, partial(hang, tmp_path))
    lost(error, "did not answer for 0.1 minutes: ")


def test_alone_nothing_is_exchanged():
    group = DistributedGroup(CPU)
    model = nn.Linear(2, 1)
    assert (group.rank, group.world, group.first) == (0, 1, True)
    assert group.total([3, 0.5]) == [3, 0.5]
    assert group.any(True, False) == [True, False]
    assert group.gather("a") == ["a"] and group.from_first(lambda: "b") == "b"
    model(torch.ones(1, 2)).sum().backward()
    group.add_gradients(list(model.parameters()), [1, 1])
    assert model.weight.grad.tolist() == [[1.0, 1.0]]
    with pytest.raises(LASError, match="mine"), group.together():
        raise LASError("mine")
    group.barrier()


def test_a_line_is_said_once_on_a_machine(monkeypatch):
    store = dist.HashStore()
    assert first_to_say(None, "line")
    assert [first_to_say(store, line) for line in ("a", "a", "b")] == [True, False, True]
    monkeypatch.setenv("GROUP_RANK", "1")
    assert first_to_say(store, "a")
