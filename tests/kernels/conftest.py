"""Triton runs in its interpreter here, unless LAS_KERNELS_TEST_DEVICE=cuda asks for a GPU.

The variable of the interpreter must be set before triton is imported.
"""

import ctypes
import os
from collections.abc import Iterator

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


@pytest.fixture(scope="module")
def cpu_step_built() -> None:
    """Skips the test where the kernel of a search step on a CPU cannot be built."""
    from las_kernels.cpu import attention_step as cpu_step

    if reason := cpu_step.available():
        pytest.skip(f"the CPU kernel cannot run here: {reason}")


@pytest.fixture
def threads() -> Iterator[None]:
    """The test may set the number of threads."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    """The decoder in one launch, for the emulator."""
    import emulated

    return emulated.library("persistent_decoder")


@pytest.fixture
def decoder_gpu() -> None:
    """Skips the test where the decoder in one launch cannot run on a GPU."""
    import emulated

    from las_kernels.cuda import persistent_decoder

    emulated.need(persistent_decoder.available(), "the CUDA decoder")
