"""Figures: attention over the spectrogram, learning curves."""

import json
import math
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from las.config import FrontendConfig
from las.errors import LASError
from las.storage.atomic import replacing

mpl.rcParams["svg.hashsalt"] = "las"  # reproducible files


def attention(
    waveform: np.ndarray, alignment: np.ndarray, text: str, frontend: FrontendConfig
) -> Figure:
    """Log-mel spectrogram, and below it the attention of each character.

    Args:
        waveform: [S] at the frontend's rate.
        alignment: [U, T] of each step over the memory, the end of sentence last.
        text: of the hypothesis, one character a step.
        frontend: settings of the spectrogram.
    """
    import librosa  # slow to import
    import librosa.display

    mel = librosa.feature.melspectrogram(
        y=waveform,
        sr=frontend.sample_rate,
        n_fft=frontend.n_fft,
        win_length=frontend.win_length,
        hop_length=frontend.hop_length,
        n_mels=frontend.n_mels,
        htk=True,
        norm=None,
        pad_mode="constant",
    )
    seconds = len(waveform) / frontend.sample_rate
    steps = alignment.shape[0]
    figure = Figure(figsize=(10, 3 + 0.12 * steps), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 0.5 + 0.05 * steps])
    librosa.display.specshow(
        librosa.power_to_db(mel, ref=np.max),
        sr=frontend.sample_rate,
        hop_length=frontend.hop_length,
        x_axis="time",
        y_axis="mel",
        htk=True,
        ax=above,
    )
    above.set(title=text or "(nothing written)", xlabel="")
    below.imshow(
        alignment,
        aspect="auto",
        origin="upper",
        interpolation="nearest",
        extent=(0.0, seconds, steps - 0.5, -0.5),
        cmap="magma",
        vmin=0.0,
        vmax=1.0,
    )
    marks = [*text.replace(" ", "\u2423"), "end"][:steps]
    below.set_yticks(range(len(marks)), marks, fontsize=7)
    below.set(xlabel="time [s]", ylabel="character")
    return figure


def learning_curves(log: Path) -> Figure:
    """Losses by step and dev error rates by step from a run's ``log.jsonl``.

    Raises:
        LASError: the log is missing or has no steps.
    """
    try:
        # The last line of a running or killed training may be incomplete.
        lines = log.read_text(encoding="utf-8").split("\n")[:-1]
        rows = [json.loads(line) for line in lines]
    except OSError as error:
        raise LASError(f"{log}: cannot read the training log ({error.strerror})") from None
    except ValueError:  # not JSON, or not text
        raise LASError(f"{log}: not a training log: expected one JSON object a line") from None
    if not all(isinstance(row, dict) and "step" in row for row in rows):
        raise LASError(f"{log}: not a training log: a line has no step")
    steps = [row for row in rows if "dev" not in row]
    devs = [row for row in rows if "dev" in row]
    if not steps:
        raise LASError(f"{log}: the log has no steps yet")
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in ("attention", "ctc"):
        # While CTC is trained alone the attention loss is 0: a gap in the curve.
        values = [r[name] or math.nan for r in steps]
        left.plot([r["step"] for r in steps], values, lw=0.5, label=name)
        values = [r["dev"][name] or math.nan for r in devs]
        left.plot([r["step"] for r in devs], values, label=f"{name}, dev")
    left.set(xlabel="step", ylabel="loss [nats a character]", yscale="log")
    left.legend()
    for name in ("wer", "cer"):
        right.plot(
            [r["step"] for r in devs],
            [max(r["dev"][name], 0.1) for r in devs],
            marker=".",
            label=name.upper(),
        )
    right.set(xlabel="step", ylabel="dev error rate [%]", yscale="log")
    right.legend()
    return figure


def kind_of(path: Path) -> str:
    """The format of a figure, by its suffix.

    Raises:
        LASError: no format has this suffix.
    """
    kind = path.suffix.lstrip(".").lower() or "png"
    known = FigureCanvasBase.get_supported_filetypes()
    if kind not in known:
        raise LASError(f"{path}: cannot draw {kind!r}; use one of {', '.join(sorted(known))}")
    return kind


def save(figure: Figure, path: Path) -> None:
    """Write a figure, atomically; the suffix is its format."""
    kind = kind_of(path)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=110)
