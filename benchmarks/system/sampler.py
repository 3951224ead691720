"""Batches of large corpora: time and memory of what decides which utterances are in which batch.

Synthetic corpora of 10^5, 10^6 and 10^7 utterances without audio. Shards are real files that are
read as in training; those of the larger corpora are fifty of them under many names. For
comparison, manifests of 10^4 and 10^5 utterances. Each is measured in a process of its own: the
start of a training, all batches of an epoch, and resuming in the middle of it; then the reading of
the utterances of some batches, without decoding. Memory is bounded if the largest corpus takes at
most 32 MB more than the smallest.

    python -m benchmarks.system.sampler
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource

from benchmarks import common, module
from benchmarks.memory import peak_bytes
from las.config import DataConfig
from las.data.dataset import training_batches
from las.data.manifests import read_manifest, trainable
from las.data.shards.index import RECORD, cuts_name, recording_name, write_index
from las.data.shards.reader import ShardSet
from las.text.characters import Characters

NAME = "sampler"
GROWTH = 32e6  # bytes
FILES = 50  # shards that are real; the others are links to them
PER_SHARD = 1000
READ = 100  # batches that are read
RATE = 16000
SEED = 1


def cut(number: int, seconds: float, text: str) -> MonoCut:
    """An utterance as `las prepare` writes it, in shards."""
    id = f"{number // 40:06d}-{number % 40:04d}"
    source = AudioSource("shar", [0], "")
    recording = Recording(id, [source], RATE, round(seconds * RATE), seconds, [0])
    said = SupervisionSegment(id, id, 0.0, seconds, 0, text, speaker=id[:6])
    return MonoCut(id, 0.0, seconds, 0, supervisions=[said], recording=recording)


def cuts(count: int, first: int = 0) -> Iterable[MonoCut]:
    """Utterances of 1 to 20 seconds, with fourteen characters a second."""
    random = np.random.default_rng([SEED, first])
    for number, seconds in enumerate(random.uniform(1, 20, count).round(3).tolist(), start=first):
        yield cut(number, seconds, ("THE WORDS OF AN UTTERANCE " * 12)[: int(14 * seconds)].strip())


def write_shards(folder: Path, count: int) -> None:
    """A shard folder of so many utterances."""
    folder.mkdir()
    shards, records = [], []
    for shard in range(count // PER_SHARD):
        paths = [folder / cuts_name(shard), folder / recording_name(shard)]
        real = shard % FILES
        if shard < FILES:
            made = list(cuts(PER_SHARD, shard * PER_SHARD))
            CutSet.from_cuts(made).to_file(paths[0])
            paths[1].write_bytes(bytes(10240))  # an empty archive
            records.append(np.zeros(PER_SHARD, RECORD))
            records[shard]["seconds"] = [one.duration for one in made]
        else:
            paths[0].symlink_to(cuts_name(real))
            paths[1].symlink_to(recording_name(real))
            records.append(records[real])
        sizes = [path.stat().st_size for path in paths]
        total = float(records[shard]["seconds"].sum())
        shards.append(
            {
                "utterances": PER_SHARD,
                "seconds": total,
                "cuts_bytes": sizes[0],
                "recording_bytes": sizes[1],
            }
        )
    write_index(folder, shards, records)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the processor, and what the work gives."""
    start = time.process_time()
    found = work()
    return round(time.process_time() - start, 3), found


