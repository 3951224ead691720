"""Bulk transcription against one process: ``python -m benchmarks.system.bulk``.

`las transcribe --threads 1` and `las transcribe-bulk` transcribe the same files in turn, each in
processes of its own: files of synthetic speech, made of the shipped samples, with the bundled
model and its stored search. Speeds are those that the commands print, which leave out what starts
them: imports, Ray, loading the model. The texts must be equal. The target is 1.6 times the
throughput with two workers on two cores.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks import common, module
from benchmarks.kernels import timing
from benchmarks.system.longform import write_speech
from las.errors import LASError
from las.version import __version__

NAME = "bulk"
TARGET = 1.6  # throughput with two workers on two cores, of one process's
SPEED = re.compile(r"([\d.e+]+)x real time")


def las(*arguments: object) -> str:
    """Run a command; what it says at its end."""
    command = [sys.executable, "-m", "las", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode:
        raise LASError(f"las {arguments[0]}: exit status {done.returncode}: {done.stderr[-500:]}")
    return done.stderr.splitlines()[-1]


def speed(summary: str) -> float:
    """Seconds of audio a second, of the summary of a command."""
    found = SPEED.search(summary)
    if found is None:
        raise LASError(f"no speed in {summary!r}")
    return float(found[1])


def texts(folder: Path) -> dict[str, str]:
    """The texts of the results in a folder, by the names of the files."""
    found = {}
    for path in folder.glob("*.json"):
        found[path.stem] = json.loads(path.read_text(encoding="utf-8")).get("text", "")
    found.pop("run", None)
    for path in folder.glob("part-*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found[Path(row["path"]).stem] = row["text"]
    return found


def measure(files: Path, work: Path, workers: int, block_files: int, device: str) -> common.Row:
    """Run both commands once."""
    row: common.Row = {"others": timing.others(1.0)}
    each = {
        "alone": ["transcribe", files, "--threads", 1, "-f", "json"],
        "bulk": ["transcribe-bulk", files, "--workers", workers, "--block-files", block_files],
    }
    found = []
    for name, command in each.items():
        start = time.perf_counter()
        said = las(*command, "--device", device, "-o", work / name)
        row[f"{name}_wall_s"] = round(time.perf_counter() - start, 2)  # with what starts it
        row[f"{name}_times_real_time"] = speed(said)
        found.append(texts(work / name))
    if found[0] != found[1]:
        raise LASError("the texts of the two commands differ")
    row["ratio"] = round(row["bulk_times_real_time"] / row["alone_times_real_time"], 3)
    return row


def table(header: common.Row, rows: list[common.Row]) -> str:
    """The results as Markdown."""
    lines = [f"# {module(NAME)}: {header['device']}", ""]
    lines += [f"- {key}: {value}" for key, value in header.items() if key != "device"]
    lines += [
        "",
        "`las transcribe` and `las transcribe-bulk`: times real time without start-up, and seconds "
        "with it. `others busy`: what other processes took of the machine before.",
        "",
        "| alone | bulk | ratio | alone s | bulk s | others busy |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['alone_times_real_time']:.1f} | {row['bulk_times_real_time']:.1f} "
        f"| {row['ratio']:.2f} | {row['alone_wall_s']:.1f} | {row['bulk_wall_s']:.1f} "
        f"| {row['others']:.0%} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog=f"python -m {module(NAME)}", description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cpu")
    parser.add_argument("--files", type=int, default=192)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a file, at least")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--block-files", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=common.RESULTS, help="folder of the results")
    chosen = parser.parse_args(arguments)
    given = sys.argv[1:] if arguments is None else list(arguments)
    chosen.command = " ".join([parser.prog, *given])
    header = {
        **common.environment(chosen),
        "ray": version("ray"),
        "listen-attend-spell": __version__,
        "model": "bundled, with its stored search",
        "files": chosen.files,
        "file_seconds": chosen.seconds,
        "workers": chosen.workers,
        "block_files": chosen.block_files,
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "files"
        files.mkdir()
        for index in range(chosen.files):
            write_speech(files / f"{index:04d}.flac", chosen.seconds / 60, index)
        for repeat in range(chosen.repeats):
            work = Path(folder) / str(repeat)
            row = measure(files, work, chosen.workers, chosen.block_files, chosen.device)
            print(row, flush=True)
            rows.append(row)
    header["ratio"] = round(statistics.median(row["ratio"] for row in rows), 3)
    header["target"] = TARGET
    target = chosen.output / common.slug(common.device_name(chosen.device))
    target.mkdir(parents=True, exist_ok=True)
    common.write(target / f"{NAME}.json", json.dumps({**header, "rows": rows}, indent=1) + "\n")
    common.write(target / f"{NAME}.md", table(header, rows))
    met = "met" if header["ratio"] >= TARGET else "missed"
    print(f"{header['ratio']:.2f} times one process, target {TARGET}: {met}")
    print(f"wrote {target / NAME}.json and .md")


if __name__ == "__main__":
    main()
