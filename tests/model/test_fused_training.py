"""The same tiny model learns the same with the reference and with the fused operators.

Triton runs in its interpreter (see conftest.py).
"""

import pytest
import torch

from las.config import AttentionConfig, ModelConfig
from las.decoding.greedy import greedy
from las.model.las import LAS
from las_kernels import backends


def losses(config: ModelConfig, noise, monkeypatch, backend: str, steps: int) -> list[float]:
    """Losses of some steps of Adam on one batch, dropout and scheduled sampling included."""
    monkeypatch.setenv(backends.VARIABLE, backend)
    torch.manual_seed(3)
    model = LAS(config).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    waveforms, samples = noise([4000, 2500])
    tokens = torch.tensor([[2, 4, 3], [6, 0, 0]])
    lengths = torch.tensor([3, 1])
    found = []
    for step in range(steps):
        torch.manual_seed(step)
        result = model(waveforms, samples, tokens, lengths, 0.1, 0.3)
        loss = result.attention / result.tokens + 0.3 * result.ctc / result.characters
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


@pytest.mark.parametrize(
    ("backend", "kind", "steps"),
    [
        ("triton", "location", 6),  # 5 s each in the interpreter
        ("threephase", "location", 20),
        ("threephase", "additive", 20),
    ],
)
def test_same_losses(tiny_config, noise, monkeypatch, backend, kind, steps):
    attention = AttentionConfig(kind=kind, width=8, heads=2, channels=3, taps=5)
    config = tiny_config.model_copy(update={"attention": attention})
    expected = losses(config, noise, monkeypatch, "reference", steps)
    found = losses(config, noise, monkeypatch, backend, steps)
    assert expected[-1] < 0.9 * expected[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("backend", ["triton", "threephase", "cpp"])
def test_same_search(tiny_config, noise, monkeypatch, backend):
    reason = backends.why_not(backend, torch.device("cpu"), torch.float32)
    if reason:
        pytest.skip(reason)
    torch.manual_seed(5)
    model = LAS(tiny_config).eval()
    waveforms, samples = noise([1500, 900])
    results = {}
    for name in ("reference", backend):
        monkeypatch.setenv(backends.VARIABLE, name)
        with torch.inference_mode():
            results[name] = greedy(model, model.encode(waveforms, samples))
    for ours, right in zip(results[backend], results["reference"], strict=True):
        assert ours.text == right.text
        assert ours.score == pytest.approx(right.score, rel=1e-5)
        torch.testing.assert_close(ours.alignment, right.alignment, atol=1e-6, rtol=1e-5)
