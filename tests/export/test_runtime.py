"""Recognition without torch: texts of the samples, batches, and one line about what is wrong."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import las
from las.api import waveform
from las.audio import reader
from las.errors import LASError
from las.export.folder import export
from las.export.runtime import load
from las.model.features import normalise
from las.model.las import LAS
from las.storage.exported import MANIFEST, read_manifest
from las.transcription.transcriber import Transcriber
from tests.export.test_graphs import model as small_model

PAGE = Path(__file__).parents[2] / "docs/export.md"
SAMPLES = sorted(
    path for path in (Path(las.__file__).parent / "samples").iterdir() if path.suffix != ".tsv"
)


@pytest.fixture(scope="module")
def bundled() -> LAS:
    return LAS.from_pretrained()


@pytest.fixture(scope="module")
def texts(bundled) -> list[str]:
    """Those of torch, one recording at a time."""
    transcriber = Transcriber(bundled, torch.device("cpu"))
    return [transcriber.waveforms([reader.load(path)])[0].text for path in SAMPLES]


@pytest.fixture(scope="module")
def folders(bundled, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("exported")
    for dtype in ("float32", "int8"):
        export(bundled, root / dtype, dtype)
    return {dtype: root / dtype for dtype in ("float32", "int8")}


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_the_samples_have_the_texts_of_torch(folders, texts, dtype):
    model = load(folders[dtype])
    assert len(SAMPLES) == 8
    assert [model.transcribe(path) for path in SAMPLES] == texts
    assert model.transcribe_many(SAMPLES) == texts
    assert model.transcribe_many(SAMPLES, batch_seconds=4.0) == texts


def test_features_are_as_near_to_float64_as_those_of_torch(bundled, folders):
    config = bundled.config.frontend
    waveform = reader.load(SAMPLES[0])
    with torch.inference_mode():
        features, lengths = bundled.frontend(
            torch.from_numpy(waveform)[None], torch.tensor([len(waveform)])
        )
        window = bundled.frontend.mel.spectrogram.window.double()
        side = (config.n_fft - config.win_length) // 2
        padded = np.pad(waveform.astype(np.float64), config.n_fft // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, config.n_fft)
        spectrum = np.fft.rfft(frames[:: config.hop_length] * np.pad(window, side))
        energies = np.square(np.abs(spectrum)) @ bundled.frontend.mel.mel_scale.fb.double().numpy()
        logs = torch.from_numpy(np.log(np.maximum(energies, config.floor)))[None]
        right = normalise(logs, lengths)
    encoder = onnxruntime.InferenceSession(folders["float32"] / "frontend.onnx")
    found, _ = encoder.run(
        None, {"waveforms": waveform[None], "samples": np.array([len(waveform)])}
    )
    error = np.abs(found - right.numpy()).max()
    assert error < 1e-3 and error <= float((features - right).abs().max())


def test_int8_is_smaller(folders):
    sizes = [sum(p.stat().st_size for p in folder.glob("*.onnx")) for folder in folders.values()]
    assert sizes[1] < 0.3 * sizes[0]


# A process with only the packages that the page names: texts of files, then its examples.
WITHOUT_TORCH = """
import doctest, re, sys
for name in (
    "torch", "torchaudio", "triton", "onnx", "jiwer", "rich", "safetensors", "sentencepiece",
    "typer", "librosa", "scipy",
):
    sys.modules[name] = None
page, *files = sys.argv[1:]
from las.export.runtime import load
for text in load("exported").transcribe_many(files):
    print(text)
text = re.sub("^```.*$", "", open(page, encoding="utf-8").read(), flags=re.MULTILINE)
examples = doctest.DocTestParser().get_doctest(text, {}, page, page, 0)
assert len(examples.examples) > 20
print(doctest.DocTestRunner().run(examples).failed, "failed")
"""


def test_no_torch_is_needed(folders, texts, tmp_path):
    (tmp_path / "exported").symlink_to(folders["float32"])
    command = [sys.executable, "-c", WITHOUT_TORCH, PAGE, *SAMPLES]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.splitlines() == [*texts, "0 failed"], done.stdout + done.stderr


def test_samples_and_silence(folders, texts):
    model = load(folders["int8"])
    waveform = reader.load(SAMPLES[0])
    silence = np.zeros(16000, np.float32)
    assert model.transcribe_many([silence, waveform.astype(np.float64)]) == ["", texts[0]]


def test_samples_are_what_they_are_for_a_model_folder(folders, monkeypatch):
    model, heard = load(folders["int8"]), []
    monkeypatch.setattr(model, "decode", lambda batch: [heard.append(x) or "" for x in batch])
    sound = reader.load(SAMPLES[0])
    integers = np.round(sound * 2**15).astype(np.int16)
    for samples in (
        integers,
        integers.astype(">i4") << 16,
        integers / 2**15,
        np.stack([sound, sound]),
    ):
        model.transcribe(samples)
        np.testing.assert_array_equal(heard.pop(), waveform(samples, None, 16000))
    assert not heard
    for samples in (
        np.ones((16000, 2)),
        np.full(16000, np.nan),
        np.zeros(100, np.int16),
        np.zeros(16000, np.int64),
        np.zeros(16000, np.uint8),
        np.zeros(16000, bool),
    ):
        with pytest.raises((LASError, TypeError)) as right:
            waveform(samples, None, 16000)
        with pytest.raises(right.type) as found:
            model.transcribe(samples)
        assert str(found.value) == str(right.value)
    with pytest.raises(TypeError, match="audio: give a path or an array, not list"):
        model.transcribe([0.0] * 16000)


def test_long_audio_is_refused(folders):
    model = load(folders["int8"])
    rate = model.config.frontend.sample_rate
    with pytest.raises(LASError, match=r"audio 0: 30.0 s are more than .*`las transcribe --model"):
        model.transcribe(np.ones(30 * rate, np.float32))


@pytest.fixture
def copy(tmp_path) -> Path:
    """An export of a small model, to be damaged."""
    export(small_model(), tmp_path / "copy")
    return tmp_path / "copy"


def refusal(folder: Path) -> str:
    with pytest.raises(LASError) as raised:
        load(folder)
    message = str(raised.value)
    assert "\n" not in message and str(folder) in message
    return message


def test_damaged_folders(copy):
    graph, manifest = copy / "listener.onnx", copy / "export.json"
    data = graph.read_bytes()
    graph.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "listener.onnx: damaged or of another export" in refusal(copy)
    graph.unlink()
    assert "listener.onnx: cannot be read (No such file" in refusal(copy)
    text = manifest.read_text()
    for damaged in ("", "[]", text[:200], text.replace('"blank"', '"black"')):
        manifest.write_text(damaged)
        assert "export.json: damaged" in refusal(copy)
    manifest.write_text(text.replace("onnx-1", "onnx-2"))
    assert "onnx-2 is newer than this version" in refusal(copy)
    manifest.unlink()
    assert "it has no export.json" in refusal(copy)
    assert "it has no export.json" in refusal(copy / "nowhere")


def test_a_graph_that_onnxruntime_does_not_know(copy):
    data = read_manifest(copy).model_dump(mode="json")
    (copy / "ctc.onnx").write_bytes(b"graph")
    data["graphs"]["ctc"]["sha256"] = hashlib.sha256(b"graph").hexdigest()
    (copy / MANIFEST).write_text(json.dumps(data))
    assert "cannot load it" in refusal(copy)


def test_threads_are_checked(copy):
    assert load(copy, threads=2).text.alphabet == " 'ABC"
    with pytest.raises(LASError, match="threads: 100000 threads are too many"):
        load(copy, threads=100000)
