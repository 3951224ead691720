"""What a training's input costs: reading speech, and each augmentation of it.

CPU seconds of one thread a second of speech. Utterances of about 13 s, made of the shipped samples,
are read from FLAC as a training's reader processes read them, plain and with one augmentation each
in every utterance, and with the shares of the general recipe.

    python -m benchmarks.system.reading
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

from benchmarks import common, module
from las import config_files as configuration
from las.audio import reader
from las.config import DataConfig, RunConfig
from las.data.augmentation import distort, perturb_speed
from las.data.dataset import Utterances
from las.model.folder import bundled
from las.text.characters import Characters

NAME = "reading"
SAMPLES = bundled().parent / "samples"
RECIPE = Path(__file__).parents[2] / "recipes/general/conf/las.yaml"
SECONDS = 13.0
EACH = ("rooms", "noise", "volume", "mp3", "silence")  # shares of `data.*` that are set to 1


def write_utterances(folder: Path, count: int, seconds: float) -> CutSet:
    """FLAC files of so many seconds of the shipped samples, and their cuts."""
    samples = np.concatenate([reader.load(path) for path in sorted(SAMPLES.glob("*-*.*"))])
    length = round(seconds * reader.SAMPLE_RATE)
    cuts = []
    for index in range(count):
        path = folder / f"{index}.flac"
        soundfile.write(
            path, np.resize(np.roll(samples, -index * length), length), reader.SAMPLE_RATE
        )
        recording = Recording.from_file(path)
        said = SupervisionSegment(path.stem, path.stem, 0, recording.duration, text="A")
        cuts.append(
            MonoCut(path.stem, 0, recording.duration, 0, supervisions=[said], recording=recording)
        )
    return CutSet.from_cuts(cuts)


def ways() -> dict[str, DataConfig]:
    """Settings of the data by name."""
    recipe = configuration.load(RunConfig, RECIPE, []).data
    plain = DataConfig(speeds=[1.0])
    found = {"FLAC, read alone": plain, "speed 0.9": DataConfig(speeds=[0.9])}
    found |= {name: plain.model_copy(update={name: 1.0}) for name in EACH}
    return {**found, "recipes/general/conf/las.yaml": recipe}


def measure(cuts: CutSet, data: DataConfig, rounds: int) -> common.Row:
    """Median over rounds, each of which is another epoch."""
    took = []
    for epoch in range(rounds + 1):
        augment = partial(distort, config=data, sample_rate=reader.SAMPLE_RATE, seed=0, epoch=epoch)
        utterances = Utterances(Characters(" A"), reader.SAMPLE_RATE, augment)
        given = CutSet.from_cuts(
            perturb_speed(_silenced(cut, data), data.speeds, 0, epoch) for cut in cuts
        )
        start = time.process_time()
        utterances[given]
        took.append((time.process_time() - start) / sum(cut.duration for cut in given))
    return {"cpu_s_per_s": statistics.median(took[1:])}


def _silenced(cut: MonoCut, data: DataConfig) -> MonoCut:
    if data.silence < 1:
        return cut
    return cut.map_supervisions(lambda said: SupervisionSegment(**{**said.to_dict(), "text": ""}))


def table(found: common.Row) -> str:
    """The results as Markdown."""
    lines = [f"# {module(NAME)}: {found['device']}", ""]
    lines += [f"- {key}: {value}" for key, value in found.items() if key not in ("device", "rows")]
    lines += ["", "| utterances of 13 s | CPU seconds a second | one core reads, times real time |"]
    lines += ["|---|---|---|"]
    for row in found["rows"]:
        seconds = row["cpu_s_per_s"]
        lines.append(f"| {row['what']} | {seconds:.5f} | {1 / seconds:,.0f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write JSON and a table."""
    parser = argparse.ArgumentParser(prog=f"python -m {module(NAME)}", description=__doc__)
    parser.add_argument("--utterances", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=common.RESULTS, help="of the results")
    chosen = parser.parse_args(arguments)
    chosen.device = "cpu"
    given = sys.argv[1:] if arguments is None else arguments
    chosen.command = " ".join([parser.prog, *given])
    torch.set_num_threads(1)
    found: common.Row = {**common.environment(chosen), "rows": []}
    found.pop("note", None)
    target = chosen.output / common.slug(found["device"])
    with tempfile.TemporaryDirectory() as folder:
        cuts = write_utterances(Path(folder), chosen.utterances, SECONDS)
        paths = [Path(cut.recording.sources[0].source) for cut in cuts]
        found["bytes_per_s"] = sum(p.stat().st_size for p in paths) / (SECONDS * len(paths))
        for what, data in ways().items():
            found["rows"].append({"what": what, **measure(cuts, data, chosen.rounds)})
            print(found["rows"][-1], flush=True)
    target.mkdir(parents=True, exist_ok=True)
    common.write(target / f"{NAME}.json", json.dumps(found, indent=1) + "\n")
    common.write(target / f"{NAME}.md", table(found))


if __name__ == "__main__":
    main()
