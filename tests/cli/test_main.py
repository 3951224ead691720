"""The command as a whole: wrong use gives one clear line, and never a traceback."""

import os
import subprocess
import sys

import pytest
import torch
from speech import (
    error_line,
    run_config,
    sentences,
    start,
    write_folder,
)

from las import __version__
from las.cli import main
from las.storage.settings import save_settings
from tests.cli.files import recording, text_file


def test_what_misled(las, model, manifest, tmp_path, monkeypatch):
    config, text = tmp_path / "config.yaml", tmp_path / "text.txt"
    save_settings(run_config(manifest, tmp_path / "run"), config)
    text.write_text("ABE CAB\n" * 20)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for arguments, words in (
        (("evaluate", model, manifest, "--device", "cuda"), "device cuda: "),
        (("train", config, "training.init=nowhere"), "nowhere: no such model folder"),
        (("train", config, "training.output="), "training.output is empty"),
        (("train", config, "training.threads=100000"), "training.threads: 100000 threads"),
        (("prepare", "folder", tmp_path, tmp_path / "o", "--part", "x"), "--part: folder has no"),
        (("lm", "score", tmp_path, text), "neither lm.yaml nor ngram.yaml"),
        (("lm", "train", text, tmp_path / "lm", "lr=3"), "`training.learning_rate`"),
        (("bpe", text, tmp_path / "pieces", "--size", 999), "it gives 10; ask for fewer"),
    ):
        status, _, err = las(*arguments)
        assert status == 1 and words in error_line(err), arguments
    monkeypatch.setenv("OMP_NUM_THREADS", "99999")
    for arguments in (("info", model), ("lm", "ngram", text, tmp_path / "lm")):
        status, _, err = las(*arguments)
        assert status == 1 and error_line(err).startswith("error: OMP_NUM_THREADS: 99999")


def test_unknown_words(las, tmp_path):
    for arguments, named in (
        (("prepare", "timit", tmp_path, tmp_path), "librispeech"),
        (("trian", tmp_path), "trian"),
        (("transcribe", "--bream", "3"), "--bream"),
    ):
        status, out, err = las(*arguments)
        assert status == 2 and out == "" and named in err


@pytest.mark.parametrize(
    ("arguments", "option", "taken"),
    [
        (
            ("transcribe", "a.wav", "--attention", "--output-dir", "oa"),
            "--attention",
            "--output-dir",
        ),
        (("transcribe", "a.wav", "-o", "-f", "srt"), "--output-dir", "-f"),
        (("explain", "a.wav", "--output-dir", "--greedy"), "--output-dir", "--greedy"),
        (("transcribe-bulk", "a.wav", "--output", "--resume"), "--output", "--resume"),
        (("evaluate", "model", "m.jsonl.gz", "--output=-"), "--output", "-"),
        (("compare", "a.json", "b.json", "--output", "--seed", "3"), "--output", "--seed"),
        (("tune", "model", "dev", "--words", "--lm", "x"), "--words", "--lm"),
        (("lm", "train", "text", "out", "--config", "--x"), "--config", "--x"),
    ],
)
def test_no_option_is_taken_for_a_path(las, tmp_path, monkeypatch, arguments, option, taken):
    monkeypatch.chdir(tmp_path)
    status, out, err = las(*arguments)
    assert (status, out) == (2, "") and not list(tmp_path.iterdir())
    line = error_line(err)
    assert f"'{option}'" in line and f"it needs a path, and '{taken}' is an option" in line


def test_from_a_folder_to_a_transcript(las, tmp_path):
    mine = write_folder(tmp_path / "mine", sentences(6))
    assert las("prepare", "folder", mine, tmp_path / "data")[0] == 0
    manifest, run = tmp_path / "data" / "mine.jsonl.gz", tmp_path / "run"
    save_settings(run_config(manifest, run, manifest), tmp_path / "config.yaml")
    status, out, err = las("train", tmp_path / "config.yaml", "training.epochs=1")
    assert status == 0 and err == "" and f"model: {run / 'model'}" in out
    status, out, _ = las("evaluate", run / "model", manifest)
    assert status == 0 and "WER" in out
    status, out, err = las("transcribe", "--model", run / "model", mine / "s0" / "u000.wav")
    assert (status, err) == (0, "") and len(out.splitlines()) == 1
    status, out, _ = las("info", run / "model")
    assert status == 0 and "utterances: 6" in out and __version__ in out


def test_version_and_help(las):
    assert las("--version")[:2] == (0, f"{__version__}\n")
    status, out, _ = las("--help")
    assert status == 0
    for command in ("prepare", "train", "evaluate", "transcribe", "info"):
        assert command in out


def test_a_process_prints_one_line_and_no_traceback(model, tmp_path):
    text_file(tmp_path / "text.wav")
    good = recording(tmp_path / "a.wav")
    process = start("transcribe", "--model", model, tmp_path / "text.wav", good)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    line, summary = err.splitlines()
    assert str(tmp_path / "text.wav") in error_line(line)
    assert summary.startswith("1 file, ") and summary.endswith("; 1 failed")
    assert out.startswith(f"{good}\t")


def test_a_reader_that_goes_away(monkeypatch, capfd):
    def gone(**_):
        raise BrokenPipeError

    monkeypatch.setattr(main, "app", gone)
    saved = os.dup(1)
    try:
        with pytest.raises(SystemExit) as caught:
            main.main()
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    assert caught.value.code == 1


def test_help_needs_no_heavy_modules():
    code = (
        "import sys; import las.cli.main; "
        "print([m for m in ('torch', 'lhotse') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"
