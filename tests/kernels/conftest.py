"""Triton runs in its interpreter here, unless LAS_KERNELS_TEST_DEVICE=cuda asks for a GPU.

The variable of the interpreter must be set before triton is imported.
"""

import os

import pytest

ON_GPU = os.environ.get("LAS_KERNELS_TEST_DEVICE", "cpu") != "cpu"
EMULATORS = {"library", "emulator"}  # fixtures

if not ON_GPU:
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """The emulator of CUDA cannot be given tensors that are on a GPU."""
    for item in items if ON_GPU else []:
        if EMULATORS.intersection(item.fixturenames):
            item.add_marker(pytest.mark.skip(reason="the emulator computes on a CPU"))
