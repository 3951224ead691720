"""What processes that train together agree on, with two that really run."""

import json
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn

from las.training.distributed import DistributedGroup


def one_of_two(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    group = DistributedGroup(torch.device("cpu"))
    torch.manual_seed(0)
    model = nn.Linear(2, 1, bias=False)
    replica = group.replica(model, whole=False)
    replica = None  # as a training does where the speller joins in
    replica = group.replica(model, whole=True)
    found: dict[str, object] = {
        "rank": group.rank,
        "first": group.first,
        "total": group.total(rank + 5),
        "any": group.any(rank == 0, False, rank == 1, True),
    }
    # The gradient of the sum of w * x is x: alone [1, 1] and [3, 3], together [2, 2].
    for now in (False, True):
        model.zero_grad()
        with group.synchronised(replica, now):
            replica(torch.full((1, 2), 1.0 + 2 * rank)).sum().backward()
        found[f"exchanged {now}"] = model.weight.grad.flatten().tolist()
    model.weight.grad.fill_(1.0 + 2 * rank)
    unused = nn.Parameter(torch.zeros(1))
    group.average_gradients([unused, *model.parameters()])
    found["averaged"] = model.weight.grad.flatten().tolist()
    group.barrier()
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def test_two_agree(tmp_path):
    torch.multiprocessing.start_processes(one_of_two, (tmp_path,), nprocs=2, start_method="spawn")
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert (one.pop("rank"), other.pop("rank")) == (0, 1)
    assert (one.pop("first"), other.pop("first")) == (True, False)
    assert one.pop("exchanged False") == [1.0, 1.0]
    assert other.pop("exchanged False") == [3.0, 3.0]
    assert one == other
    assert one["total"] == 11
    assert one["any"] == [True, False, True, True]
    assert one["exchanged True"] == one["averaged"] == [2.0, 2.0]


def test_alone_nothing_is_exchanged():
    group = DistributedGroup(torch.device("cpu"))
    model = nn.Linear(2, 1)
    assert group.replica(model, whole=True) is model
    assert (group.rank, group.world, group.first) == (0, 1, True)
    assert group.total(3) == 3
    assert group.any(True, False) == [True, False]
    model(torch.ones(1, 2)).sum().backward()
    group.average_gradients(model.parameters())
    assert model.weight.grad.tolist() == [[1.0, 1.0]]
    with group.synchronised(model, False):
        group.barrier()
