"""Damaged audio files through `las transcribe`: no traceback, no hang, no partial output.

    python tests/fuzz_audio.py --cases 10000 --output tests/results/fuzz_audio.json

Every case is a function of the seed and its number; even ones print a text, odd ones write files
of every format. All run in a worker process that calls the command's entry point (a model is
loaded each time, as for a user), under a limit of memory and with a watchdog; a share runs again
through real processes, many files each, and must give the same. Exit status 1 if any case broke a
rule; its file is kept with --keep.
"""

import argparse
import collections
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from fuzz_mutations import mutate, originals
from fuzz_worker import MEMORY, WATCHDOG, Case, Result, Worker, arguments, write_model
from numpy.random import default_rng

GROUP = 25  # files that a real process is given
FORMATS = ("json", "srt", "tsv", "txt", "vtt")
SUMMARY = re.compile(r"\d+ files?(, .* real time)?(; .*)?")
SAMPLE = Path(__file__).parents[1] / "las" / "samples" / "501-1-0004.wav"


def make(seed: int, number: int, files: dict[str, bytes], folder: Path) -> Case:
    """Write the damaged file of a number."""
    random = default_rng([seed, number])
    container = str(random.choice(list(files)))
    data, names = mutate(random, files[container])
    suffix = Path(container).suffix
    if random.random() < 0.03:
        suffix = str(random.choice([".wav", ".mp3", ".flac", ".raw", ".m4a", ".xyz", ""]))
    stem = str(
        random.choice(["case", "c a s e", "\u00e7ase", "ca\nse"], p=[0.94, 0.02, 0.02, 0.02])
    )
    path = folder / f"{stem}-{number:06d}{suffix}"
    path.write_bytes(data)
    return Case(number, container, names, path)


def errors(result: Result) -> list[str]:
    """Lines on standard error without the summary that ends a run over several files."""
    lines = result.err.splitlines()
    return lines[:-1] if lines and SUMMARY.fullmatch(lines[-1]) else lines


def text(case: Case, result: Result) -> str | None:
    """What was transcribed; None if it is not there as it should be."""
    if not case.writes:
        out = result.out.splitlines()
        return out[0] if len(out) == 1 else None
    names = {f"{case.path.stem}.{suffix}" for suffix in FORMATS}
    if result.out or set(result.files) != names or case.path.stem == "":
        return None
    try:
        found = json.loads(result.files[f"{case.path.stem}.json"])["text"]
    except (ValueError, KeyError):
        return None
    return found if isinstance(found, str) else None


def verdict(case: Case, result: Result) -> str:
    """`text` or `error`, or how the case broke the rules."""
    if result.status is None:
        return result.err or "broken: hang"
    if "Traceback" in result.out + result.err:
        return "broken: traceback"
    if "decoding failed" in result.err or "not enough memory" in result.err:
        return "broken: decoding raised something"
    lines = errors(result)
    if result.status == 0:
        if lines:
            return "broken: a text, and something on standard error"
        return "text" if text(case, result) is not None else "broken: the text is not whole"
    if result.status != 1:
        return f"broken: exit status {result.status}"
    if result.out or result.files:
        return "broken: an error, and some output"
    if len(lines) != 1 or not lines[0].startswith("error: "):
        return "broken: not one line of error"
    name = str(case.path)
    named = (name if name.isprintable() else ascii(name)) in lines[0]
    return "error" if named else "broken: the error does not name the file"


# --- the whole ------------------------------------------------------------------------------


def real(model: Path, folder: Path, done: list[tuple[Case, Result]]) -> list[tuple[Case, str]]:
    """Give files to one process of the command; cases for which it does not do the same."""
    command = [sys.executable, "-m", "las", *arguments(model, [case.path for case, _ in done])]
    environment = os.environ | {"COLUMNS": "10000", "PYTHONUTF8": "1"}
    try:
        process = subprocess.run(
            command, capture_output=True, timeout=WATCHDOG * len(done), env=environment
        )
    except subprocess.TimeoutExpired:
        return [(case, "broken: a real process hangs") for case, _ in done]
    out, err = (stream.decode(errors="replace") for stream in (process.stdout, process.stderr))
    both = Result(process.returncode, out, err)
    wrong, expected = [], []
    for case, result in done:
        if result.status == 0:
            same = f"{case.path}\t{text(case, result)}\n" in out
        else:
            expected += errors(result)
            same = errors(result)[0] in errors(both)
        if not same:
            wrong.append((case, "broken: a real process does something else"))
    status = int(any(result.status for _, result in done))
    if process.returncode != status or len(errors(both)) != len(expected):
        wrong.append((done[0][0], "broken: a real process says more, or less"))
    return wrong


