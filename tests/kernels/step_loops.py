"""Prints what the loops in Python and in C++ launch on an sm_90, as JSON: no GPU needed.

    python tests/kernels/step_loops.py

For each kind of decoder the launches of its sequences, forward and backward: by the loop in Python
through Triton, and by that in C++ through a ``cuLaunchKernel`` that notes what it is given. Both
run the same plans, so that addresses are equal, too. ``TRITON_INTERPRET`` must not be set.
"""

import ctypes
import json
import re

import torch
from test_triton_cpp_steps import LaunchKernel

from las_kernels.tools.resource_usage import Model, train
from las_kernels.tools.stand_in import stand_in
from las_kernels.triton import cpp_steps, steps

MODELS = {"additive": Model("", 32, 48), "location": Model("", 32, 48, location=(3, 5))}
SIZES = {"32": ctypes.c_int32, "64": ctypes.c_int64}


def by_python(launch):
    """A launch through Triton, as it would reach the driver."""
    kinds = launch.kernel.src.signature.values()
    given = [
        x.data_ptr() if isinstance(x, torch.Tensor) else x
        for x, kind in zip(launch.arguments, kinds, strict=True)
        if kind != "constexpr"
    ]
    metadata = launch.kernel.metadata
    scratch = [0, 0]
    return [launch.name, launch.grid, 32 * metadata.num_warps, metadata.shared, given + scratch]


def both_loops(model, dropout):
    """Launches of each."""
    found = {"python": [], "cpp": []}
    kernels = {}

    @LaunchKernel
    def launch(function, x, y, z, threads, _y, _z, shared, stream, given, extra):
        kernel = kernels[function]
        entry = re.search(r"\.entry.*?\)", kernel.asm["ptx"], re.DOTALL)[0]
        sizes = [SIZES[bits] for bits in re.findall(r"\.param \.[a-z](\d+)", entry)]
        values = [size.from_address(given[i]).value for i, size in enumerate(sizes)]
        found["cpp"].append([kernel.metadata.name, [x, y, z], threads, shared, values])
        return 0

    def run(plan, device):
        before = len(launches)
        python(plan, device)
        found["python"] += map(by_python, launches[before:])
        kernels.update({id(x.kernel): x.kernel for x in launches})  # the stand-in's handles
        reason = cpp_steps.run(plan)
        assert reason is None, reason

    python, steps.run = steps.run, run
    cpp_steps.launch_function = lambda: ctypes.cast(launch, ctypes.c_void_p).value
    try:
        with stand_in() as launches, torch.no_grad():
            train(model, torch.bfloat16, frames=33, dropout=dropout, steps=3)
    finally:
        steps.run = python
    return found


if __name__ == "__main__":
    found = {name: both_loops(model, False) for name, model in MODELS.items()}
    found |= {f"{name}, dropout": both_loops(model, True) for name, model in MODELS.items()}
    print(json.dumps(found))
