"""Learning rate and optimizer steps, as both training loops use them."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from las.errors import LASError
from las.optimization import Position, learning_rate, optimizer_step


@given(
    warmup=st.integers(0, 1000),
    hold=st.floats(0, 1),
    final=st.floats(1e-3, 1),
    step=st.integers(0, 5000),
    progress=st.floats(0, 1),
)
def test_learning_rate(warmup, hold, final, step, progress):
    rate = partial(learning_rate, peak=0.5, warmup=warmup, hold=hold, final_rate=final)
    here = rate(step, progress)
    assert 0 < here <= 0.5
    assert rate(step + 1, progress) >= here  # warms up
    assert rate(step, min(1.0, progress + 0.01)) <= here * (1 + 1e-12)  # decays
    if step + 1 >= warmup:
        assert here >= 0.5 * final * (1 - 1e-12)
        if progress <= hold:
            assert here == 0.5
        if progress == 1 and hold < 1:
            assert here == pytest.approx(0.5 * final)
    if step < warmup and progress <= hold:
        assert here == pytest.approx(0.5 * (step + 1) / warmup)


def test_learning_rate_half_way_down():
    rate = learning_rate(0, 0.75, peak=1.0, warmup=0, hold=0.5, final_rate=0.2)
    assert rate == pytest.approx(0.6)


def test_learning_rate_without_a_hold():
    rate = partial(learning_rate, peak=1.0, warmup=10, final_rate=0.1)
    assert rate(0, 0.0) == pytest.approx(0.1)
    rates = [rate(step, step / 100) for step in range(10, 101)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.1) == rate(120, 1.2)


def test_steps_with_a_gradient_that_is_not_finite_are_skipped(tmp_path):
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.ones(1)
    optimizer = torch.optim.SGD([weight])
    position = Position()

    def step(norm):
        optimizer_step(optimizer, 0.5, norm, position, limit=2, output=tmp_path)
        return weight.item()

    assert [step(1.0), step(math.inf), step(1.0), step(math.nan)] == [-0.5, -0.5, -1.0, -1.0]
    assert (position.step, position.skipped, position.in_a_row) == (4, 2, 1)
    with pytest.raises(LASError, match=f"{tmp_path}: 2 steps in a row"):
        step(math.nan)