def measure(path: Path) -> common.Row:
    """A shard folder or a manifest, in this process."""
    config = DataConfig(train=str(path), workers=0)
    text = Characters()
    frames = {"sample_rate": RATE, "seed": SEED}
    before = peak_bytes()

    def start() -> Any:
        def ctc_frames(seconds: float) -> int:
            return int(25 * seconds)

        if path.is_dir():
            return ShardSet(config, text, ctc_frames).trainable()
        return trainable(read_manifest(path), text, config, ctc_frames)

    started, usable = timed(start)

    def sampler(epoch: int, skip: int = 0) -> Iterable[Any]:
        batches = training_batches(
            usable.cuts, usable.size, text, config, epoch=epoch, skip=skip, **frames
        )
        return batches.sampler  # type: ignore[attr-defined]

    seconds, count = timed(lambda: sum(1 for _ in sampler(1)))
    middle, _ = timed(lambda: next(iter(sampler(1, count // 2))))
    whole = peak_bytes()
    row = {
        "utterances": usable.size,
        "batches": count,
        "start_s": started,
        "epoch_s": seconds,
        "epoch_us_per_utterance": round(1e6 * seconds / usable.size, 2),
        "resume_s": middle,
        "peak_bytes": whole,
        "growth_bytes": whole - before,
    }
    if isinstance(usable.cuts, ShardSet):
        batches = list(itertools.islice(sampler(1), READ))
        reading, found = timed(
            lambda: sum(len(usable.cuts.cuts(batch, SEED, 1)[0]) for batch in batches)
        )
        row["read_us_per_utterance"] = round(1e6 * reading / found, 1)
    else:  # which sorts the whole set
        row["first_epoch_s"], _ = timed(lambda: sum(1 for _ in sampler(0)))
    row["peak_bytes_with_all"] = peak_bytes()
    return row


def table(header: common.Row, rows: list[common.Row]) -> str:
    """The results as Markdown."""
    lines = [f"# {module(NAME)}: {header['device']}", ""]
    lines += [f"- {key}: {value}" for key, value in header.items() if key != "device"]
    lines += [
        "",
        "CPU seconds of one process. `growth`: of the peak of memory, from the imports to the end "
        "of the epoch; `with all`: to the end of reading the first batches, or with manifests of "
        "the first epoch, which is in order of duration.",
        "",
        "| utterances | of | start s | epoch s | us per utterance | resume in the middle s "
        "| growth MB | with all MB | reading, us per utterance |",
        "|" + "---|" * 9,
    ]
    for row in rows:
        everything = row["peak_bytes_with_all"] - row["peak_bytes"] + row["growth_bytes"]
        lines.append(
            f"| {row['utterances']:,} | {row['of']} | {row['start_s']:.2f} | {row['epoch_s']:.2f} "
            f"| {row['epoch_us_per_utterance']:.1f} | {row['resume_s']:.2f} "
            f"| {row['growth_bytes'] / 1e6:.1f} | {everything / 1e6:.1f} "
            f"| {row.get('read_us_per_utterance', '')} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark; exit status 1 if memory grows."""
    parser = argparse.ArgumentParser(prog=f"python -m {module(NAME)}", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--manifests", type=int, nargs="*", default=[10**4, 10**5])
    parser.add_argument("--output", type=Path, default=common.RESULTS, help="folder of the results")
    parser.add_argument("--measure", type=Path, help="only measure this corpus, in this process")
    chosen = parser.parse_args(arguments)
    if chosen.measure is not None:
        print(json.dumps(measure(chosen.measure)))
        return
    told = [parser.prog, "--sizes", *chosen.sizes, "--manifests", *chosen.manifests]
    chosen.command = " ".join(map(str, told))
    chosen.device = "cpu"
    header = common.environment(chosen)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for count in chosen.manifests:
            path = Path(name) / f"{count}.jsonl.gz"
            CutSet.from_cuts(cuts(count)).to_file(path)
            rows.append(_run(path, "manifest"))
        for count in chosen.sizes:
            path = Path(name) / f"{count}.shards"
            write_shards(path, count)
            rows.append(_run(path, "shards"))
    growths = [row["growth_bytes"] for row in rows if row["of"] == "shards"]
    header["growth_bytes_largest_less_smallest"] = growths[-1] - growths[0]
    target = chosen.output / common.slug(common.device_name(chosen.device))
    target.mkdir(parents=True, exist_ok=True)
    common.write(target / f"{NAME}.json", json.dumps({**header, "rows": rows}, indent=1) + "\n")
    common.write(target / f"{NAME}.md", table(header, rows))
    print(f"wrote {target / NAME}.json and .md")
    if growths[-1] - growths[0] > GROWTH:
        raise SystemExit(f"error: memory grows by more than {GROWTH / 1e6:g} MB")


def _run(path: Path, kind: str) -> common.Row:
    command = [sys.executable, "-m", module(NAME), "--measure", str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    row = {"of": kind, **json.loads(done.stdout.splitlines()[-1])}
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
