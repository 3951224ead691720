"""What the compiler makes of the headline kernels: a change that costs their speed shows here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


@pytest.fixture(scope="module")
def printed():
    root = Path(__file__).parents[2]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(root / "kernels")
    command = [sys.executable, Path(__file__).with_name("machine_code.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def kernels(printed):
    return {name: found for name, found in printed.items() if name.endswith("_kernel")}


def count(instructions, *prefixes):
    return sum(n for name, n in instructions.items() if name.startswith(prefixes))


def test_launches_of_a_step(printed):
    """Forward and backward: a product, the query's or its gradient, the cell, attention."""
    additive, location, dropout = printed["launches"]
    assert additive == 4 + 4
    assert location == 4 + 5  # what has many columns is joined by a kernel of its own
    assert dropout == 4 + 5  # the mask on the context's gradient


def test_one_launch_each_way_is_all_of_attention(kernels):
    attention = {name for name in kernels if name.startswith("attention")}
    once_a_sequence = {"attention_bwd_dk_kernel"}
    assert attention - once_a_sequence == {"attention_fwd_split_kernel", "attention_bwd_dq_kernel"}


@pytest.mark.parametrize("kernel", ["attention_fwd_split_kernel", "attention_bwd_dq_kernel"])
def test_the_second_launch_has_the_arguments_of_the_first(kernel, printed):
    """It goes past Triton's own look at the arguments."""
    first, second = [call[1:] for call in printed["calls"] if call[0] == kernel]
    assert first[0] == second[0]
    # The alignment before the first step is a tensor of its own, with other strides.
    different = sum(a != b for a, b in zip(first[1], second[1], strict=True))
    assert different <= (2 if "fwd" in kernel else 0)


def test_the_forward_fetches_the_next_tile_while_it_computes(kernels):
    found = kernels["attention_fwd_split_kernel"]
    assert found["spilled"] == 0
    # Two programs of 256 threads on a multiprocessor.
    assert found["registers"] <= 128
    assert found["shared"] <= 113 * 1024
    # A tile of 16 frames has 8192 scores, 256 threads take 32 each; one instruction a score.
    assert found["MUFU.TANH"] == 32
    # Keys and values of a tile, 48 KiB, are 12 asynchronous copies of 16 bytes a thread, and those
    # of query and v are 8 more; as many before the loop.
    assert count(found, "LDGSTS") == found["LDGSTS.E.BYPASS.128"] == 2 * (12 + 8)
    # Columns are added up once, not in each block of them: 22, and 8 of the join.
    assert found["SHFL.BFLY"] <= 30


def test_the_backward_reads_the_memory_by_asynchronous_copies(kernels):
    found = kernels["attention_bwd_dq_kernel"]
    assert found["spilled"] == 0
    assert found["registers"] <= 128  # four programs of 128 threads on a multiprocessor
    assert found["MUFU.TANH"] == 32
    # 32 frames of 128 columns are 4 copies of 16 bytes a thread, and one of dcontext or query; both
    # loops are two blocks ahead.
    assert count(found, "LDGSTS") >= 2 * 3 * 4
    assert found["LDGSTS.E.BYPASS.128"] == count(found, "LDGSTS")


def test_the_last_to_arrive_sees_what_the_others_wrote(kernels):
    """Arriving releases and acquires, for all of the GPU."""
    for name in ("attention_fwd_split_kernel", "attention_bwd_dq_kernel"):
        found = kernels[name]
        assert count(found, "ATOMG") == 1, name
        assert count(found, "MEMBAR") >= 1, name
        assert count(found, "CCTL.IVALL") >= 1, name
