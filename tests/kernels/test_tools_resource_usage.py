"""Every shipped kernel compiles for sm_80 and sm_90 and keeps its variables in registers."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")


def test_every_kernel_compiles_without_spilling():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "las_kernels.tools.resource_usage"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("|")][2:]
    compiled = {row[1].strip() for row in rows}
    attention = ("fwd_split", "fwd_combine", "bwd_dq", "bwd_dq_reduce", "bwd_dk")
    assert compiled == {
        *(f"attention_{name}_kernel" for name in (*attention, "bwd_dfilters")),
        *("location_conv_kernel", "lstm_cell_fwd_kernel", "lstm_cell_bwd_kernel"),
    }
    assert "spilled |" not in done.stdout
