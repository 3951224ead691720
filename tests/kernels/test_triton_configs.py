"""Measured launch choices: where they are found, and that none changes a result."""

import json
import re

import pytest
import torch
from cases import Shape, case, gradients, relative

import las_kernels
from las_kernels.triton import attention_bwd, attention_fwd, configs

SPLIT, DQ = attention_fwd.attention_fwd_split_kernel, attention_bwd.attention_bwd_dq_kernel
PLAN = {"H": 1, "AH": 8, "DH": 12, "LOCATION": False, "C": 1, "W": 1, "NB": 1, "BT": 16, "BA": 8}


def test_keys_tell_problems_apart():
    name = SPLIT.__name__
    half = configs.key(name, PLAN, torch.bfloat16)
    assert half == f"{name} bfloat16 H1 AH8 DH12 NB1"
    located = {**PLAN, "LOCATION": True, "C": 10, "W": 21}
    single = configs.key(name, located, torch.float32)
    assert single == f"{name} float32 H1 AH8 DH12 NB1 C10 W21"
    assert configs.key(name, {**PLAN, "BA": 99}, torch.bfloat16) == half  # no problem's size


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(configs, "FOLDER", tmp_path)
    monkeypatch.setattr(configs, "_capability", lambda index: (9, 0))
    configs.choices.cache_clear()
    yield tmp_path / "sm_90.json"
    configs.choices.cache_clear()


def test_what_was_measured_replaces_the_default(shipped):
    key = configs.key(SPLIT.__name__, PLAN, torch.bfloat16)
    shipped.write_text(json.dumps({"device": "a GPU", "choices": {key: {"BT": 32}}}))
    gpu = torch.device("cuda", 0)
    assert configs.choose(SPLIT, PLAN, torch.bfloat16, gpu) == {
        **PLAN,
        "BT": 32,
    }
    assert configs.choose(SPLIT, PLAN, torch.float32, gpu) == PLAN
    assert configs.choose(DQ, PLAN, torch.bfloat16, gpu) == PLAN
    assert configs.choose(SPLIT, PLAN, torch.bfloat16, torch.device("cpu")) == PLAN


def test_a_gpu_that_was_not_measured_has_the_defaults(shipped):
    assert not shipped.exists()
    assert configs.choose(SPLIT, PLAN, torch.bfloat16, torch.device("cuda", 0)) == PLAN


def test_a_trial_ends_with_its_block():
    cpu = torch.device("cpu")
    with (
        pytest.raises(KeyboardInterrupt),
        configs.trying(attention_fwd_split_kernel={"BT": 64}, attention_bwd_dq_kernel={"BA": 4}),
    ):
        assert configs.choose(SPLIT, PLAN, torch.float32, cpu)["BT"] == 64
        raise KeyboardInterrupt
    assert configs.choose(SPLIT, PLAN, torch.float32, cpu) == PLAN
    assert not configs._trial


TRIALS = {
    "wider tiles": {
        "attention_fwd_split_kernel": {"BT": 32, "BA": 16, "fill": 1},
        "attention_bwd_dq_kernel": {"BT": 64, "BA": 16},
        "attention_bwd_dk_kernel": {"BT": 64, "BA": 16},
    },
    "more splits": {
        "attention_fwd_split_kernel": {"fill": 64},
        "attention_fwd_combine_kernel": {"BD": 16},
        "attention_bwd_dq_kernel": {"BT": 16},
    },
    "others": {
        "attention_bwd_dq_kernel": {"BD": 16, "STAGES": 2},
        "attention_bwd_dq_reduce_kernel": {"BA": 16, "num_warps": 2},
        "attention_bwd_dfilters_kernel": {"BT": 16},
        "attention_bwd_dk_kernel": {"BT": 16},
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
            assert re.fullmatch(r"(attention|location|lstm)_\w+_kernel", name.split()[0])
            assert choice.keys() <= {"BT", "BA", "BD", "STAGES", "fill", "num_warps"}
