"""An LSTM in bfloat16 on processors with and without it."""

import pytest
import torch

from las.model import recurrent
from las.model.recurrent import LSTM


@pytest.mark.parametrize("supported", [True, False])
def test_bfloat16_on_any_processor(supported, monkeypatch):
    if supported and not recurrent.bfloat16_on_cpu():
        pytest.skip("this processor has no bfloat16 for an LSTM")
    monkeypatch.setattr(recurrent, "bfloat16_on_cpu", lambda: supported)
    lstm = LSTM(6, 5, batch_first=True)
    x = torch.randn(2, 7, 6, requires_grad=True)
    right, (state, _) = lstm(x)
    with torch.autocast("cpu", torch.bfloat16):
        found, (halved, _) = lstm(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), right, rtol=0, atol=0.02)
    torch.testing.assert_close(halved.float(), state, rtol=0, atol=0.02)
    (gradient,) = torch.autograd.grad(found.float().sum(), x)
    (expected,) = torch.autograd.grad(right.sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=0.05)


def test_it_is_torch_s_layer():
    torch.manual_seed(0)
    ours = LSTM(3, 4, num_layers=2)
    theirs = torch.nn.LSTM(3, 4, num_layers=2)
    theirs.load_state_dict(ours.state_dict())
    x, before = torch.randn(5, 2, 3), (torch.randn(2, 2, 4), torch.randn(2, 2, 4))
    for a, b in zip(ours(x, before)[1], theirs(x, before)[1], strict=True):
        assert torch.equal(a, b)
