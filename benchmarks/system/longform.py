"""Long audio: peak memory and speed of a transcription by the length of the audio.

The shipped samples, in a random order with pauses and a little noise, make files of 5 and 60
minutes; each is transcribed by the bundled model, greedily, in a process of its own. Memory is
bounded if the peak of the long one is at most 10 % above that of the short one.

    python -m benchmarks.system.longform
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jiwer
import numpy as np
import soundfile
import torch

from benchmarks import common, module
from benchmarks.memory import peak_bytes
from las.audio import reader
from las.model.folder import bundled
from las.model.las import LAS
from las.transcription.transcriber import Transcriber
from las.transcription.transcript import Transcript

NAME = "longform"
LIMIT = 1.1  # peak of the longest to peak of the shortest
PAUSES = (0.3, 1.2)  # seconds
NOISE = 0.001  # standard deviation; full scale is 1


def write_speech(path: Path, minutes: float, seed: int = 0) -> str:
    """Write at least so many minutes of samples and pauses; what is said in them."""
    folder = bundled().parent / "samples"
    with (folder / "references.tsv").open(encoding="utf-8", newline="") as file:
        texts = dict(csv.reader(file, delimiter="\t"))
    samples = {name: reader.load(folder / name) for name in texts}
    random = np.random.default_rng(seed)
    said: list[str] = []
    written = 0
    with soundfile.SoundFile(path, "w", reader.SAMPLE_RATE, 1) as file:
        while written < 60 * minutes * reader.SAMPLE_RATE:
            name = str(random.choice(list(texts)))
            pause = np.zeros(round(random.uniform(*PAUSES) * reader.SAMPLE_RATE), np.float32)
            part = np.concatenate([samples[name], pause])
            file.write(part + NOISE * random.normal(size=len(part)).astype(np.float32))
            said.append(texts[name])
            written += len(part)
    return " ".join(said)


def measure(path: Path, device: str, threads: int) -> common.Row:
    """Transcribe a file in this process."""
    torch.set_num_threads(threads)
    transcriber = Transcriber(LAS.from_pretrained(None, device), torch.device(device))
    before = peak_bytes()
    start, start_cpu = time.perf_counter(), time.process_time()
    (result,) = transcriber.files([path])
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    assert isinstance(result, Transcript), result
    lengths = [(w.end - w.start) / transcriber.rate for w in result.chunks]
    return {
        "audio_seconds": round(result.seconds, 2),
        "wall_seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "real_time_factor": round(seconds / result.seconds, 5),
        "times_real_time": round(result.seconds / seconds, 1),
        "times_real_time_cpu": round(result.seconds / cpu, 1),
        "peak_bytes": peak_bytes(),
        "peak_bytes_before": before,
        "windows": len(result.chunks),
        "longest_window": round(max(lengths, default=0.0), 2),
        "bad_windows": sum(not w.quality.good for w in result.chunks),
        "text": result.text,
    }


def table(header: common.Row, rows: list[common.Row]) -> str:
    """The results as Markdown."""
    lines = [f"# {module(NAME)}: {header['device']}", ""]
    lines += [f"- {key}: {value}" for key, value in header.items() if key != "device"]
    lines += [
        "",
        "| minutes | peak MB | real-time factor | times real time | by CPU time | windows "
        "| WER % |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['minutes']:g} | {row['peak_bytes'] / 1e6:.1f} | {row['real_time_factor']:.4f} "
        f"| {row['times_real_time']:.1f} | {row['times_real_time_cpu']:.1f} "
        f"| {row['windows']} | {row['wer']:.2f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark; exit status 1 if memory grows."""
    parser = argparse.ArgumentParser(prog=f"python -m {module(NAME)}", description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cpu")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5.0, 60.0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=common.RESULTS, help="folder of the results")
    parser.add_argument("--file", type=Path, help="only measure this file, in this process")
    chosen = parser.parse_args(arguments)
    if chosen.file is not None:
        print(json.dumps(measure(chosen.file, chosen.device, chosen.threads)))
        return
    given = sys.argv[1:] if arguments is None else arguments
    chosen.command = " ".join([parser.prog, *given])
    header = {**common.environment(chosen), "model": "bundled", "threads": chosen.threads}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in chosen.minutes:
            path = Path(folder) / "speech.flac"
            said = write_speech(path, minutes)
            command = [sys.executable, "-m", module(NAME), "--file", str(path)]
            command += ["--device", chosen.device, "--threads", str(chosen.threads)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            row = {"minutes": minutes, **json.loads(done.stdout.splitlines()[-1])}
            row["wer"] = round(100 * jiwer.wer(said, row.pop("text")), 2)
            print(row, flush=True)
            rows.append(row)
    growth = rows[-1]["peak_bytes"] / rows[0]["peak_bytes"]
    header["growth"] = round(growth, 4)
    target = chosen.output / common.slug(common.device_name(chosen.device))
    target.mkdir(parents=True, exist_ok=True)
    common.write(target / f"{NAME}.json", json.dumps({**header, "rows": rows}, indent=1) + "\n")
    common.write(target / f"{NAME}.md", table(header, rows))
    print(f"peak of the last is {growth:.3f} times that of the first; wrote {target / NAME}.json")
    if growth > LIMIT:
        raise SystemExit(f"error: memory grows by more than {LIMIT - 1:.0%}")


if __name__ == "__main__":
    main()
