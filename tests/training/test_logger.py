"""What a training says: each step once, in a file that other programs can read."""

import json
import threading

import numpy as np
import pytest
import torch
from speech import full_disk, run_config, whistle

from las.scoring.wer import Utterance, score
from las.training.logger import TrainingLogger
from las.training.validation import Picture, Validation


@pytest.fixture
def logger(tmp_path):
    with TrainingLogger(tmp_path, run_config("", tmp_path), 0) as opened:
        yield opened


def step(logger, number, epoch=1, attention=2.0):
    logger.step(
        step=number,
        epoch=epoch,
        share=0.5,
        attention=attention,
        ctc=3.0,
        rate=0.1,
        norm=1.0,
        skipped=0,
    )


def result(wer_text="ABE", focus=0.9):
    utterances = [Utterance("a", "ABE", wer_text)]
    alignment = torch.softmax(torch.randn(4, 12), -1)
    waveform = torch.from_numpy(whistle("ABE"))
    scored = score(utterances, bootstrap=1)
    return Validation(scored, utterances, 1.5, 2.5, focus, Picture(alignment, waveform, "ABE"))


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_steps_and_validations_are_logged(logger, tmp_path, capsys):
    logger.info("[bold]hello[/bold]")
    logger.input_waited(0.25)
    step(logger, 1, attention=4.0)
    logger.validation(1, 1, result("ABED"))
    first, second = rows(tmp_path)
    assert first["step"] == 1 and first["attention"] == 4.0 and first["input_wait"] > 0
    assert second == {
        "step": 1,
        "epoch": 1,
        "dev": {
            "wer": 100.0,
            "cer": pytest.approx(100 / 3),
            "attention": 1.5,
            "ctc": 2.5,
            "focus": 0.9,
        },
    }
    out = capsys.readouterr().out
    assert "[bold]hello[/bold]" in out
    assert "epoch 1: dev WER 100.00 %" in out and "focus 0.90" in out
    assert (tmp_path / "train.log").read_text() == out
    assert any((tmp_path / "tensorboard").iterdir())


def test_truncate_drops_what_will_be_done_again(logger, tmp_path):
    for number in (1, 2):
        step(logger, number)
    logger.validation(1, 2, result())
    for number in (3, 4):
        step(logger, number, epoch=2)
    logger.validation(2, 4, result())
    logger.truncate(4, 1)  # the state was saved after step 4, and not after its validation
    assert [(r["step"], "dev" in r) for r in rows(tmp_path)] == [
        (1, False), (2, False), (2, True), (3, False), (4, False),
    ]  # fmt: skip
    logger.truncate(3, 1)
    step(logger, 4, epoch=2)
    assert [(r["step"], "dev" in r) for r in rows(tmp_path)] == [
        (1, False), (2, False), (2, True), (3, False), (4, False),
    ]  # fmt: skip
    logger.truncate(0, 0)
    assert rows(tmp_path) == []


def test_truncate_drops_a_line_that_was_cut_off(tmp_path):
    config = run_config("", tmp_path)
    with TrainingLogger(tmp_path, config, 0) as logger:
        step(logger, 1)
        step(logger, 2)
    log = tmp_path / "log.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    with TrainingLogger(tmp_path, config, 0) as logger:
        logger.truncate(5, 5)
        step(logger, 2)
    assert [r["step"] for r in rows(tmp_path)] == [1, 2]


def test_the_loss_goes_on_after_a_stop(tmp_path, capsys):
    """A stop after the last step of an epoch leaves none to tell the loss of."""
    config = run_config("", tmp_path)
    with TrainingLogger(tmp_path, config, 0) as logger:
        step(logger, 1, attention=4.0)
        step(logger, 2, attention=2.0)
        step(logger, 3, attention=99.0)
    with TrainingLogger(tmp_path, config, 0) as logger:
        logger.truncate(2, 0)
        logger.validation(1, 2, result())
    assert "train loss 3.900" in capsys.readouterr().out


def test_warning_stands_out(logger, tmp_path, capsys):
    logger.warning("the attention is flat")
    assert "WARNING: the attention is flat" in capsys.readouterr().out
    assert "WARNING: the attention is flat" in (tmp_path / "train.log").read_text()


def test_other_processes_are_silent(tmp_path, capsys):
    with TrainingLogger(tmp_path, run_config("", tmp_path), 1) as logger:
        logger.truncate(0, 0)
        logger.info("hello")
        logger.warning("hello")
        step(logger, 1)
        logger.validation(1, 1, result())
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_numbers_that_are_none_do_not_stop_it(logger, tmp_path):
    step(logger, 1, attention=float("nan"))
    step(logger, 2, attention=float("inf"))
    assert np.isnan(rows(tmp_path)[0]["attention"])


def test_a_full_disk_names_the_file_once(tmp_path, monkeypatch):
    failed = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    hook = threading.excepthook
    for name, size in (("train.log", 10), ("log.jsonl", 100), ("tensorboard", 1000)):
        folder = tmp_path / name
        with (
            pytest.raises(OSError, match="too large") as caught,
            TrainingLogger(folder, run_config("", tmp_path), 0) as logger,
            full_disk(size),
        ):
            if name == "train.log":
                logger.info("hello, hello")
            for number in range(1, 100):
                step(logger, number)
                if name == "tensorboard":
                    (folder / "log.jsonl").write_text("")
                    logger.writer.flush()
        assert caught.value.filename == str(folder / name)
        assert threading.excepthook == hook
    assert not failed  # TensorBoard's thread has not printed it as well
