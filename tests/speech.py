"""A language of whistles: letters are tones, so that a tiny model learns to spell in seconds.

Words repeat letters, and letters repeat over words, so that nothing but an alignment of sounds and
characters spells an utterance.
"""

import contextlib
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from las.cli import main
from las.config import RunConfig, SpecAugmentConfig
from las.data import corpora
from las.model.las import LAS
from las.storage.weights import read_weights
from las.training.trainer import Trainer

RATE = 8000
WORDS = ("ABE", "BEAD", "CAB", "DECAF", "FADE", "FEED", "ACE", "DAB")
TONES = {letter: 320.0 * 1.5**i for i, letter in enumerate("ABCDEF")}  # Hz, up to 2430

# Everything random at once.
RANDOM: dict[str, object] = {
    "listener__dropout": 0.3,
    "speller__dropout": 0.3,
    "frontend__specaugment": SpecAugmentConfig(time_width=10, frequency_width=6).model_dump(),
    "data__speeds": [0.9, 1.0, 1.1],
    "data__noise": 0.5,
    "data__mp3": 0.5,
    "training__label_smoothing": 0.1,
    "training__scheduled_sampling": 0.3,
    "training__scheduled_sampling_start": 2,
}


def whistle(text: str, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """What a text sounds like, [S]: 80 to 120 ms a letter, a pause as long for a space."""
    random = np.random.default_rng(seed)
    sounds = []
    for letter in f" {text} ":
        time = np.arange(int(rate * random.uniform(0.08, 0.12))) / rate
        sound = np.zeros(len(time))
        if letter in TONES:
            pitch = TONES[letter] * random.uniform(0.97, 1.03)
            sound = 0.4 * np.sin(2 * np.pi * pitch * time) * np.hanning(len(time))
        sounds.append(sound)
    samples = np.concatenate(sounds)
    return (samples + 0.002 * random.normal(size=len(samples))).astype(np.float32)


def sentences(count: int, seed: int = 0) -> list[str]:
    """Texts of 2 to 4 words."""
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(2, 5))) for _ in range(count)]


def write_folder(folder: Path, texts: Sequence[str], seed: int = 0) -> Path:
    """A user's corpus: wav and txt side by side, two speakers."""
    for index, text in enumerate(texts):
        path = folder / f"s{index % 2}" / f"u{index:03d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, whistle(text, seed * 1000 + index), RATE)
        path.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
    return folder


def write_manifest(folder: Path, texts: Sequence[str], seed: int = 0) -> Path:
    """The same, prepared."""
    (items,) = corpora.folder(write_folder(folder / "audio", texts, seed)).values()
    return corpora.prepare("part", items, folder).manifest


def write_pairs(folder: Path) -> Path:
    """A prepared corpus of 22 utterances of two words."""
    return write_manifest(folder, [" ".join(text.split()[:2]) for text in sentences(22, seed=5)])


def run_config(
    train: Path | str | list[str], output: Path, dev: Path | str = "", **changes: object
) -> RunConfig:
    """A small run; changes are ``section__key=value``."""
    data: dict[str, dict[str, object]] = {
        "frontend": {
            "sample_rate": RATE,
            "n_fft": 256,
            "win_length": 200,
            "hop_length": 80,
            "n_mels": 24,
            "specaugment": None,
        },
        "listener": {"layers": 2, "width": 32, "reduction": 4, "stack": 2, "dropout": 0.0},
        "attention": {"kind": "location", "width": 32, "channels": 4, "taps": 9},
        "speller": {"width": 48, "embedding": 16, "dropout": 0.0},
        "data": {
            "train": train if isinstance(train, list) else str(train),
            "dev": str(dev),
            "batch_seconds": 12.0,
            "batch_utterances": 4,
            "workers": 0,
        },
        "training": {
            "output": str(output),
            "epochs": 2,
            "device": "cpu",
            "learning_rate": 5e-3,
            "warmup": 10,
            "label_smoothing": 0.0,
        },
    }
    for name, value in changes.items():
        section, _, key = name.partition("__")
        data[section][key] = value
    return RunConfig.model_validate(data)


def small_model(seed: int = 0, **changes: object) -> LAS:
    """A model with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    return LAS(run_config("", Path("unused"), "", **changes).model_settings()).eval()


def train(config: RunConfig) -> Trainer:
    """Run a training to its end."""
    trainer = Trainer(config)
    trainer.run()
    return trainer


def weights(output: Path) -> dict[str, torch.Tensor]:
    """The final weights of a run."""
    return read_weights(output / "model" / "model.safetensors")


def equal(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    """Whether the same names have the same bits."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def log_rows(output: Path) -> list[dict[str, object]]:
    """Rows of ``log.jsonl`` without what depends on the clock."""
    rows = [json.loads(line) for line in (output / "log.jsonl").read_text("utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k != "input_wait"} for row in rows]


def run_main(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Run the command in this process: exit status, output, errors."""
    monkeypatch.setattr(sys, "argv", ["las", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main.main()
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    code = caught.value.code
    return (code if isinstance(code, int) else int(code is not None)), out, err


def error_line(err: str) -> str:
    """The one line that says what is wrong."""
    (line,) = [line for line in err.splitlines() if line.strip()]
    assert line.startswith("error: ")
    return line


def start(*arguments: object, launcher: Sequence[object] = ()) -> subprocess.Popen[str]:
    """The command in a process of its own, leading a process group of its own."""
    return subprocess.Popen(
        [sys.executable, *map(str, launcher or ["-m", "las"]), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts what runs in its background deaf to SIGINT, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def exhaust() -> None:
    """The error of a CPU whose memory ran out."""
    torch.empty(2**60)


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond this many bytes: a full disk, but for the number of its error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
