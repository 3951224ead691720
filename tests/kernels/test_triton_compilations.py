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
        "attention_fwd_split_kernel": 4,  # additive and location-aware, one beam and eight
        "attention_fwd_combine_kernel": 1,
        # Additive, of few frames and many; location-aware, whose dalignment is of the inputs' type
        # in the last step and float32 in others.
        "attention_bwd_dq_kernel": 4,
        "attention_bwd_dq_reduce_kernel": 2,
        "attention_bwd_dk_kernel": 2,
        "location_conv_kernel": 1,
        "attention_bwd_dfilters_kernel": 1,
        "lstm_cell_fwd_kernel": 2,  # the first step, another
        "lstm_cell_bwd_kernel": 4,  # the first, the last, both, neither
    }
