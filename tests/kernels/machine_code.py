"""Prints what the headline kernels are made of on an sm_90, as JSON: no GPU needed.

    python tests/kernels/machine_code.py

By the kernel's name, its numbers of registers, spilled bytes and instructions, as the second of two
steps of training launches it at A512 D1024 in bfloat16. ``TRITON_INTERPRET`` must not be set.
"""

import json
from functools import partial

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from las_kernels.tools.resource_usage import MODELS, Model, launched, train
from las_kernels.tools.stand_in import instructions_of, stand_in, usage_of

with stand_in() as launches, torch.no_grad():
    train(MODELS[0], torch.bfloat16)
constants = [
    [x for x in launch.arguments if not isinstance(x, torch.Tensor)] for launch in launches
]
# Of each launch: which kernel, how many arguments, and those that are no tensors.
calls = [
    (launch.name, len(launch.arguments), list(map(str, own)))
    for launch, own in zip(launches, constants, strict=True)
]
found = {"calls": calls}


class Counted(TorchDispatchMode):
    """Counts torch's operators that launch something: neither views nor memory alone."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        aliases = [x.alias_info for x in function._schema.returns]
        view = any(x is not None and not x.is_write for x in aliases)
        self.count += not view and "empty" not in function.__name__
        return function(*args, **(kwargs or {}))


def launches_a_step(model, dropout=False):
    """Of torch and of Triton, forward and backward."""
    totals = []
    for steps in (3, 5):
        with Counted() as counted, stand_in() as launches, torch.no_grad():
            train(model, torch.bfloat16, dropout=dropout, steps=steps)
        totals.append(counted.count + len(launches))
    return (totals[1] - totals[0]) / 2


small = Model("", 32, 48), Model("", 32, 48, location=(3, 5))
found["launches"] = [*map(launches_a_step, small), launches_a_step(small[0], dropout=True)]
for launch in launched(partial(train, MODELS[0], torch.bfloat16), 90).values():
    usage = usage_of(launch.kernel)
    found[launch.name] = {**usage._asdict(), **instructions_of(launch.kernel)}
print(json.dumps(found))
