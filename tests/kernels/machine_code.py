"""Prints what the headline kernels are made of on an sm_90, as JSON: no GPU needed.

    python tests/kernels/machine_code.py

By the kernel's name, its numbers of registers, spilled bytes and instructions, as the second of two
steps of training launches it at A512 D1024 in bfloat16. ``TRITON_INTERPRET`` must not be set.
"""

import json
from functools import partial

import torch

from las_kernels.tools.resource_usage import MODELS, launched, train
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
for launch in launched(partial(train, MODELS[0], torch.bfloat16), 90).values():
    usage = usage_of(launch.kernel)
    found[launch.name] = {**usage._asdict(), **instructions_of(launch.kernel)}
print(json.dumps(found))
