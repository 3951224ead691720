"""The whole pipeline, from audio files to texts: ``python -m benchmarks.system.pipeline``.

How many seconds a second of speech takes, with its error rate: greedy and beam search, one file
at a time and batched, with one thread and two, with the listener in float32 and in bfloat16. The
bundled model reads its samples, repeated; ``--model`` and ``--manifest`` name others.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks import common, module
from benchmarks.kernels import timing
from las.audio import reader
from las.config import SearchConfig
from las.data.dataset import evaluation_batches
from las.data.manifests import read_manifest
from las.decoding.search import describe, search
from las.errors import LASError
from las.evaluation import evaluate
from las.model.folder import bundled
from las.model.las import LAS
from las.runtime import inference_precision
from las.scoring import wer as scoring
from las.version import __version__

NAME = "pipeline"
SEARCHES = (SearchConfig(), SearchConfig(beam=8, ctc=0.3))
Batch = tuple[list[str], Tensor, Tensor]  # references, waveforms [B, S], samples [B]


class Setting(NamedTuple):
    """One way to run it."""

    search: int  # index of SEARCHES
    batch: int
    threads: int
    precision: str


class Samples:
    """The files that ship with the package, again and again."""

    def __init__(self, seconds: float) -> None:
        folder = bundled().parent / "samples"
        lines = (folder / "references.tsv").read_text().splitlines()
        files = [(folder / line.split("\t")[0], line.split("\t")[1]) for line in lines]
        once = sum(len(reader.load(path, 16000)) for path, _ in files) / 16000
        self.files = files * max(1, round(seconds / once))
        self.manifests: list[Path] = []
        self.name = f"the bundled samples, {len(self.files)} files"

    def batches(self, model: LAS, size: int) -> Iterator[Batch]:
        """Padded batches in the order of the files."""
        for at in range(0, len(self.files), size):
            group = self.files[at : at + size]
            rate = model.config.frontend.sample_rate
            waveforms = [torch.from_numpy(reader.load(path, rate)) for path, _ in group]
            samples = torch.tensor([len(waveform) for waveform in waveforms])
            yield [text for _, text in group], pad_sequence(waveforms, batch_first=True), samples


class Manifests:
    """Manifests of ``las prepare``."""

    def __init__(self, manifests: list[Path]) -> None:
        self.manifests = manifests
        self.name = ", ".join(path.name for path in manifests)

    def batches(self, model: LAS, size: int) -> Iterator[Batch]:
        """Padded batches, the longest first."""
        for path in self.manifests:
            for batch in evaluation_batches(
                read_manifest(path),
                model.text,
                sample_rate=model.config.frontend.sample_rate,
                batch_seconds=1e4,
                batch_utterances=size,
            ):
                if isinstance(batch, LASError):
                    raise batch
                yield batch.texts, batch.waveforms, batch.samples


def clock(device: torch.device) -> float:
    """Seconds of the processor, or on a GPU of the clock once the GPU is done."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


@torch.inference_mode()
def run(
    model: LAS, source: Samples | Manifests, device: torch.device, setting: Setting
) -> tuple[dict[str, float], list[scoring.Utterance]]:
    """Seconds of one pass, and its texts."""
    torch.set_num_threads(setting.threads)
    model.precision = inference_precision(setting.precision)
    utterances: list[scoring.Utterance] = []
    heard, listening = 0, 0.0
    wall, begin = time.perf_counter(), clock(device)
    for texts, waveforms, samples in source.batches(model, setting.batch):
        start = clock(device)
        encoded = model.encode(waveforms.to(device), samples.to(device))
        listening += clock(device) - start
        found = search(model, encoded, SEARCHES[setting.search])
        heard += int(samples.sum())
        for text, hypotheses in zip(texts, found, strict=True):
            id = str(len(utterances))
            utterances.append(scoring.Utterance(id, text, hypotheses[0].text))
    took = {"seconds": clock(device) - begin, "wall_s": time.perf_counter() - wall}
    took |= {"listener": listening, "heard": heard / model.config.frontend.sample_rate}
    return took, utterances


def row_of(setting: Setting, several: list[dict[str, float]], wer: float) -> common.Row:
    """Medians of the repeats of a setting."""
    middle = {key: statistics.median(took[key] for took in several) for key in several[0]}
    found = timing.summary([took["seconds"] for took in several])
    return {
        **setting._asdict(),
        "search": describe(SEARCHES[setting.search]),
        "audio_s": middle["heard"],
        "seconds": middle["seconds"],
        "p20_s": found.p20_us / 1e6,
        "p80_s": found.p80_us / 1e6,
        "repeats": len(several),
        "rtf": middle["seconds"] / middle["heard"],
        "wall_rtf": middle["wall_s"] / middle["heard"],
        "least_wall_rtf": min(took["wall_s"] for took in several) / middle["heard"],
        "listener_share": middle["listener"] / middle["seconds"],
        "wer": wer,
    }


def batching(model: LAS, source: Samples | Manifests, device: torch.device) -> list[common.Row]:
    """Whether a batch changes texts, greedily, in every precision."""
    rows = []
    for precision in ("float32", "bfloat16"):
        model.precision = inference_precision(precision)
        for path in source.manifests:
            count, differ, largest = evaluate.check_batching(model, path, device)
            row = {"manifest": path.name, "precision": precision, "utterances": count}
            rows.append({**row, "differ": len(differ), "largest": largest})
    return rows


