"""Triton runs in its interpreter here, unless LAS_KERNELS_TEST_DEVICE=cuda asks for a GPU.

The variable of the interpreter must be set before triton is imported.
"""

import os

if os.environ.get("LAS_KERNELS_TEST_DEVICE", "cpu") == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"
