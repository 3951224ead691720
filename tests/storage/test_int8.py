"""Rounding to int8 moves no weight by more than half a scale, and comes back or says why not."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from las.storage.int8 import SCALE, dequantised, quantised


@given(st.integers(1, 20), st.integers(16, 45), st.floats(-30, 30), st.integers(0, 99))
def test_no_weight_moves_by_more_than_half_a_scale(rows, columns, decades, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, 2, generator=generator) * 10.0**decades
    weight *= torch.rand(rows, 1, 1, generator=generator)
    stored = quantised({"w": weight})
    back = dequantised(stored)["w"]
    assert back.dtype == torch.float32 and back.shape == weight.shape
    assert stored["w"].dtype == torch.int8
    scale = stored["w" + SCALE][:, None, None]
    assert ((back - weight).abs() <= scale * 0.5001).all()
    assert stored["w"].flatten(1).abs().amax(1).tolist() == [127] * rows
    # What is quantised once stays.
    again = quantised({"w": back})
    assert torch.equal(again["w"], stored["w"])


def test_rows_of_zeros_and_of_almost_nothing():
    weight = torch.zeros(3, 1024)
    weight[1] = 1e-45
    weight[2, 5] = -2.54
    back = dequantised(quantised({"w": weight}))["w"]
    assert back[2, 5] == pytest.approx(-2.54)
    assert (back[:2] == 0).all()


def test_vectors_small_tensors_and_integers():
    weights = {"v": torch.randn(5000), "m": torch.randn(4, 4), "n": torch.arange(3)}
    stored = quantised(weights)
    assert {name: w.dtype for name, w in stored.items()} == {
        "v": torch.float16, "m": torch.float16, "n": torch.int64
    }  # fmt: skip
    assert torch.equal(dequantised(stored)["n"], weights["n"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_rounded(bad):
    with pytest.raises(ValueError, match="w: a weight is not finite"):
        quantised({"w": torch.tensor([bad])})


def test_names_of_scales_are_taken():
    with pytest.raises(ValueError, match=r"w\.scale"):
        quantised({"w.scale": torch.ones(3)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"w": None}, "w.scale has no int8 matrix w"),
        ({"w": torch.zeros(2, 600)}, "w.scale has no int8 matrix w"),
        ({"w": torch.zeros(2, dtype=torch.int8)}, "w.scale has no int8 matrix w"),
        ({"w.scale": None}, "w is int8 and has no scales"),
        ({"w.scale": torch.ones(3)}, "w.scale is not one float32 number for each row of w"),
        ({"w.scale": torch.ones(2).half()}, "w.scale is not one float32 number for each row of w"),
        ({"w.scale": torch.tensor([1.0, float("nan")])}, "w.scale is not positive"),
        ({"w.scale": torch.tensor([1.0, 0.0])}, "w.scale is not positive"),
    ],
)
def test_what_does_not_fit_is_said(change, said):
    stored = quantised({"w": torch.ones(2, 600)}) | change
    with pytest.raises(ValueError, match=said):
        dequantised({name: w for name, w in stored.items() if w is not None})