def markdown(name: str, found: dict[str, Any]) -> str:
    """The table."""
    lines = [f"# benchmarks.{name}: {found['device']}", ""]
    skip = ("device", "rows", "batching")
    lines += [f"- {key}: {value}" for key, value in found.items() if key not in skip]
    lines += [
        "",
        "Real-time factors are seconds a second of speech: `rtf` of the processor, over all "
        "threads (on a GPU, of the clock), `wall` of the clock, which depends on what else the "
        "machine does. `listener` is its share, with the frontend.",
        "",
        "| search | B | threads | precision | rtf | p20 - p80 | wall | least wall | listener "
        "| WER % |",
        "|" + "---|" * 10,
    ]
    for row in found["rows"]:
        cells = [row["search"], row["batch"], row["threads"], row["precision"]]
        low, high = row["p20_s"] / row["audio_s"], row["p80_s"] / row["audio_s"]
        cells += [f"{row['rtf']:.4f}", f"{low:.4f} - {high:.4f}", f"{row['wall_rtf']:.4f}"]
        cells += [f"{row['least_wall_rtf']:.4f}", f"{row['listener_share']:.0%}"]
        cells.append(f"{row['wer']:.2f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    if found["batching"]:
        lines += ["", "| manifest | precision | utterances | texts that a batch changes | largest "]
        lines[-1] += "difference of the listener's output |"
        lines.append("|" + "---|" * 5)
    for row in found["batching"]:
        cells = [row["manifest"], row["precision"], row["utterances"], row["differ"]]
        lines.append(f"| {' | '.join(map(str, cells))} | {row['largest']:.1e} |")
    return "\n".join(lines) + "\n"


def write(folder: Path, name: str, found: dict[str, Any], table: str) -> None:
    """JSON and table, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {".json": json.dumps(found, indent=1) + "\n", ".md": table}
    for suffix, text in texts.items():
        part = folder / f"{name}.part"
        part.write_text(text)
        part.replace(folder / f"{name}{suffix}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(prog=f"python -m {module(NAME)}")
    parser.add_argument("--model", type=Path, help="model folder; default: the bundled")
    parser.add_argument("--manifest", type=Path, nargs="+", help="default: the bundled samples")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="default: a GPU if there is one")
    parser.add_argument("--output", type=Path, default=common.RESULTS, help="of the results")
    parser.add_argument("--name", default=NAME, help="of the results' files")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--audio", type=float, default=120.0, help="seconds of the samples")
    parser.add_argument(
        "--threads", type=int, nargs="+", help="default: 1, and 2 if nobody else works"
    )
    parser.add_argument("--smallest", action="store_true", help="only see that it works")
    chosen = parser.parse_args(arguments)
    # Names, not places: whoever reads the results has other folders.
    told = [parser.prog]
    told += [f"--model {chosen.model.name}"] if chosen.model else []
    told += ["--manifest", *(path.name for path in chosen.manifest)] if chosen.manifest else []
    told += [f"--audio {chosen.audio:g}"] if chosen.audio != parser.get_default("audio") else []
    told += (
        [f"--repeats {chosen.repeats}"] if chosen.repeats != parser.get_default("repeats") else []
    )
    told += ["--threads", *map(str, chosen.threads)] if chosen.threads else []
    chosen.command = " ".join(told)
    chosen.device = chosen.device or ("cuda" if torch.cuda.is_available() else "cpu")
    quiet = chosen.device == "cpu" and timing.others(1.0) < timing.QUIET
    chosen.threads = chosen.threads or ([1, 2] if quiet else [1])
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write JSON and table."""
    chosen = parse(arguments)
    device = torch.device(chosen.device)
    model = LAS.from_pretrained(chosen.model, device)
    manifests = chosen.manifest
    source = Manifests(manifests) if manifests else Samples(1 if chosen.smallest else chosen.audio)
    repeats = chosen.repeats
    precisions = ("float32", "bfloat16")
    batches = (1, 8) if chosen.device == "cpu" else (1, 32, 256)
    settings = [Setting(*x) for x in product((0, 1), batches, chosen.threads, precisions)]
    if chosen.smallest:
        settings, repeats = settings[-1:], 1
    found: dict[str, Any] = {**common.environment(chosen), "listen-attend-spell": __version__}
    found.pop("note", None)
    found |= {"source": source.name, "parameters": sum(p.numel() for p in model.parameters())}
    took: dict[Setting, list[dict[str, float]]] = {setting: [] for setting in settings}
    wer: dict[Setting, float] = {}
    busy = []
    for repeat in range(repeats + 1):  # the first warms caches up
        busy.append(timing.others())
        for setting in settings:
            seconds, texts = run(model, source, device, setting)
            wer[setting] = scoring.score(texts).wer
            if repeat > 0:
                took[setting].append(seconds)
        print(f"{repeat} of {repeats} repeats", flush=True)
    found["others"] = statistics.median(busy)
    found["rows"] = [row_of(setting, took[setting], wer[setting]) for setting in settings]
    folder = chosen.output / common.slug(common.device_name(chosen.device))
    found["batching"] = []
    write(folder, chosen.name, found, markdown(chosen.name, found))  # the rest takes long
    found["batching"] = batching(model, source, device)
    write(folder, chosen.name, found, markdown(chosen.name, found))
    print(f"wrote {folder / chosen.name}.json and .md")


if __name__ == "__main__":
    main()
