"""Exported models beside the model folder: size, speed and errors.

The bundled model is exported as float32 and as int8. All transcribe the test part of the demo
corpus by greedy search on one thread, in batches of up to a minute and one utterance at a time, in
turn, so that whatever else the machine does meets all alike. The table of docs/export.md is made of
the results by ``--page``.

    python -m benchmarks.system.export
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias, get_args

import numpy as np
import onnxruntime
import torch

from benchmarks import common, module
from las.audio import reader
from las.export.folder import Dtype, export
from las.export.runtime import load
from las.model.folder import bundled
from las.model.las import LAS
from las.scoring import wer
from las.scoring.alignment import Utterance
from las.storage.weights import WEIGHTS
from las.transcription.transcriber import Transcriber

NAME = "export"
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/export.md"
TEST = ROOT / "recipes/demo/corpus/test"
BATCH_SECONDS = 60.0
TORCH = "model folder, torch"
_BLOCK = re.compile(r"(<!-- results -->\n).*?(<!-- end -->)", re.DOTALL)

Decode: TypeAlias = Callable[[list[np.ndarray]], list[str]]
"""The texts of the waveforms of a batch."""


def utterances(count: int) -> list[tuple[str, str, np.ndarray]]:
    """Names, texts and samples of the test part."""
    found = []
    for path in sorted(TEST.rglob("*.trans.txt")):
        for line in path.read_text(encoding="ascii").splitlines():
            name, text = line.split(" ", 1)
            found.append((name, text, reader.load(path.with_name(f"{name}.opus"))))
    return found[:count]


def batches(waveforms: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Waveforms in their order, up to a minute of padded audio each."""
    found: list[list[np.ndarray]] = [[]]
    for waveform in waveforms:
        longest = max(map(len, [*found[-1], waveform]))
        if (len(found[-1]) + 1) * longest > BATCH_SECONDS * reader.SAMPLE_RATE:
            found.append([])
        found[-1].append(waveform)
    return found


def decoders(folder: Path) -> dict[str, tuple[Decode, float, float]]:
    """What is compared: how it decodes, bytes of its weights, CPU seconds to load it."""
    start = time.process_time()
    las = LAS.from_pretrained()
    transcriber = Transcriber(las, torch.device("cpu"))
    took = time.process_time() - start

    def with_torch(batch: list[np.ndarray]) -> list[str]:
        return [hypothesis.text for hypothesis in transcriber.waveforms(batch)]

    size = (bundled() / WEIGHTS).stat().st_size
    found: dict[str, tuple[Decode, float, float]] = {TORCH: (with_torch, size, took)}
    for dtype in get_args(Dtype):
        manifest = export(las, folder / dtype, dtype)
        start = time.process_time()
        model = load(folder / dtype, threads=1)
        took = time.process_time() - start
        size = sum(graph.bytes for graph in manifest.graphs.values())
        found[f"ONNX, {dtype}"] = (model.decode, size, took)
    return found


def measure(
    compared: dict[str, tuple[Decode, float, float]],
    spoken: list[tuple[str, str, np.ndarray]],
    rounds: int,
) -> list[common.Row]:
    """A row of each."""
    waveforms = [waveform for _, _, waveform in spoken]
    ways = {"batches": batches(waveforms), "singly": [[waveform] for waveform in waveforms]}
    seconds: dict[tuple[str, str], list[float]] = {}
    texts: dict[tuple[str, str], list[str]] = {}
    for decode, *_ in compared.values():
        decode(waveforms[:4])  # warms up
    for _ in range(rounds):
        for way, parts in ways.items():
            for name, (decode, *_) in compared.items():
                start = time.process_time()
                texts[name, way] = [text for part in parts for text in decode(part)]
                seconds.setdefault((name, way), []).append(time.process_time() - start)
    audio = sum(map(len, waveforms)) / reader.SAMPLE_RATE
    rows = []
    for name, (_, size, loading) in compared.items():
        single = texts[name, "singly"]
        said = [
            Utterance(key, text, found)
            for (key, text, _), found in zip(spoken, single, strict=True)
        ]
        scored = wer.score(said)
        row: common.Row = {"what": name, "bytes": size, "load_cpu_s": loading}
        for way in ways:
            row[f"{way}_cpu_s_per_s"] = statistics.median(seconds[name, way]) / audio
        row |= {"wer": scored.wer, "wer_interval": list(scored.wer_interval)}
        row["as_torch"] = sum(a == b for a, b in zip(single, texts[TORCH, "singly"], strict=True))
        row["as_in_batches"] = sum(
            a == b for a, b in zip(single, texts[name, "batches"], strict=True)
        )
        rows.append(row)
    return rows


