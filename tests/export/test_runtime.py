"""Recognition without torch: texts of the samples, batches, and one line about what is wrong."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import las
from las.audio import reader
from las.errors import LASError
from las.export.folder import export
from las.export.runtime import load
from las.model.las import LAS
from las.storage.exported import MANIFEST, read_manifest
from las.transcription.transcriber import Transcriber
from tests.export.test_graphs import model as small_model

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


def test_int8_is_smaller(folders):
    sizes = [sum(p.stat().st_size for p in folder.glob("*.onnx")) for folder in folders.values()]
    assert sizes[1] < 0.3 * sizes[0]


def test_no_torch_is_needed(folders, texts):
    code = (
        "import sys\n"
        "for name in ('torch', 'torchaudio', 'triton', 'onnx'): sys.modules[name] = None\n"
        "from las.export.runtime import load\n"
        "for text in load(sys.argv[1]).transcribe_many(sys.argv[2:]): print(text)"
    )
    command = [sys.executable, "-c", code, str(folders["float32"]), *map(str, SAMPLES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == texts, done.stderr


def test_samples_and_silence(folders, texts):
    model = load(folders["int8"])
    waveform = reader.load(SAMPLES[0])
    silence = np.zeros(16000, np.float32)
    assert model.transcribe_many([silence, waveform.astype(np.float64)]) == ["", texts[0]]


def test_what_is_no_waveform_is_refused(folders):
    model = load(folders["int8"])
    for samples in (np.ones((2, 16000)), np.full(16000, np.nan)):
        with pytest.raises(LASError, match=r"audio 0: give finite samples \[S\] at 16000 Hz"):
            model.transcribe(samples)


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
