"""The tables of results say what the committed reports say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_tables_are_made_from_the_reports():
    done = subprocess.run(
        [sys.executable, ROOT / "recipes/results.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
