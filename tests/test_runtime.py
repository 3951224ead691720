"""Threads and precision of inference."""

import pytest
import torch

from las.errors import LASError
from las.runtime import choose_device, choose_threads, inference_precision
from las.threads import MOST


@pytest.fixture
def variable(monkeypatch):
    def set_variable(value: str | None) -> None:
        if value is None:
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        else:
            monkeypatch.setenv("OMP_NUM_THREADS", value)

    before = torch.get_num_threads()
    yield set_variable
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "wanted, omp, expected",
    [
        (0, None, 1), (0, "3", 3), (0, "3,2", 3), (0, "0", 1), (0, "many", 1), (0, "", 1),
        (2, None, 2), (2, "3", 2), (1, "3", 1),
    ],
)  # fmt: skip
def test_threads(variable, wanted, omp, expected):
    torch.set_num_threads(4)
    variable(omp)
    assert choose_threads(wanted) == expected
    assert torch.get_num_threads() == expected


def test_precisions():
    assert inference_precision("auto") is inference_precision("float32") is torch.float32
    assert inference_precision("bfloat16") is torch.bfloat16
    with pytest.raises(LASError, match=r"--precision half: .*auto, float32, bfloat16"):
        inference_precision("half")


def test_more_threads_than_go_well_are_refused(variable):
    variable(None)
    before = torch.get_num_threads()
    with pytest.raises(LASError, match=f"^--threads: 100000 threads .* at most {MOST}$"):
        choose_threads(100_000)
    with pytest.raises(LASError, match=r"^training\.threads: "):
        choose_threads(MOST + 1, "training.threads")
    variable("99999")
    with pytest.raises(LASError, match=r"^OMP_NUM_THREADS: 99999 threads"):
        choose_threads()
    assert torch.get_num_threads() == before
    assert choose_threads(2) == 2  # whatever the variable says


def test_no_gpu_is_named_as_every_command_has_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LASError, match=r"^device cuda: torch finds no GPU"):
        choose_device("cuda")
