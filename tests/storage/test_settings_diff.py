"""What changed in the settings of a training: told setting by setting; some of it may."""

from pathlib import Path

import pytest
import yaml

from las import config_files
from las.config import RunConfig
from las.errors import LASError
from las.storage import settings_diff


def run(**data):
    return RunConfig.model_validate(data)


def test_settings_of_before_are_the_same_where_new_ones_have_their_defaults():
    now = RunConfig()
    written = yaml.safe_load(config_files.to_yaml(now))
    del written["data"]["rooms"], written["listener"]
    before = yaml.safe_dump(written)
    assert settings_diff.differences(now, config_files.to_yaml(now)) == []
    assert settings_diff.differences(now, before) == []
    assert settings_diff.differences(run(data={"rooms": 0.5}), before) == [("data.rooms", 0.0, 0.5)]
    assert settings_diff.differences(run(pieces=["IT"]), before) == [("pieces", [], ["IT"])]


def test_sections_that_were_off_and_settings_that_are_no_more():
    written = yaml.safe_load(config_files.to_yaml(run(frontend={"specaugment": None})))
    (change,) = settings_diff.differences(RunConfig(), yaml.safe_dump(written))
    assert change[:2] == ("frontend.specaugment", None) and change[2]["time_masks"] == 2
    written = yaml.safe_load(config_files.to_yaml(RunConfig()))
    written["training"]["momentum"] = 0.9
    del written["data"]["rooms"]
    before = yaml.safe_dump(written)
    assert settings_diff.differences(RunConfig(), before) == [("training.momentum", 0.9, None)]


@pytest.mark.parametrize("written", ["{", "3", "", "[1]", None, 3])
def test_what_is_no_settings_belongs_to_another_kind_of_training(written):
    with pytest.raises(LASError, match=r"^a\.pt: belongs to a training of another kind"):
        settings_diff.check(RunConfig(), written, Path("a.pt"), ())


def test_all_that_may_not_change_is_named_in_one_line():
    before = config_files.to_yaml(run(training={"epochs": 3}))
    now = run(
        training={"learning_rate": 2e-3, "epochs": 4},
        data={"speeds": [0.9, 1.0]},
        pieces=[f"{letter}{n}" for n in "AB" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"],
    )
    free = {"training.epochs", "pieces"}
    with pytest.raises(LASError) as caught:
        settings_diff.check(now, before, Path("a.pt"), free, [("processes", 1, 2), ("same", 1, 1)])
    assert (
        "a.pt: belongs to a training with other settings (data.speeds: [1.0] -> [0.9, 1.0]; "
        "training.learning_rate: 0.001 -> 0.002; processes: 1 -> 2); "
    ) in str(caught.value)
    found = settings_diff.check(
        now, before, Path("a.pt"), free | {"data.speeds", "training.learning_rate"}
    )
    line = settings_diff.shown(found)
    assert "training.epochs: 3 -> 4" in line
    assert "pieces: [] -> [AA, BA, CA" in line and "..." in line and "ZB" not in line
