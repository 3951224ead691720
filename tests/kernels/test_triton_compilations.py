"""A training whose batches differ in size does not compile its kernels again and again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def test_kernels_are_compiled_for_widths_not_for_batches():
    root = Path(__file__).parents[2]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(root / "kernels")
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("compilations.py")],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
    assert found == {
        "partial": 4,  # additive and location-aware, one beam and eight
        "combine": 1,
        "alignment_gradient": 2,  # the gradient of the alignment: of the inputs' type, or float32
        "step": 2,
        "finish": 2,
        "accumulate": 2,
        "convolve": 1,
        "correlate": 1,
        "cell_forward_kernel": 2,  # the first step, another
        "cell_backward_kernel": 4,  # the first, the last, both, neither
    }
