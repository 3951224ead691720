"""The model and the recordings that ship: what `make demo` promises."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from las.audio import reader
from las.data.corpora import librispeech, prepare
from las.decoding.presets import stored_search
from las.evaluation.evaluate import check_batching
from las.model.folder import bundled
from las.model.las import LAS
from las.scoring import wer as scoring
from las.transcription.transcriber import Transcriber
from las.transcription.transcript import Transcript

ROOT = Path(__file__).parents[1]
SAMPLES = bundled().parent / "samples"


@pytest.fixture(scope="module")
def model() -> LAS:
    return LAS.from_pretrained()


def references() -> dict[str, str]:
    with (SAMPLES / "references.tsv").open(encoding="utf-8", newline="") as file:
        return dict(csv.reader(file, delimiter="\t"))


def test_demo_passes_and_leaves_its_report_and_picture(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "recipes/demo/demo.py", "--output", tmp_path / "out"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for reference in references().values():
        assert f"reference   {reference}\n" in done.stdout
    assert (tmp_path / "out/attention.png").stat().st_size > 10_000
    assert (tmp_path / "out/test.json").is_file()


def test_demo_fails_with_a_model_that_recognises_nothing(tmp_path, model):
    untrained = LAS(model.config)
    untrained.save_pretrained(tmp_path / "model")
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "recipes/demo/demo.py"),
            *("--output", tmp_path / "out", "--model", tmp_path / "model"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: WER ")
    assert "above 15 %" in done.stderr


def test_samples_alone_and_together(model):
    transcriber = Transcriber(model, torch.device("cpu"))
    paths = [SAMPLES / name for name in references()]
    together = list(transcriber.files(paths, batch_seconds=1000.0))
    backwards = list(transcriber.files(paths[::-1], batch_seconds=1000.0))[::-1]
    alone = list(transcriber.files(paths, batch_seconds=0.1))
    for a, b, c in zip(together, backwards, alone, strict=True):
        assert isinstance(a, Transcript)
        assert isinstance(b, Transcript)
        assert isinstance(c, Transcript)
        assert a.text == b.text == c.text
        scores = [x.chunks[0].hypotheses[0].score for x in (a, c)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_padding_moves_no_output_of_the_listener(model):
    waveforms = [torch.from_numpy(reader.load(SAMPLES / name)) for name in references()]
    samples = torch.tensor([len(w) for w in waveforms])
    padded = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
    padded = torch.nn.functional.pad(padded, (0, 16000))
    with torch.inference_mode():
        batch = model.encode(padded, samples)
        for row, waveform in enumerate(waveforms):
            single = model.encode(waveform[None], samples[row : row + 1])
            frames = single.memory.values.shape[1]
            for name in ("keys", "values"):
                a = getattr(batch.memory, name)[row, :frames]
                # Rounding: they reach 10, and float32 has seven digits.
                torch.testing.assert_close(a, getattr(single.memory, name)[0], atol=3e-5, rtol=0)


def test_check_batching_on_the_dev_part(tmp_path, model):
    corpus = ROOT / "recipes/demo/corpus"
    items = librispeech(corpus, ["dev"])["dev"][:12]
    manifest = prepare("dev", items, tmp_path).manifest
    count, differ, largest = check_batching(model, manifest, torch.device("cpu"))
    assert (count, differ) == (12, [])
    assert largest < 3e-5


@pytest.mark.parametrize("search", ["stored", "greedy"])
def test_long_audio(model, search):
    """All samples in one recording, again and again; alone, the model knows all of their words."""
    texts = references()
    names = [*texts, *reversed(texts)] * (1 if search == "stored" else 3)
    random = np.random.default_rng(0)
    parts = [np.append(reader.load(SAMPLES / name), np.zeros(9600, np.float32)) for name in names]
    waveform = np.concatenate(parts)
    waveform += 0.001 * random.normal(size=len(waveform)).astype(np.float32)
    device = torch.device("cpu")
    transcriber = Transcriber(
        model, device, *(stored_search(device=device) if search == "stored" else ())
    )
    (whole,) = transcriber.arrays([waveform])
    said = " ".join(texts[name] for name in names)
    assert len(whole.chunks) > 2
    assert max(w.end - w.start for w in whole.chunks) <= 16000 * model.config.longest_seconds
    wer = scoring.score([scoring.Utterance("long", said, whole.text)]).wer
    assert wer < 10.0
    if search == "greedy":  # the whole as one chunk is much longer than any training utterance
        once = transcriber.waveforms([waveform])[0].text
        assert scoring.score([scoring.Utterance("long", said, once)]).wer > 50.0


def test_the_checkpoint_is_small_and_has_a_card():
    folder = bundled()
    assert (folder / "model.safetensors").stat().st_size < 16e6
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    for heading in ("## Data", "## Licence", "## Word error rate", "## Limitations"):
        assert heading in card
