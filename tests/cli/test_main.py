"""The command: every way to use it wrongly gives one clear line, and never a traceback."""

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
import yaml
from lhotse import CutSet, RecordingSet
from speech import (
    RATE,
    error_line,
    full_disk,
    run_config,
    run_main,
    sentences,
    small_model,
    start,
    whistle,
    write_folder,
    write_manifest,
)

from las import __version__
from las.cli import main
from las.storage.settings import save_settings


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    small_model().save_pretrained(folder, {"step": "0", "licence": "none"})
    return folder


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("cli"), sentences(6))


@pytest.fixture
def las(monkeypatch, capsys):
    def run(*arguments):
        return run_main(monkeypatch, capsys, *arguments)

    return run


def recording(path, text="ABE CAB", rate=RATE, channels=1, **settings):
    samples = whistle(text, rate=rate)
    soundfile.write(path, np.stack([samples] * channels, 1), rate, **settings)
    return path


# --- transcribe -----------------------------------------------------------------------------


def text_file(path):
    path.write_text("This is a text, whatever its name says.\n" * 20)


def nan(path):
    samples = whistle("ABE CAB")
    samples[1000:1010] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT")


def cut_flac(path):
    recording(path, "FADE CAB DECAF " * 3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def clip(path):
    soundfile.write(path, np.zeros(RATE // 100, np.float32), RATE)


BAD = {
    "text.wav": (text_file, "not an audio file"),
    "empty.wav": (lambda path: path.touch(), "empty"),
    "folder.wav": (lambda path: path.mkdir(), "no audio below this folder"),
    "clip.wav": (clip, "10 ms"),
    "nan.wav": (nan, "NaN"),
    "missing.wav": (lambda path: None, "no such file"),
    "cut.flac": (cut_flac, "cut short"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line(las, model, tmp_path, name):
    make, reason = BAD[name]
    make(tmp_path / name)
    status, out, err = las("transcribe", "--model", model, tmp_path / name)
    line = error_line(err)
    assert status == 1 and out == ""
    assert str(tmp_path / name) in line
    assert reason in line or (name == "cut.flac" and ("decoded" in line or "cut short" in line))


def test_good_files_beside_bad_ones_are_transcribed(las, model, tmp_path):
    good = [recording(tmp_path / "a.wav"), recording(tmp_path / "b.flac", "FADE")]
    for name, (make, _) in BAD.items():
        make(tmp_path / name)
    bad = [tmp_path / name for name in BAD]
    status, out, err = las("transcribe", "--model", model, good[0], *bad, good[1])
    assert status == 1
    assert [line.split("\t")[0] for line in out.splitlines()] == [str(path) for path in good]
    *lines, last = err.splitlines()
    assert len(lines) == len(bad) and all(line.startswith("error: ") for line in lines)
    assert all(any(str(path) in line for line in lines) for path in bad)
    assert last.startswith("2 files, ") and last.endswith(f"; {len(bad)} failed")
    texts = []
    for path in good:
        status, text, err = las("transcribe", "--model", model, path)
        assert (status, err) == (0, "")
        texts.append(text)
    assert [line.split("\t")[1] + "\n" for line in out.splitlines()] == texts


def test_eight_channels_at_96_khz(las, model, tmp_path):
    plain = recording(tmp_path / "plain.wav", rate=96000, subtype="FLOAT")
    wide = recording(tmp_path / "wide.wav", rate=96000, channels=8, subtype="FLOAT")
    status, out, err = las("transcribe", "--model", model, wide)
    assert (status, err) == (0, "") and len(out.splitlines()) == 1
    assert las("transcribe", "--model", model, plain)[1] == out


def test_a_picture_of_the_attention(las, model, tmp_path):
    status, _, _ = las(
        "transcribe",
        "--model",
        model,
        recording(tmp_path / "a.wav"),
        "--attention",
        tmp_path / "a.png",
    )
    assert status == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


class Evil:
    def __reduce__(self):
        return (open, ("evil-was-here", "w"))


def _random_bytes(folder):
    (folder / "model.safetensors").write_bytes(np.random.default_rng(0).bytes(5000))


def _pickle(folder):
    (folder / "model.safetensors").write_bytes(pickle.dumps(Evil()))


def _torch_pickle(folder):
    torch.save({"weights": Evil()}, folder / "model.safetensors")


def _foreign_names(folder):
    safetensors.torch.save_file({"x": torch.zeros(2)}, folder / "model.safetensors")


def _cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def _other_sizes(folder):
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("width: 48", "width: 40"))


def _config_with_unknown_key(folder):
    with (folder / "config.yaml").open("a") as file:
        file.write("lisener: {}\n")


def _no_config(folder):
    (folder / "config.yaml").unlink()


def _config_of_bytes(folder):
    (folder / "config.yaml").write_bytes(b"\xff\xfe\0\0")


def _gone(folder):
    shutil.rmtree(folder)


DAMAGE = [_random_bytes, _pickle, _torch_pickle, _foreign_names, _cut, _other_sizes]
DAMAGE += [_config_with_unknown_key, _no_config, _config_of_bytes, _gone]


@pytest.mark.parametrize("damage", DAMAGE)
def test_corrupt_and_foreign_checkpoints(las, model, manifest, tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    damage(folder)
    audio = recording(tmp_path / "a.wav")
    for arguments in (
        ("transcribe", "--model", folder, audio),
        ("evaluate", folder, manifest),
        ("info", folder),
    ):
        status, out, err = las(*arguments)
        assert status == 1 and out == ""
        assert str(folder) in error_line(err)
    assert not (tmp_path / "evil-was-here").exists()


# --- evaluate -------------------------------------------------------------------------------


def test_evaluate_writes_reports(las, model, manifest, tmp_path):
    prefix = tmp_path / "reports" / "dev"
    status, out, err = las("evaluate", model, manifest, "--output", prefix, "--check-batching")
    assert (status, err) == (0, "")
    report = json.loads((tmp_path / "reports" / "dev.json").read_text())
    assert report["cer"] > 0 and 50 < report["wer"] <= 10_000  # percent, of an untrained model
    low, high = report["wer_interval"]
    assert low <= report["wer"] <= high
    assert len(report["utterances"]) == 6
    errors = sum(
        u["substitutions"] + u["deletions"] + u["insertions"] for u in report["utterances"]
    )
    assert report["wer"] == pytest.approx(100 * errors / report["words"])
    assert report["batching"]["differ"] == [] and report["batching"]["largest"] < 1e-4
    assert report["model_info"] == {"step": "0", "licence": "none"}
    assert report["manifest"] == "part.jsonl.gz" and report["search"] == "greedy"
    assert report["command"].startswith("las evaluate ")
    assert "batched and single: 6 of 6 texts equal" in out
    assert report["precision"] == "float32"
    text = (tmp_path / "reports" / "dev.txt").read_text()
    assert f"WER  {report['wer']:6.2f} %" in text and text.startswith(out.splitlines()[0])


def test_evaluate_with_another_precision(las, model, manifest, tmp_path):
    prefix = tmp_path / "halves"
    status, _, err = las("evaluate", model, manifest, "--output", prefix, "--precision", "bfloat16")
    assert (status, err) == (0, "")
    assert json.loads((tmp_path / "halves.json").read_text())["precision"] == "bfloat16"
    status, _, err = las("evaluate", model, manifest, "--output", prefix, "--precision", "half")
    assert status == 2 and "half" in err


def test_evaluate_writes_beside_the_model(las, model, manifest, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    status, _, _ = las("evaluate", folder, manifest, "--batch-seconds", 1)
    assert status == 0
    assert {p.name for p in folder.glob("evaluation*")} == {
        "evaluation-part.txt",
        "evaluation-part.json",
    }


def test_manifests_that_are_not_right(las, model, manifest, tmp_path):
    (tmp_path / "text.jsonl.gz").write_text("a text\n")
    RecordingSet.from_recordings(cut.recording for cut in CutSet.from_jsonl(manifest)).to_file(
        tmp_path / "recordings.jsonl.gz"
    )
    for path, words in (
        (tmp_path / "missing.jsonl.gz", "no such manifest"),
        (tmp_path, "no such manifest"),
        (tmp_path / "text.jsonl.gz", "not a manifest"),
        (tmp_path / "recordings.jsonl.gz", "not a manifest of utterances"),
    ):
        config = run_config(path, tmp_path / "run")
        save_settings(config, tmp_path / "config.yaml")
        for arguments in (("evaluate", model, path), ("train", tmp_path / "config.yaml")):
            status, _, err = las(*arguments)
            line = error_line(err)
            assert status == 1 and str(path) in line and words in line


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


# --- prepare and train ----------------------------------------------------------------------


def test_prepare_counts_what_it_leaves_out(las, tmp_path):
    mine = write_folder(tmp_path / "mine", ["ABE", "CAB", "FADE 7", ""])
    status, out, err = las("prepare", "folder", mine, tmp_path / "out")
    assert (status, err) == (0, "")
    first, *skipped = out.splitlines()
    assert "mine.jsonl.gz: 2 utterances" in first and "2 speakers" in first
    assert sorted(line.strip() for line in skipped) == [
        "skipped 1: characters outside the alphabet (listed in mine.skipped.jsonl)",
        "skipped 1: empty text (listed in mine.skipped.jsonl)",
    ]
    status, _, err = las("prepare", "folder", mine, tmp_path / "out", "--strict")
    assert status == 1 and "u002.wav: characters outside the alphabet" in error_line(err)


def test_prepare_of_a_folder_with_one_bad_text_and_hidden_files(las, tmp_path):
    mine = write_folder(tmp_path / "mine", ["ABE", "CAB"])
    (mine / "s0" / "u000.txt").write_bytes(b"\xff")
    (mine / "s0" / "._u000.wav").write_bytes(b"\0\5\x16\7")
    status, out, err = las("prepare", "folder", mine, tmp_path / "out")
    assert (status, err) == (0, "")
    first, *skipped = out.splitlines()
    assert "mine.jsonl.gz: 1 utterances" in first
    assert sorted(line.strip() for line in skipped) == [
        "skipped 1: hidden (listed in mine.skipped.jsonl)",
        "skipped 1: unreadable text (listed in mine.skipped.jsonl)",
    ]


def test_prepare_of_common_voice(las, tmp_path):
    audio = write_folder(tmp_path / "en" / "clips", ["ABE", "CAB"]) / "s0" / "u000.wav"
    audio.rename(tmp_path / "en" / "clips" / "a.wav")
    for part in ("train", "dev"):
        (tmp_path / "en" / f"{part}.tsv").write_text(
            'client_id\tpath\tsentence\neve\ta.wav\t"Abe\n'
        )
    status, out, _ = las("prepare", "commonvoice", tmp_path / "en", tmp_path / "out")
    assert status == 0 and ["train.jsonl.gz" in line for line in out.splitlines()] == [True, False]
    arguments = (tmp_path / "en", tmp_path / "out", "--part", "dev")
    status, out, _ = las("prepare", "commonvoice", *arguments)
    assert status == 0 and len(out.splitlines()) == 1 and "dev.jsonl.gz: 1 utterances" in out


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


def test_prepare_carves_out_speakers(las, tmp_path):
    mine = write_folder(tmp_path / "mine", ["ABE", "CAB", "FADE", "BEAD"])
    for name in ("a", "b"):
        status, _, _ = las(
            "prepare", "folder", mine, tmp_path / name, "--dev-speakers", 1, "--seed", 3
        )
        assert status == 0

    def speakers(name):
        return {c.supervisions[0].speaker for c in CutSet.from_jsonl(tmp_path / name)}

    train, dev = speakers("a/mine.jsonl.gz"), speakers("a/mine-dev.jsonl.gz")
    assert len(train) == len(dev) == 1 and not train & dev
    assert speakers("b/mine-dev.jsonl.gz") == dev
    status, _, err = las("prepare", "folder", mine, tmp_path / "c", "--dev-speakers", 2)
    assert status == 1 and "use fewer" in error_line(err)


def test_prepare_of_what_is_not_there(las, tmp_path):
    for corpus in ("librispeech", "an4", "folder"):
        status, _, err = las("prepare", corpus, tmp_path / "missing", tmp_path / "out")
        assert status == 1 and str(tmp_path / "missing") in error_line(err)


# --- said before the work begins --------------------------------------------------------------


@pytest.fixture
def idle(monkeypatch):
    """Whoever listens to audio fails."""

    def listen(*_):
        raise AssertionError("it listened")

    monkeypatch.setattr("las.model.las.LAS.encode", listen)


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
        assert str(file) in error_line(err) and "a file is where" in err
    status, _, err = las("transcribe", audio, "--model", model, "--attention", tmp_path / "x.doc")
    assert status == 1 and "cannot draw 'doc'" in error_line(err)
    for command in (("bpe", text), ("evaluate", model, manifest, "--output")):
        (tmp_path / "r.txt").mkdir(exist_ok=True)
        status, _, err = las(*command, tmp_path / ("r.txt" if command[0] == "bpe" else "r"))
        assert status == 1 and "a folder is where this file is to be" in error_line(err)


def test_what_cannot_be_scored(las, idle, model, manifest, tmp_path):
    cuts = list(CutSet.from_file(manifest))
    empty = [c.map_supervisions(lambda s: dataclasses.replace(s, text=" ")) for c in cuts]
    alone = [c.map_supervisions(lambda s: dataclasses.replace(s, speaker="one")) for c in cuts]
    for name, part, words in (
        ("repeated", [*cuts, cuts[0]], "comes more than once"),
        ("empty", empty, "the references of all 6 utterances are empty"),
        ("alone", alone, "there are not two speakers"),
    ):
        path = tmp_path / f"{name}.jsonl.gz"
        CutSet.from_cuts(part).to_file(path)
        for command in ("calibrate",) if name == "alone" else ("evaluate", "tune"):
            status, _, err = las(command, model, path, "--output", tmp_path / "r")
            assert status == 1 and words in error_line(err)
            assert name == "alone" or str(path) in err
        if name != "alone":
            config = tmp_path / "config.yaml"
            save_settings(run_config(manifest, tmp_path / "run", path), config)
            status, _, err = las("train", config)
            assert status == 1 and f"{path}: " in error_line(err) and words in err


def test_audio_that_is_gone(las, model, tmp_path):
    manifest = write_manifest(tmp_path, sentences(2))
    shutil.rmtree(tmp_path / "audio")
    status, _, err = las("evaluate", model, manifest)
    assert status == 1 and "no such file" in error_line(err)


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


# --- what is not known ------------------------------------------------------------------------


def test_unknown_words(las, tmp_path):
    for arguments, named in (
        (("prepare", "timit", tmp_path, tmp_path), "librispeech"),
        (("trian", tmp_path), "trian"),
        (("transcribe", "--bream", "3"), "--bream"),
    ):
        status, out, err = las(*arguments)
        assert status == 2 and out == "" and named in err


def test_unknown_settings_suggest_the_right_one(las, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"training": {"learning_rat": 1.0}}))
    status, _, err = las("train", config)
    line = error_line(err)
    assert status == 1 and "unknown setting `training.learning_rat`" in line
    assert "did you mean `training.learning_rate`?" in line
    config.write_text("training: {}\n")
    for override, words in (
        ("training.epoch=3", "did you mean `training.epochs`?"),
        ("training.epochs=many", "training.epochs"),
        ("training.epochs", "key=value"),
    ):
        status, _, err = las("train", config, override)
        assert status == 1 and words in error_line(err)


def test_configurations_that_are_none(las, tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\0")
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    for name in ("missing.yaml", "binary.yaml", "list.yaml", "broken.yaml", "."):
        status, _, err = las("train", tmp_path / name)
        assert status == 1 and str(tmp_path / name) in error_line(err)


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


# --- processes of their own -----------------------------------------------------------------


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
    def gone():
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
