import pytest
import torch

from las_kernels.tools.saved_bytes import Sizes, kept_bytes

SMALL = Sizes(B=3, T=20, U=4, A=16, D=24, S=12, E=5, C=3, W=7)


@pytest.mark.parametrize("kind", ["additive", "location"])
@pytest.mark.parametrize("backend", ["reference", "threephase"])
def test_counting_without_computing_equals_counting_a_real_pass(kind, backend):
    there = kept_bytes(SMALL, kind, torch.float32, backend)
    assert there == kept_bytes(SMALL, kind, torch.float32, backend, device="cpu")


def test_fused_keeps_the_states_and_nothing_of_the_scores():
    B, T, U, D, S = SMALL.B, SMALL.T, SMALL.U, SMALL.D, SMALL.S
    states = B * U * (S + S + 4 * S + D + T)  # hidden, cells, gates, contexts, alignments
    assert kept_bytes(SMALL, "location", torch.float32, "threephase") == 4 * states


@pytest.mark.parametrize("kind", ["additive", "location"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_ten_times_less_is_kept_at_training_size(kind, dtype):
    fewer = Sizes(U=25)  # both are proportional to the steps
    eager = kept_bytes(fewer, kind, dtype, "reference")
    assert eager >= 10 * kept_bytes(fewer, kind, dtype, "threephase")
