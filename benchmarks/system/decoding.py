"""Search against other recognisers': ``python -m benchmarks.system.decoding --peers VENV_DIR``.

Decoders of the same size with random weights take the same number of steps over the same memory.
Each recogniser runs in a process and an environment of its own (``peers/setup.sh`` makes them) and
answers one search at a time, in turn, so that whatever else the machine does meets all alike. After
that, ``benchmarks.system.pipeline`` measures the whole pipeline, from files to texts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import las
from benchmarks import common, module
from benchmarks.kernels import timing
from benchmarks.peers.protocol import Request, Sizes
from benchmarks.system import pipeline

NAME = "decoding"
PEERS = Path(__file__).parents[1] / "peers"
OWN = "las"
# What is to be reached: how many times less time than the other takes, in beam search and greedy.
TARGETS = {("speechbrain", 8): 3.0, ("espnet", 8): 5.0, ("speechbrain", 1): 1.5, ("espnet", 1): 1.5}
KEPT = str(1 << 30)  # glibc keeps freed memory below this
SECONDS = 10.0  # of speech: what 250 frames of 40 ms stand for


class Peer:
    """A program that searches on request."""

    def __init__(self, name: str, python: str, sizes: Sizes, heap: str) -> None:
        self.name = name
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if heap == "kept":
            environment |= {"MALLOC_TRIM_THRESHOLD_": KEPT, "MALLOC_MMAP_THRESHOLD_": KEPT}
        if name == OWN:
            command = [python, "-m", "benchmarks.peers.las_search"]
        else:
            command = [python, str(PEERS / f"{name}_search.py")]
            environment.pop("PYTHONPATH", None)
        self.process = subprocess.Popen(
            [*command, json.dumps(sizes._asdict())],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=PEERS.parents[1],
        )
        self.about = self._read()

    def ask(self, request: Request, counting: bool = False) -> dict[str, Any]:
        """Run a search: its seconds, or what it counted."""
        assert self.process.stdin is not None
        print(
            json.dumps({**request._asdict(), "counting": counting}),
            file=self.process.stdin,
            flush=True,
        )
        return self._read()

    def close(self) -> None:
        """End the program."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"error: {self.name} has died; run it by hand to see why")
        return dict(json.loads(line))


def interpreters(folder: Path | None) -> dict[str, str]:
    """Python of every recogniser that can be measured."""
    found = {OWN: sys.executable}
    for name in ("speechbrain", "espnet"):
        python = (folder or Path()) / name / "bin" / "python"
        if folder is not None and python.exists():
            found[name] = str(python.absolute())
        else:
            print(f"{name}: no environment (benchmarks/peers/setup.sh makes it)", flush=True)
    return found


def requests(device: str, smallest: bool) -> Iterable[tuple[str, Request]]:
    """What is measured, and with which heap.

    The last ones measure other attention, more threads, and PyTorch with a heap that keeps what is
    freed, which spares whoever makes large tensors many page faults.
    """
    if smallest:
        return [("default", Request("location", 1, 2)), ("default", Request("location", 2, 1))]
    sizes = [(beam, batch) for beam in (8, 1) for batch in (1, 8)]
    plain = [Request("location", batch, beam, 1, device) for beam, batch in sizes]
    found = [("default", request) for request in plain]
    found += [("default", request._replace(kind="additive")) for request in plain]
    if device == "cpu" and timing.others() < timing.QUIET:
        found += [("default", request._replace(threads=2)) for request in plain]
    elif device == "cpu":
        print("two threads are not measured: others use the processors", flush=True)
    if device == "cpu":
        found += [("kept", request) for request in plain]
    return found


