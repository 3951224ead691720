"""``las train --processes``: what goes wrong is one line, and Ctrl-C reaches every process."""

import os
import signal
import time

from speech import error_line, run_config, sentences, start, write_manifest

from las.storage.settings import save_settings


def test_a_mistake_is_one_line_whatever_the_number_of_processes(tmp_path):
    (tmp_path / "run.yaml").write_text(f"data: {{train: {tmp_path}/none.jsonl.gz}}\n")
    process = start("train", tmp_path / "run.yaml", "--processes", 2)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "none.jsonl.gz: no such manifest" in error_line(errors)
    assert out == ""


def test_an_interrupted_training_says_so_once(tmp_path):
    manifest = write_manifest(tmp_path / "data", sentences(12))
    settings = run_config(manifest, tmp_path / "run", training__epochs=10000)
    save_settings(settings, tmp_path / "run.yaml")
    process = start("train", tmp_path / "run.yaml", "--processes", 2)
    until = time.monotonic() + 120
    while not (tmp_path / "run/training.pt").exists():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(errors.splitlines()) == 1, errors
    (line,) = errors.splitlines()
    assert line.startswith("interrupted: ") and line.endswith("the same command resumes")