def fuzz(
    cases: int, seed: int, share: float, keep: Path | None = None, progress: bool = False
) -> dict[str, Any]:
    """Run the cases 0 to `cases`; `share` of them also through real processes."""
    waveform, _ = soundfile.read(SAMPLE, dtype="float32")
    files = originals(waveform[8000:20000])
    outcomes: collections.Counter[str] = collections.Counter()
    table: dict[str, dict[str, collections.Counter[str]]] = {
        kind: collections.defaultdict(collections.Counter) for kind in ("container", "mutation")
    }
    broken: list[dict[str, Any]] = []
    slowest, peak, again, runs = (0.0, 0), 0, 0, 0
    start = time.perf_counter()

    def note(case: Case, what: str, result: Result | None) -> None:
        broken.append(
            {"outcome": what} | asdict(case) | {"path": case.path.name, "writes": case.writes}
        )
        broken[-1]["err"] = result.err[-2000:] if result else ""
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(case.path, keep / f"{case.number:06d}{case.path.suffix}")

    with tempfile.TemporaryDirectory(prefix="fuzz") as name:
        folder = Path(name)
        model = folder / "model"
        write_model(model)
        warm = Case(-1, "", [], folder / "whole.wav")  # writes, is resampled: loads it all
        warm.path.write_bytes(files["pcm24-stereo.wav"])
        process = Worker(model, folder / "worker", warm)
        waiting: list[tuple[Case, Result]] = []
        try:
            for number in range(cases):
                case = make(seed, number, files, folder)
                result = process.run(case)
                what = verdict(case, result)
                outcomes[what] += 1
                table["container"][case.container][what] += 1
                for mutation in set(case.mutations):
                    table["mutation"][mutation][what] += 1
                slowest = max(slowest, (result.seconds, number))
                peak = max(peak, result.peak)
                if what.startswith("broken"):
                    note(case, what, result)
                    case.path.unlink()
                elif number % 1000 < 1000 * share:
                    waiting.append((case, result))
                else:
                    case.path.unlink()
                if len(waiting) == GROUP or (waiting and number == cases - 1):
                    for odd, problem in real(model, folder, waiting):
                        outcomes[problem] += 1
                        note(odd, problem, None)
                    again, runs = again + len(waiting), runs + 1
                    for other, _ in waiting:
                        other.path.unlink()
                    waiting.clear()
                if progress and (number + 1) % 500 == 0:
                    seconds = time.perf_counter() - start
                    print(f"{number + 1} of {cases}, {seconds:.0f} s: {dict(outcomes)}", flush=True)
        finally:
            process.close()
    return {
        "seed": seed,
        "cases": cases,
        "outcomes": dict(sorted(outcomes.items())),
        "broken": broken,
        "again_in_real_processes": {"files": again, "processes": runs},
        "watchdog_s": WATCHDOG,
        "slowest": {"case": slowest[1], "s": round(slowest[0], 2)},
        "memory": {"limit_above_model_mib": MEMORY >> 20, "peak_resident_mib": peak >> 20},
        "worker_replaced": max(0, process.replaced),
        "seconds": round(time.perf_counter() - start),
        **{
            f"by_{kind}": {name: dict(sorted(c.items())) for name, c in sorted(found.items())}
            for kind, found in table.items()
        },
    }


def versions() -> dict[str, str]:
    """Of what reads audio."""
    import torch

    import las

    program = shutil.which("ffmpeg")
    ffmpeg = "none"
    if program is not None:
        asked = subprocess.run([program, "-version"], capture_output=True, text=True, check=True)
        ffmpeg = asked.stdout.split()[2]
    return {
        "listen-attend-spell": las.__version__,
        "python": platform.python_version(),
        "libsndfile": soundfile.__libsndfile_version__,
        "soundfile": soundfile.__version__,
        "ffmpeg": ffmpeg,
        "numpy": np.__version__,
        "torch": torch.__version__,
        "system": platform.platform(terse=True),
    }


def main(given: list[str] | None = None) -> int:
    """Parse, run, write the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.1, help="again through real processes")
    parser.add_argument("--output", type=Path, help="JSON summary; default: standard output")
    parser.add_argument("--keep", type=Path, help="folder for files that broke a rule")
    options = parser.parse_args(given)
    found = fuzz(options.cases, options.seed, options.share, options.keep, progress=True)
    command = (
        f"python tests/fuzz_audio.py --cases {options.cases} --seed {options.seed} "
        f"--share {options.share:g}"
    )
    date = datetime.now(UTC).date().isoformat()
    summary = json.dumps(
        {"command": command, "date": date, "versions": versions()} | found, indent=1
    )
    if options.output is None:
        print(summary)
    else:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(summary + "\n", encoding="utf-8")
    return int(bool(found["broken"]))


if __name__ == "__main__":
    sys.exit(main())