def measure(
    peers: list[Peer], request: Request, heap: str, repeats: int, end: float
) -> list[common.Row]:
    """Rows of one search, one a recogniser; they take turns."""
    if (request.kind, request.threads, heap) != ("location", 1, "default") and request.batch > 1:
        # It searches a batch one by one: what that takes is known, and takes long.
        peers = [peer for peer in peers if peer.name != "espnet"]
    # Counting is a run too: it warms caches up.
    counts = {peer.name: peer.ask(request, counting=True) for peer in peers}
    seconds: dict[str, list[dict[str, float]]] = {peer.name: [] for peer in peers}
    busy = []
    for repeat in range(repeats):
        busy.append(timing.others())
        for peer in peers:
            seconds[peer.name].append(peer.ask(request))
        if repeat >= 4 and time.monotonic() > end:
            break
    clock = "cpu_s" if request.device == "cpu" else "wall_s"
    own = statistics.median(took[clock] for took in seconds[OWN])
    rows = []
    for name, several in seconds.items():
        row: common.Row = {**request._asdict(), "method": name, **counts[name]}
        row |= {"clock": clock, **spread([took[clock] for took in several])}
        row["wall_s"] = statistics.median(took["wall_s"] for took in several)
        row["rtf"] = row["median_s"] / (SECONDS * request.batch)
        row["others"] = statistics.median(busy)
        if name != OWN:
            row["ratio"] = row["median_s"] / own
            row["target"] = TARGETS.get((name, request.beam))
        rows.append(row)
    return rows


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, and how the repeats scatter."""
    found = timing.summary(seconds)
    return {
        "median_s": found.median_us / 1e6,
        "p20_s": found.p20_us / 1e6,
        "p80_s": found.p80_us / 1e6,
        "repeats": found.repeats,
    }


def markdown(found: dict[str, Any]) -> str:
    """The table."""
    lines = [f"# {module(NAME)}: {found['device']}", ""]
    skip = ("device", "rows", "peers", "sizes")
    lines += [f"- {key}: {value}" for key, value in found.items() if key not in skip]
    lines += [f"- sizes: {', '.join(f'{k} {v}' for k, v in found['sizes'].items())}"]
    for name, about in found["peers"].items():
        versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
        lines.append(f"- {name} ({versions}): {about['how']}")
    lines += [
        "",
        "Seconds of one search of B utterances: of the processor, over all threads, on a CPU. "
        "`ratio` is how many times less ours takes. `rtf` is seconds a second of speech, "
        f"{SECONDS:g} s an utterance, without encoder.",
        "",
        "| attention | heap | threads | beam | B | who | steps | rows | seconds | p20 - p80 | wall "
        "| rtf | ratio | target | others busy |",
        "|" + "---|" * 15,
    ]
    for row in found["rows"]:
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
        target = f"{row['target']:g}" if row.get("target") else ""
        if target and row["ratio"] < row["target"]:
            target += " missed"
        cells = [row[key] for key in ("kind", "heap", "threads", "beam", "batch", "method")]
        cells += [row["steps"], row["rows"], f"{row['median_s']:.3f}"]
        cells += [f"{row['p20_s']:.3f} - {row['p80_s']:.3f}", f"{row['wall_s']:.3f}"]
        cells += [f"{row['rtf']:.4f}", ratio, target, f"{row['others']:.0%}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(prog=f"python -m {module(NAME)}")
    parser.add_argument(
        "--peers",
        type=Path,
        default=os.environ.get("LAS_PEERS"),
        help="folder that peers/setup.sh made; default: the variable LAS_PEERS",
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], help="default: a GPU if there is one")
    parser.add_argument("--output", type=Path, default=common.RESULTS, help="of the results")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1e9, help="then 5 repeats are enough")
    parser.add_argument("--smallest", action="store_true", help="only see that it works")
    chosen = parser.parse_args(arguments)
    chosen.peers = Path(chosen.peers) if chosen.peers else None
    # A name instead of the folder: whoever reads the results has another.
    told = [parser.prog, *(["--peers VENV_DIR"] if chosen.peers else [])]
    told += (
        [f"--repeats {chosen.repeats}"] if chosen.repeats != parser.get_default("repeats") else []
    )
    told += [f"--seconds {chosen.seconds:g}"] if chosen.seconds < 1e9 else []
    chosen.command = " ".join(told)
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write JSON and table."""
    import torch

    chosen = parse(arguments)
    chosen.device = chosen.device or ("cuda" if torch.cuda.is_available() else "cpu")
    folder = chosen.output / common.slug(common.device_name(chosen.device))
    end = time.monotonic() + chosen.seconds
    sizes = Sizes(*(12,) * 7, 40, 15) if chosen.smallest else Sizes()
    sizes = sizes._replace(taps=sizes.taps | 1)
    found: dict[str, Any] = {**common.environment(chosen), "listen-attend-spell": las.__version__}
    found.pop("note", None)
    found |= {"sizes": sizes._asdict(), "peers": {}, "rows": []}
    asked = list(requests(chosen.device, chosen.smallest))
    for heap in dict.fromkeys(heap for heap, _ in asked):
        peers = [Peer(n, p, sizes, heap) for n, p in interpreters(chosen.peers).items()]
        found["peers"] = {peer.name: peer.about for peer in peers}
        for request in (request for h, request in asked if h == heap):
            repeats = 1 if chosen.smallest else chosen.repeats
            for row in measure(peers, request, heap, repeats, end):
                found["rows"].append({"heap": heap, **row})
                ratio = f" x {row['ratio']:.2f}" if "ratio" in row else ""
                print(*request, heap, row["method"], f"{row['median_s']:.4f} s{ratio}", flush=True)
            pipeline.write(folder, NAME, found, markdown(found))
        for peer in peers:
            peer.close()
    if not chosen.smallest:
        pipeline.main(["--device", chosen.device, "--output", str(chosen.output)])


if __name__ == "__main__":
    main()
