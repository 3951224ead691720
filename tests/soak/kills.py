"""Kills commands at random moments of the clock, and compares what they end with.

``make soak``, or ``python -m tests.soak.kills --kills 10``: for each kind of work a run that nobody
disturbs, then runs that are killed so many times (SIGKILL to the process and its children) and go
on. No file may be half-written after any kill, and the results must be the same to the bit.
"""

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from survival import KINDS, SLOW_KINDS, leftovers, whole, work

from las.version import __version__

RESULTS = Path(__file__).parent / "results" / "kills.json"


def run(arguments: list[str], seconds: float | None = None) -> tuple[bool, float]:
    """Run the command, to its end or for so many seconds; whether it ended, and how long it ran."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "las", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return False, time.monotonic() - began
    if process.returncode:
        raise SystemExit(f"{arguments}: status {process.returncode}\n{errors.decode()}")
    return True, time.monotonic() - began


def soak(kind: str, folder: Path, kills: int, size: int, seed: int) -> dict[str, object]:
    """Kill one kind of work; what was found."""
    undisturbed = work(kind, folder / "given", folder / "whole", size)
    _, seconds = run(undisturbed.arguments)
    draw = random.Random(f"{kind} {seed}")
    moments: list[float] = []
    expected = undisturbed.results(undisturbed.output)
    same, left, round_ = True, 0, 0
    while len(moments) < kills:
        round_ += 1
        killed = work(kind, folder / "given", folder / f"killed{round_}", size)
        ended = False
        while not ended:  # when it ends before its moment, it begins anew
            # The first third, more or less, is spent on imports.
            moment = draw.uniform(0.3, 1.0) * seconds if len(moments) < kills else None
            ended, _ = run([*killed.arguments, *killed.again], moment)
            if not ended:
                moments.append(round(moment or 0.0, 2))
                if killed.output.exists():
                    whole(killed.output)
        same &= killed.results(killed.output) == expected
        left += len(leftovers(killed.output))
    return {
        "kind": kind,
        "seconds": round(seconds, 1),
        "killed_after": moments,
        "same_results": same,
        "left_over": left,
    }


def main() -> None:
    """Run all kinds, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--size", type=int, default=2, help="length of the work")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory(prefix="las-soak-") as folder:
        for kind in (*KINDS, *SLOW_KINDS):
            place = Path(folder) / kind
            place.mkdir()
            rows.append(soak(kind, place, chosen.kills, chosen.size, chosen.seed))
            print(json.dumps(rows[-1]), flush=True)
    report = {
        "command": "python -m tests.soak.kills "
        f"--kills {chosen.kills} --size {chosen.size} --seed {chosen.seed}",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "versions": {
            "listen-attend-spell": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "kinds": rows,
    }
    chosen.output.parent.mkdir(exist_ok=True)
    chosen.output.write_text(json.dumps(report, indent=1) + "\n")
    if not all(row["same_results"] and not row["left_over"] for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
