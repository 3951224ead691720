"""`las export`, and what the other commands do with its folder."""

import json
import shutil

import numpy as np
import pytest
import soundfile
from speech import RATE, error_line, run_main, sentences, small_model, whistle

from las.export.runtime import load
from las.storage.exported import MANIFEST
from tests.test_package import without_extras


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    small_model().save_pretrained(folder)
    (folder / "confidence.yaml").write_text("slope: 0.5\noffset: 0.1\n")
    (folder / "search.yaml").write_text("beam: 4\n")
    return folder


@pytest.fixture
def las(monkeypatch, capsys):
    return lambda *arguments: run_main(monkeypatch, capsys, *arguments)


@pytest.fixture
def exported(las, model, tmp_path):
    folder = tmp_path / "exported"
    assert las("export", model, folder)[0] == 0
    return folder


@pytest.fixture
def audio(tmp_path):
    """A recording of several chunks."""
    parts = [whistle(text, seed) for seed, text in enumerate(sentences(6))]
    silence = np.zeros(RATE // 2, np.float32)
    path = tmp_path / "long.wav"
    soundfile.write(path, np.concatenate([x for part in parts for x in (part, silence)]), RATE)
    return path


def test_it_says_what_it_wrote(las, model, tmp_path):
    folder = tmp_path / "a/b"
    status, out, err = las("export", model, folder, "--dtype", "int8")
    size = sum(path.stat().st_size for path in folder.glob("*.onnx")) / 1e6
    assert (status, out, err) == (0, f"{folder}: 4 ONNX graphs, {size:.1f} MB, int8\n", "")
    assert load(folder).manifest.dtype == "int8"


def test_a_folder_of_other_files_is_refused(las, model, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / ".partial-0").touch()  # of an export that was killed
    assert las("export", model, folder)[0] == 0
    (folder / MANIFEST).unlink()  # not complete
    assert las("export", model, folder, "--dtype", "int8")[0] == 0
    assert load(folder).manifest.dtype == "int8"
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    status, _, err = las("export", model, other)
    assert status == 1 and error_line(err) == (
        f"error: {other}: this folder holds other files (notes.txt); name a new folder, or an "
        "empty one"
    )
    assert [path.name for path in other.iterdir()] == ["notes.txt"]
    status, _, err = las("export", model, other / "notes.txt")
    assert status == 1 and "a file is in its place" in error_line(err)


def test_an_incomplete_export_is_named(las, model, exported, audio):
    (exported / MANIFEST).unlink()
    status, _, err = las("transcribe", audio, "--model", exported)
    assert status == 1 and error_line(err) == (
        f"error: {exported}: this export is incomplete: it has no {MANIFEST}; export the model "
        "again"
    )
    shutil.copy(model / "model.safetensors", exported)  # a model folder, with graphs beside
    shutil.copy(model / "config.yaml", exported)
    assert las("transcribe", audio, "--model", exported)[0] == 0


@pytest.mark.parametrize("form", ["txt", "json"])
def test_transcribe_writes_what_the_model_folder_gives(las, model, exported, audio, tmp_path, form):
    results = []
    for folder in (model, exported):
        out = tmp_path / f"{folder.name}-out"
        extra = ["--word-timestamps"] if form == "json" else []
        status, _, _ = las(
            "transcribe", audio, "--model", folder, "--greedy", "-f", form, "-o", out, *extra
        )
        assert status == 0
        results.append((out / f"long.{form}").read_text())
    if form == "txt":
        assert results[0] == results[1] and len(results[0].split()) > 1
    else:
        ours, theirs = (json.loads(text) for text in results)
        assert [s["tokens"] for s in ours["segments"]] == [s["tokens"] for s in theirs["segments"]]
        for key in ("start", "end", "probability"):
            values = [
                [word[key] for segment in one["segments"] for word in segment["words"]]
                for one in (ours, theirs)
            ]
            assert np.allclose(*values, atol=1e-3)


def test_it_draws_attention(las, exported, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("las.evaluation.plots.attention", lambda *given: drawn.append(given))
    monkeypatch.setattr("las.evaluation.plots.save", lambda figure, path: None)
    soundfile.write(tmp_path / "a.wav", whistle("ABE CAB"), RATE)
    command = ("transcribe", tmp_path / "a.wav", "--model", exported)
    status, out, _ = las(*command, "--attention", tmp_path / "a.png")
    assert status == 0
    ((_, alignment, text, _),) = drawn
    assert text == out.strip("\n")
    assert np.allclose(alignment.sum(1), 1, atol=1e-5) and len(alignment) >= len(text)


@pytest.mark.parametrize(
    "options",
    [
        ("--beam", "2"),
        ("--ctc", "0.3"),
        ("--lm", "lm"),
        ("--lm-weight", "0.3"),
        ("--words", "words"),
        ("--n-best", "2"),
        ("--search", "max_steps=5"),
        ("--device", "cuda"),
        ("--precision", "bfloat16"),
    ],
)
def test_what_it_cannot_do_is_one_line(las, exported, audio, options):
    status, out, err = las("transcribe", audio, "--model", exported, *options)
    assert (status, out) == (1, "")
    assert error_line(err).startswith(f"error: {options[0]}: {exported} is an exported model")


def test_what_is_greedy_search_is_allowed(las, exported, audio):
    options = ("--beam", "1", "--ctc", "0", "--n-best", "1", "--device", "cpu", "--greedy")
    assert las("transcribe", audio, "--model", exported, *options)[0] == 0


@pytest.mark.parametrize(
    "command",
    [
        ("export", "FOLDER", "elsewhere"),
        ("evaluate", "FOLDER", "manifest.jsonl.gz"),
        ("explain", "audio.wav", "--model", "FOLDER"),
        ("info", "FOLDER"),
        ("prepare", "folder", "x", "data", "--like", "FOLDER"),
    ],
)
def test_other_commands_name_the_export(las, exported, command):
    status, _, err = las(*(exported if word == "FOLDER" else word for word in command))
    assert status == 1
    assert f"{exported}: an exported model" in error_line(err)


def test_the_calibration_goes_along(las, model, exported, tmp_path):
    assert (exported / "confidence.yaml").read_text() == "slope: 0.5\noffset: 0.1\n"
    other = tmp_path / "other"
    shutil.copytree(model, other)
    (other / "confidence.yaml").unlink()
    assert las("export", other, exported)[0] == 0
    assert not (exported / "confidence.yaml").exists()


def test_refused_targets(las, model, tmp_path):
    before = sorted(path.name for path in model.iterdir())
    status, _, err = las("export", model, model)
    assert status == 1 and f"{model}: this folder holds a model" in error_line(err)
    assert sorted(path.name for path in model.iterdir()) == before
    (tmp_path / "file").write_text("")
    status, _, err = las("export", model, tmp_path / "file/out")
    assert status == 1 and "as a file is in its place" in error_line(err)
    status, _, err = las("export", model, tmp_path / "out", "--format", "torchscript")
    assert status == 2 and "'onnx'" in error_line(err)
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_finite(las, tmp_path):
    broken = small_model()
    broken.ctc.weight.data[0, 0] = float("nan")
    broken.save_pretrained(tmp_path / "broken")
    status, _, err = las("export", tmp_path / "broken", tmp_path / "out", "--dtype", "int8")
    assert status == 1 and "not written as int8: ctc.weight" in error_line(err)
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_a_missing_package_is_one_line(model, exported, audio):
    done = without_extras("export", model, exported)
    assert (done.returncode, done.stderr) == (
        1,
        "error: onnx is not installed, which this command needs: "
        "pip install 'listen-attend-spell[export]' (in a checkout: pip install -e '.[export]')\n",
    )
    done = without_extras("transcribe", audio, "--model", exported)
    assert done.returncode == 1 and "onnxruntime is not installed" in error_line(done.stderr)
