"""Times of words against recordings whose times are known.

Utterances of the demo corpus (synthesised voices), trimmed to their sound, are joined: with pauses
between them or touching, and with noise. Where each piece starts and ends is then known to the
sample, and so are the start of its first word and the end of its last. Pieces that were not
recognised word for word are left out; of short pauses and of none, so are the ends of the
recording. The bundled model with its stored search transcribes.

    python -m benchmarks.system.word_times
"""

import argparse
import difflib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import las
from benchmarks import common, module
from las.audio import reader
from las.transcription.types import Transcription

NAME = "word_times"
CORPUS = Path(__file__).parents[2] / "recipes" / "demo" / "corpus"
RATE = reader.SAMPLE_RATE
PIECES = 4  # in a recording
PAUSE = (0.15, 1.0)  # seconds
SHORT = (0.02, 0.1)
NONE = (0.0, 0.0)
# Name: pauses between pieces, and dB from the loudest 10 ms of a recording down to the noise.
CONDITIONS = {
    "pauses": (PAUSE, None),
    "pauses, noise 50 dB below": (PAUSE, 50.0),
    "pauses, noise 25 dB below": (PAUSE, 25.0),
    "short pauses": (SHORT, None),
    "touching": (NONE, None),
}
SOUND_DB = 35.0  # what is this far below the loudest 10 ms of an utterance is no sound of it
EARLY = 0.01  # seconds before its sound that a word may start: the truth is no finer


@dataclass(frozen=True)
class Joined:
    """A recording, and where its pieces are."""

    samples: np.ndarray  # [S]
    pieces: list[tuple[str, float, float]]  # text, start and end in seconds
    pauses: tuple[float, float]


def sound(samples: np.ndarray) -> np.ndarray:
    """Samples without the silence before and after."""
    size = RATE // 100
    power = np.convolve(np.square(samples.astype(np.float64)), np.ones(size) / size, "valid")
    loud = np.flatnonzero(power > power.max() * 10 ** (-SOUND_DB / 10))
    return samples[loud[0] + size // 2 : loud[-1] + size // 2]


def joined(
    pieces: Sequence[tuple[str, np.ndarray]],
    pauses: tuple[float, float],
    noise: float | None,
    random: np.random.Generator,
) -> Joined:
    """Join texts and samples; see ``CONDITIONS``."""
    parts: list[np.ndarray] = []
    placed: list[tuple[str, float, float]] = []
    position = 0

    def pause(seconds: tuple[float, float]) -> None:
        nonlocal position
        parts.append(np.zeros(round(random.uniform(*seconds) * RATE), np.float32))
        position += len(parts[-1])

    for text, samples in pieces:
        pause(pauses if placed else PAUSE)
        placed.append((text, position / RATE, (position + len(samples)) / RATE))
        parts.append(samples)
        position += len(samples)
    pause(PAUSE)
    whole = np.concatenate(parts)
    if noise is not None:
        loudest = np.sqrt(
            np.square(whole[: len(whole) // 160 * 160]).reshape(-1, 160).mean(1)
        ).max()
        hiss = random.normal(size=len(whole)).astype(np.float32)
        whole = whole + loudest * 10 ** (-noise / 20) * hiss
    return Joined(whole, placed, pauses)


def utterances(parts: Sequence[str] = ("dev", "test")) -> list[tuple[str, np.ndarray]]:
    """Texts and trimmed samples of the corpus."""
    found = []
    for part in parts:
        for path in sorted((CORPUS / part).rglob("*.trans.txt")):
            for line in path.read_text(encoding="ascii").splitlines():
                name, text = line.split(" ", 1)
                found.append((text, sound(reader.load(path.with_name(f"{name}.opus")))))
    return found


def recordings(pauses: tuple[float, float], noise: float | None, seed: int = 0) -> list[Joined]:
    """All utterances in a random order, so many in a recording."""
    random = np.random.default_rng(seed)
    pieces = utterances()
    pieces = [pieces[i] for i in random.permutation(len(pieces))]
    groups = [pieces[i : i + PIECES] for i in range(0, len(pieces), PIECES)]
    return [joined(group, pauses, noise, random) for group in groups]


def errors(made: Joined, found: Transcription) -> Iterator[tuple[float, float]]:
    """Seconds by which the first word of a piece starts late, and its last ends late.

    NaN for the start and the end of a recording whose pauses inside are other ones.
    """
    words = [word for segment in found.segments for word in segment.words]
    said = [word for text, _, _ in made.pieces for word in text.split()]
    matcher = difflib.SequenceMatcher(None, said, [word.word for word in words], autojunk=False)
    at = {a + i: b + i for a, b, size in matcher.get_matching_blocks() for i in range(size)}
    first = 0
    for text, start, end in made.pieces:
        size = len(text.split())
        places = [at[index] for index in range(first, first + size) if index in at]
        if len(places) == size == places[-1] - places[0] + 1:
            late = words[places[0]].start - start, words[places[-1]].end - end
            outer = first == 0, first + size == len(said)
            yield tuple(np.where(outer, np.nan, late)) if made.pauses != PAUSE else late
        first += size


def statistics(late: np.ndarray) -> common.Row:
    """Of one kind of times, in milliseconds."""
    ms = 1000 * late
    return {
        "count": len(late),
        "median_absolute": round(float(np.median(np.abs(ms))), 1),
        "bias": round(float(np.median(ms)), 1),
        "mean": round(float(np.mean(ms)), 1),
        "p90_absolute": round(float(np.percentile(np.abs(ms), 90)), 1),
    }


def measure(recognizer: las.Recognizer, condition: str) -> common.Row:
    """A row of results."""
    pauses, noise = CONDITIONS[condition]
    made = recordings(pauses, noise)
    found = recognizer.transcribe_many([each.samples for each in made])
    late = np.array([e for each, text in zip(made, found, strict=True) for e in errors(each, text)])
    starts, ends = (each[~np.isnan(each)] for each in late.T)
    return {
        "condition": condition,
        "pieces": sum(len(each.pieces) for each in made),
        "recognised": len(late),
        "starts": statistics(starts),
        "ends": statistics(ends),
        # Where pieces touch there is sound in any case.
        "before_sound": None if pauses == NONE else round(float(np.mean(starts < -EARLY)), 4),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog=f"python -m {module(NAME)}", description=__doc__)
    parser.add_argument("--model", type=Path, help="model folder; default: the bundled one")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cpu")
    parser.add_argument("--output", type=Path, default=common.RESULTS, help="folder of the results")
    chosen = parser.parse_args(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    chosen.command = " ".join([parser.prog, *given])
    torch.set_num_threads(1)
    recognizer = las.load(chosen.model, device=chosen.device)
    rows = []
    for condition in CONDITIONS:
        rows.append(measure(recognizer, condition))
        print(json.dumps(rows[-1]), flush=True)
    header = common.environment(chosen)
    header["unit"] = "milliseconds; positive is late"
    target = chosen.output / common.slug(common.device_name(chosen.device))
    target.mkdir(parents=True, exist_ok=True)
    common.write(target / f"{NAME}.json", json.dumps({**header, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
