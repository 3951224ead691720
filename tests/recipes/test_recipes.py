"""What the scripts of all recipes have in common; `test_commands.py` runs them to their end."""

import pytest
from recipe import (
    ROOT,
    run_recipe,
)


@pytest.mark.parametrize("name", ["librispeech", "general", "an4", "demo"])
def test_help_is_no_error(name):
    done = run_recipe(ROOT, name, "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert f"recipes/{name}/run.sh" in done.stdout
    assert "set -euo" not in done.stdout


def test_a_setting_that_is_none():
    done = run_recipe(ROOT, "demo", "epochs")
    assert done.returncode == 2 and done.stderr.startswith("error: unknown argument 'epochs'")
