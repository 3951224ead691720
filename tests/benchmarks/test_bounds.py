"""The kernels that measure a GPU compute what they say; how fast, is not tested."""

import os

import pytest
import torch

from benchmarks import common
from benchmarks.kernels import bounds, timing

DEVICE = torch.device(os.environ.get("LAS_KERNELS_TEST_DEVICE", "cpu"))


@pytest.mark.parametrize("rounds", [1, 3])
def test_each_number_goes_through_tanh_so_many_times(rounds):
    x = torch.randn(2 * bounds.BLOCK, device=DEVICE)
    expected = x
    for _ in range(rounds):
        expected = expected.tanh() + 0.001
    bounds.tanh_times(x, rounds)
    torch.testing.assert_close(x, expected, atol=2e-3, rtol=0)


def test_every_block_arrives_at_every_barrier():
    # The interpreter runs one block after another, which can only wait for itself.
    blocks = 1 if DEVICE.type == "cpu" else 16
    assert bounds.barriers(blocks, 7, DEVICE).item() == 7 * blocks


def test_the_report(tmp_path, monkeypatch):
    found = dict.fromkeys(bounds.UNITS, 1234.5)
    monkeypatch.setattr(bounds, "measure", lambda: found)
    monkeypatch.setattr(common, "device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(common, "environment", lambda chosen: {"device": "NVIDIA H200"})
    bounds.main(["--device", "cuda", "--output", str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["bounds.json", "bounds.md"]
    table = (folder / "bounds.md").read_text()
    assert table.count("| 1234 ") + table.count("| 1235 ") == len(bounds.UNITS)


@pytest.mark.skipif(DEVICE.type == "cpu", reason="it measures a GPU")
def test_bounds_of_a_gpu():
    assert all(value > 0 for value in bounds.measure().values())


@pytest.mark.skipif(DEVICE.type == "cuda", reason="there is a GPU")
def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(timing, "time_on_gpu", None)
    with pytest.raises(SystemExit, match=r"error: benchmarks\.kernels\.bounds measures a GPU"):
        bounds.main(["--device", "cpu"])
