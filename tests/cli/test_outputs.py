"""Outputs that cannot be written: one line before the work begins, and no partial files."""

from speech import (
    error_line,
    full_disk,
    run_config,
    write_folder,
)

from las.storage.settings import save_settings
from tests.cli.files import recording


def test_outputs_that_cannot_be_written(las, model, manifest, tmp_path):
    write_folder(tmp_path / "mine", ["ABE", "CAB"])
    (tmp_path / "file").write_text("x")
    save_settings(run_config(manifest, tmp_path / "file" / "run"), tmp_path / "config.yaml")
    for arguments in (
        ("prepare", "folder", tmp_path / "mine", tmp_path / "file"),
        ("evaluate", model, manifest, "--output", tmp_path / "file" / "report"),
        ("train", tmp_path / "config.yaml"),
    ):
        status, _, err = las(*arguments)
        assert status == 1 and str(tmp_path / "file") in error_line(err)


def test_where_nothing_can_be_written(las, idle, model, manifest, tmp_path):
    file, audio = tmp_path / "file", recording(tmp_path / "a.wav")
    file.write_text("mine")
    text = tmp_path / "text.txt"
    text.write_text("ABE CAB\n" * 20)
    for arguments in (
        ("prepare", "folder", manifest.parent / "audio", file),
        ("evaluate", model, manifest, "--output", file / "x"),
        ("tune", model, manifest, "--output", file / "x"),
        ("calibrate", model, manifest, "--output", file / "x"),
        ("explain", audio, "--model", model, "--output-dir", file),
        ("transcribe", audio, "--model", model, "-o", file / "x"),
        ("transcribe", audio, "--model", model, "--attention", file / "x.png"),
        ("compare", tmp_path / "a.json", tmp_path / "b.json", "--output", file / "x"),
        ("bpe", text, file / "x"),
        ("lm", "ngram", text, file),
        ("lm", "words", text, file),
    ):
        status, out, err = las(*arguments)
        assert (status, out) == (1, ""), arguments
        assert str(file) in error_line(err) and "a file is in its place" in err
    status, _, err = las("transcribe", audio, "--model", model, "--attention", tmp_path / "x.doc")
    assert status == 1 and "cannot draw 'doc'" in error_line(err)
    for command in (("bpe", text), ("evaluate", model, manifest, "--output")):
        (tmp_path / "r.txt").mkdir(exist_ok=True)
        status, _, err = las(*command, tmp_path / ("r.txt" if command[0] == "bpe" else "r"))
        assert status == 1 and "this file cannot be written, as it is a folder" in error_line(err)


def test_a_full_disk_names_the_file(las, model, manifest, tmp_path):
    (tmp_path / "text").write_text("ABE CAB\n" * 200)
    mine = write_folder(tmp_path / "mine", ["ABE"])
    for size, file, *arguments in (
        (50, "out/mine.jsonl.gz", "prepare", "folder", mine, tmp_path / "out"),
        (50, "report", "evaluate", model, manifest, "--output", tmp_path / "report"),
        (10, "lm/ngram.yaml", "lm", "ngram", tmp_path / "text", tmp_path / "lm", "--order", 2),
        (200, "words/model.safetensors", "lm", "words", tmp_path / "text", tmp_path / "words"),
    ):
        with full_disk(size):
            status, _, err = las(*arguments)
        assert status == 1 and error_line(err).startswith(f"error: {tmp_path / file}: ")
        assert "File too large" in err
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]