def table(found: common.Row) -> str:
    """The results as Markdown."""
    lines = [
        "| | weights, MB | CPU s to load | CPU s a second of audio, batches | one by one "
        "| WER % (95 % interval) | texts as torch's | texts the same alone and in a batch |",
        "|" + "---|" * 8,
    ]
    count = found["utterances"]
    for row in found["rows"]:
        low, high = row["wer_interval"]
        cells = [row["what"], f"{row['bytes'] / 1e6:.1f}", f"{row['load_cpu_s']:.2f}"]
        cells += [f"{row[f'{way}_cpu_s_per_s']:.4f}" for way in ("batches", "singly")]
        cells += [f"{row['wer']:.2f} ({low:.2f} to {high:.2f})"]
        cells += [f"{row[key]} of {count}" for key in ("as_torch", "as_in_batches")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page(text: str, found: common.Row) -> str:
    """The text of docs/export.md with the table of these results."""
    caption = (
        f"Bundled model, greedy search, {found['utterances']} utterances of the demo's test part "
        f"({found['seconds']:.0f} s), one thread of {found['device']}, torch {found['torch']}, "
        f"onnxruntime {found['onnxruntime']}, {found['date'][:10]}: `{found['command']}`. "
        f"Times are CPU seconds; the load of the machine was {found['load']:.3g}."
    )
    return _BLOCK.sub(lambda m: f"{m[1]}{table(found)}\n{caption}\n{m[2]}", text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write JSON and a table."""
    parser = argparse.ArgumentParser(prog=f"python -m {module(NAME)}", description=__doc__)
    parser.add_argument("--utterances", type=int, default=1000, help="the first of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=common.RESULTS, help="of the results")
    parser.add_argument("--page", type=Path, help="JSON of results: write them into docs/export.md")
    chosen = parser.parse_args(arguments)
    if chosen.page is not None:
        found = json.loads(chosen.page.read_text("utf-8"))
        common.write(PAGE, page(PAGE.read_text("utf-8"), found))
        return
    chosen.device = "cpu"
    given = sys.argv[1:] if arguments is None else arguments
    chosen.command = " ".join([parser.prog, *given])
    torch.set_num_threads(1)
    spoken = utterances(chosen.utterances)
    found = {**common.environment(chosen), "onnxruntime": onnxruntime.__version__}
    found.pop("note", None)
    found |= {"utterances": len(spoken)}
    found["seconds"] = sum(len(samples) for *_, samples in spoken) / reader.SAMPLE_RATE
    with tempfile.TemporaryDirectory() as folder:
        found["rows"] = measure(decoders(Path(folder)), spoken, chosen.rounds)
    target = chosen.output / common.slug(found["device"])
    target.mkdir(parents=True, exist_ok=True)
    lines = [f"# {module(NAME)}: {found['device']}", ""]
    lines += [f"- {key}: {value}" for key, value in found.items() if key not in ("device", "rows")]
    common.write(target / f"{NAME}.json", json.dumps(found, indent=1) + "\n")
    common.write(target / f"{NAME}.md", "\n".join(lines) + f"\n\n{table(found)}")
    print(table(found), end="")


if __name__ == "__main__":
    main()
