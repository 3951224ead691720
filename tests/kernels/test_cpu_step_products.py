"""What a search step on a CPU needs besides attention: the LSTM cell and products, to the bit."""

import pytest
import torch
from cases import draw, same
from hypothesis import given, settings
from hypothesis import strategies as st

from las_kernels import reference
from las_kernels.cpu import attention_step as cpu_step

pytestmark = pytest.mark.usefixtures("cpu_step_built")

# --- the LSTM cell --------------------------------------------------------------------------


@settings(max_examples=60)
@given(rows=st.integers(1, 70), size=st.integers(1, 70), layers=st.integers(1, 3))
def test_cells_of_any_shape(rows, size, layers):
    gates, before = 3 * draw(8, rows, 4 * size), 2 * draw(9, rows, layers, size)
    cell, hidden = torch.full_like(before, 7), torch.full_like(before, 7)
    cpu_step.lstm_cell(gates, before[:, -1], cell[:, -1], hidden[:, -1])
    right = reference.lstm_cell(gates.double(), before[:, -1].double())
    torch.testing.assert_close(hidden[:, -1].double(), right[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(cell[:, -1].double(), right[1], rtol=1e-6, atol=1e-6)
    assert (cell[:, :-1] == 7).all() and (hidden[:, :-1] == 7).all()


def test_cells_at_extremes(threads):
    values = torch.tensor([0.0, -0.0, 20, -20, 1e30, -1e30, torch.inf, -torch.inf, torch.nan])
    gates = torch.cartesian_prod(values, values, values, values)  # one unit a row
    before = torch.full((len(gates), 1), 0.5)
    found = torch.empty(2, *before.shape)
    cpu_step.lstm_cell(gates, before, found[0], found[1])
    right = reference.lstm_cell(gates.double(), before.double())
    torch.testing.assert_close(found[1].double(), right[0], rtol=0, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(found[0].double(), right[1], rtol=0, atol=1e-6, equal_nan=True)
    torch.set_num_threads(3)
    again = torch.empty_like(found)
    cpu_step.lstm_cell(gates, before, again[0], again[1])
    assert same((again[0], again[1]), (found[0], found[1]))


@pytest.mark.parametrize("wrong", ["gates", "dtype", "rows", "layout"])
def test_wrong_cells_are_refused(wrong):
    gates, before, cell, hidden = draw(1, 4, 12), draw(2, 4, 3), draw(3, 4, 3), draw(4, 4, 3)
    if wrong == "gates":
        gates = gates[:, :-1].contiguous()
    elif wrong == "dtype":
        cell = cell.double()
    elif wrong == "rows":
        hidden = hidden[1:]
    else:
        before = before.t().contiguous().t()
    with pytest.raises(ValueError, match="the cell needs"):
        cpu_step.lstm_cell(gates, before, cell, hidden)


# --- products -------------------------------------------------------------------------------


@settings(max_examples=80)
@given(
    rows=st.integers(1, 40),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 150),
    shared=st.booleans(),
)
def test_products_of_any_shape(rows, inputs, outputs, shared):
    x, weight = draw(1, rows, inputs + 3)[:, 2:-1], draw(2, outputs, inputs)
    start = draw(3, outputs) if shared else draw(3, rows, outputs)
    found = cpu_step.product(x, cpu_step.panels(weight), start)
    right = start.double() + x.double() @ weight.double().t()
    torch.testing.assert_close(found.double(), right, rtol=0, atol=1e-5 * inputs)


def test_other_rows_and_threads_change_no_bit_of_a_row(threads):
    x, start = draw(1, 37, 700), draw(3, 37, 1100)
    weight = cpu_step.panels(draw(2, 1100, 700))  # enough for a huge page
    torch.set_num_threads(1)
    found = cpu_step.product(x, weight, start)
    right = start.double() + x.double() @ draw(2, 1100, 700).double().t()
    torch.testing.assert_close(found.double(), right, rtol=0, atol=1e-3)
    for count in (1, 2, 5, 8, 11):
        some = cpu_step.product(x[3 : 3 + count], weight, start[3 : 3 + count])
        assert torch.equal(some, found[3 : 3 + count])
    torch.set_num_threads(3)
    assert torch.equal(cpu_step.product(x, weight, start), found)


@pytest.mark.parametrize("wrong", ["inputs", "start", "rows", "dtype", "layout"])
def test_wrong_products_are_refused(wrong):
    x, weight, start = draw(1, 4, 5), cpu_step.panels(draw(2, 6, 5)), draw(3, 6)
    x = {"inputs": x[:, 1:], "dtype": x.double(), "layout": x.t().contiguous().t()}.get(wrong, x)
    start = {"start": start[1:], "rows": draw(3, 3, 6)}.get(wrong, start)
    with pytest.raises(ValueError, match="a product needs"):
        cpu_step.product(x, weight, start)
