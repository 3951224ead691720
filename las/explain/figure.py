"""Explanations as pictures by matplotlib: one figure a section, and images for the page."""

import io

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from las.explain.types import Explanation, Section

mpl.rcParams["svg.hashsalt"] = "las"

RANGE = 80.0
"""Decibels below the loudest that are drawn."""
COLOURS = {"good": "#1a7f37", "fair": "#9a6700", "poor": "#cf222e"}
"""Of text on white; each has a contrast of at least 4.5 to it."""


def level(probability: float) -> str:
    """A probability in one word."""
    if probability >= 0.9:
        return "good"
    return "fair" if probability >= 0.6 else "poor"


def mark(character: str) -> str:
    """A character as it is shown: a space and the end of sentence are made visible."""
    return {"": "end", " ": "\u2423"}.get(character, character)


def spectrogram_image(section: Section) -> bytes:
    """PNG of the spectrogram, one pixel a value, highest band on top."""
    values = np.clip(section.spectrogram[::-1] / RANGE + 1.0, 0.0, 1.0)
    return _png(colormaps["magma"](values, bytes=True))


def attention_image(section: Section) -> bytes:
    """PNG of the attention, one pixel a weight; the weight is how opaque it is."""
    weights = section.attention / max(float(section.attention.max(initial=0.0)), 1e-9)
    image = np.full((*weights.shape, 4), 255, np.uint8)
    image[..., 3] = np.round(255 * np.sqrt(weights))  # so that weak ones are seen
    return _png(image)


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(stream, "PNG", optimize=True)
    return stream.getvalue()


def figure(explanation: Explanation, section: Section) -> Figure:
    """Words, spectrogram, CTC's characters and attention of a section over one axis of time."""
    import librosa

    rows = len(section.characters)
    seconds = section.end - section.start
    drawn = Figure(
        figsize=(float(np.clip(2.2 * seconds, 10.0, 22.0)), 3.6 + 0.15 * max(rows, 4)),
        layout="constrained",
    )
    words, above, ctc, below = drawn.subplots(
        4, 1, sharex=True, height_ratios=[0.45, 2.4, 0.28, 0.4 + 0.15 * max(rows, 4)]
    )
    drawn.suptitle(section.text or "(no text)", fontweight="bold", fontsize=13)

    for word in section.words:
        colour = COLOURS[level(word.probability)]
        words.axvspan(word.start, word.end, color=colour, alpha=0.14, lw=0)
        middle = (word.start + word.end) / 2
        label = f"{word.word}\n{word.probability:.0%}"
        words.text(middle, 0.5, label, color=colour, ha="center", va="center", fontsize=8)
    words.set(ylim=(0, 1), yticks=[], ylabel="words")

    bands, width = len(section.spectrogram), section.spectrogram.shape[1] * section.hop
    above.imshow(
        section.spectrogram,
        aspect="auto",
        origin="lower",
        cmap="magma",
        vmin=-RANGE,
        vmax=0.0,
        extent=(
            section.start,
            section.start + width,
            0,
            bands,
        ),
    )
    places = [f for f in (250, 500, 1000, 2000, 4000, 8000) if f <= explanation.highest]
    highest = librosa.hz_to_mel(explanation.highest, htk=True)
    above.set_yticks(
        [bands * librosa.hz_to_mel(f, htk=True) / highest for f in places],
        [f"{f / 1000:g}" for f in places],
    )
    above.set(ylabel="frequency [kHz]")

    for spike in section.ctc:
        ctc.text(spike.time, 0.5, mark(spike.text), ha="center", va="center", fontsize=8)
    ctc.set(ylim=(0, 1), yticks=[], ylabel="CTC")

    end = section.start + section.attention.shape[1] * section.frame
    below.imshow(
        np.sqrt(section.attention) if rows else np.zeros((1, 1)),  # faint attention is seen
        aspect="auto",
        interpolation="nearest",
        cmap="magma",
        vmin=0.0,
        vmax=1.0,
        extent=(section.start, end, max(rows, 1) - 0.5, -0.5),
    )
    below.set_yticks(range(rows), [mark(c.text) for c in section.characters], fontsize=7)
    below.set(xlim=(section.start, section.end), xlabel="time [s]", ylabel="attention")
    for axes in (words, ctc):
        for side in axes.spines.values():
            side.set_visible(False)
        axes.tick_params(bottom=False)
        axes.yaxis.label.set(rotation=0, ha="right", va="center")
    return drawn
