"""Measured launch choices: where they are found, and that none changes a result."""

import json

import pytest
import torch
from cases import Shape, case, gradients, relative

import las_kernels
from las_kernels.triton import configs

PLAN = {"H": 1, "AH": 8, "DH": 12, "LOCATION": False, "C": 1, "W": 1, "NB": 1, "BT": 16, "BA": 8}


def test_keys_tell_problems_apart():
    half = configs.key("partial", PLAN, torch.bfloat16)
    assert half == "partial bfloat16 H1 AH8 DH12 NB1"
    located = {**PLAN, "LOCATION": True, "C": 10, "W": 21}
    assert (
        configs.key("partial", located, torch.float32) == "partial float32 H1 AH8 DH12 NB1 C10 W21"
    )
    assert configs.key("partial", {**PLAN, "BA": 99}, torch.bfloat16) == half  # no problem's size


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(configs, "FOLDER", tmp_path)
    monkeypatch.setattr(configs, "_capability", lambda index: (9, 0))
    configs.choices.cache_clear()
    yield tmp_path / "sm_90.json"
    configs.choices.cache_clear()


def test_what_was_measured_replaces_the_default(shipped):
    key = configs.key("partial", PLAN, torch.bfloat16)
    shipped.write_text(json.dumps({"device": "a GPU", "choices": {key: {"BT": 32}}}))
    gpu = torch.device("cuda", 0)
    assert configs.choose("partial", PLAN, torch.bfloat16, gpu) == {**PLAN, "BT": 32}
    assert configs.choose("partial", PLAN, torch.float32, gpu) == PLAN
    assert configs.choose("step", PLAN, torch.bfloat16, gpu) == PLAN
    assert configs.choose("partial", PLAN, torch.bfloat16, torch.device("cpu")) == PLAN


def test_a_gpu_that_was_not_measured_has_the_defaults(shipped):
    assert not shipped.exists()
    assert configs.choose("partial", PLAN, torch.bfloat16, torch.device("cuda", 0)) == PLAN


def test_a_trial_ends_with_its_block():
    cpu = torch.device("cpu")
    with pytest.raises(KeyboardInterrupt), configs.trying(partial={"BT": 64}, step={"BA": 4}):
        assert configs.choose("partial", PLAN, torch.float32, cpu)["BT"] == 64
        raise KeyboardInterrupt
    assert configs.choose("partial", PLAN, torch.float32, cpu) == PLAN
    assert not configs._trial


TRIALS = {
    "wider tiles": {
        "partial": {"BT": 32, "BA": 16, "fill": 1},
        "step": {"BT": 64, "BA": 16},
        "accumulate": {"BT": 64, "BA": 16},
    },
    "more spans": {"partial": {"fill": 64}, "combine": {"BD": 16}, "step": {"BT": 16}},
    "others": {
        "alignment_gradient": {"BD": 16},
        "finish": {"BA": 16, "num_warps": 2},
        "correlate": {"BT": 16},
        "accumulate": {"BT": 16},
    },
}


@pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")
@pytest.mark.parametrize("trial", TRIALS.values(), ids=TRIALS)
@pytest.mark.parametrize("kind", ["additive", "location"])
def test_no_choice_changes_a_result(kind, trial):
    """The columns, frames and spans of a tile are how, not what."""
    c = case(kind, Shape(B=2, N=3, T=37, A=40, D=24), torch.float32)

    def results():
        found = las_kernels.attend(c.query, c.memory, c.score, c.previous, backend="triton")
        return [*found, *gradients(found, c.attention_leaves()).values()]

    expected = results()
    with configs.trying(**trial):
        for one, other in zip(results(), expected, strict=True):
            assert relative(one, other) < 1e-5


def test_shipped_files_are_whole():
    """Each says where it was measured, and names parameters that the plans have."""
    for path in configs.FOLDER.glob("*.json"):
        found = json.loads(path.read_text())
        assert {"device", "date", "torch", "triton", "choices"} <= found.keys()
        for name, choice in found["choices"].items():
            assert name.split()[0] in {
                "partial", "combine", "alignment_gradient", "step", "finish", "accumulate",
                "correlate",
            }  # fmt: skip
            assert choice.keys() <= {"BT", "BA", "BD", "fill", "num_warps"}
