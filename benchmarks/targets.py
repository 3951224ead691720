"""What was aimed at on a GPU, and what was measured: makes the README's table of it.

    python -m benchmarks.targets            rewrite the table in README.md
    python -m benchmarks.targets --check    only say whether it is up to date (exit status 1)

Every number is computed from the JSON files in ``benchmarks/results/<device>/``. The table stands
between ``<!-- gpu -->`` and ``<!-- end -->``; a target that no file speaks of is "not measured",
one that is missed says so.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import common
from benchmarks.kernels import attention
from benchmarks.kernels.shapes import Case

README = Path(__file__).parents[1] / "README.md"
_BLOCK = re.compile(r"(<!-- gpu -->\n).*?(<!-- end -->)", re.DOTALL)
NONE = (
    "Nothing has been measured on a GPU yet. `benchmarks/gpu.sh` does it and writes here what "
    "was aimed at and what came of it."
)
GRAPHED = ("triton graphed", "cuda graphed", "persistent graphed")
TRAINED = ("auto",)  # what a training runs: launched one after another
STEPS = ("triton graphed", "cuda graphed")

Results = dict[str, common.Row]  # of one device: the contents of its files, by benchmark


class Target(NamedTuple):
    """One aim."""

    what: str
    least: float  # the measured value is to be this or more
    form: str  # how both are printed
    measured: Callable[[Results], float | None]
    beside: str = ""  # title and value of a figure that belongs to it
    figure: Callable[[Results], float | None] = lambda _: None


def _rows(found: Results, benchmark: str, **wanted: Any) -> list[common.Row]:
    rows = found.get(benchmark, {}).get("rows", [])
    return [
        row
        for row in rows
        if "skipped" not in row and all(row.get(key) == value for key, value in wanted.items())
    ]


def _quickest(rows: Iterable[common.Row], methods: Iterable[str]) -> common.Row | None:
    mine = [row for row in rows if row["method"] in tuple(methods)]
    return min(mine, key=lambda row: row["median_us"], default=None)


def times(
    benchmark: str, baseline: str, methods: Iterable[str], *cases: str, **wanted: Any
) -> Callable[[Results], float | None]:
    """How many times faster the quickest of the methods is, in the worst of the cases."""

    def measured(found: Results) -> float | None:
        ratios = []
        for case in cases:
            rows = _rows(found, benchmark, case=case, **wanted)
            ours, theirs = _quickest(rows, methods), _quickest(rows, [baseline])
            if ours is None or theirs is None:
                return None
            ratios.append(theirs["median_us"] / ours["median_us"])
        return min(ratios)

    return measured


def of_the_bytes_bound(found: Results) -> float | None:
    """The share of the bound that the quickest reaches with inputs that are in no cache."""
    rows = _rows(found, "attention", case="B64 T250", kind="additive", **{"pass": "forward"})
    ours = _quickest(rows, GRAPHED)
    return None if ours is None else ours["fraction"]


def of_the_bytes_bound_warm(found: Results) -> float | None:
    """The same with inputs that may be in a cache."""
    rows = _rows(found, "attention", case="B64 T250", kind="additive", **{"pass": "forward"})
    ours = _quickest(rows, GRAPHED)
    return None if ours is None else ours["bound_us"] / ours["warm_us"]


def of_the_tanh_bound(case: Case) -> Callable[[Results], float | None]:
    """The share of the time of a step that its tanh take."""

    def measured(found: Results) -> float | None:
        rows = _rows(found, "attention", case=case.name, kind="additive")
        ours, bounds = _quickest(rows, GRAPHED), found.get("bounds")
        if ours is None or bounds is None:
            return None
        count = case.frames * case.N * case.A
        return count / bounds["bounds"]["tanh"] * 1e6 / ours["median_us"]

    return measured


def less_memory(found: Results) -> float | None:
    """How many times less memory a sequence needs at its peak than eager autograd."""
    rows = _rows(found, "sequence", case="B64 T250 U50", kind="additive")
    ours, theirs = _quickest(rows, ["triton"]), _quickest(rows, ["eager"])
    if ours is None or theirs is None:
        return None
    return theirs["peak_bytes"] / max(ours["peak_bytes"], 1)


def training_speed(found: Results) -> float | None:
    """Seconds of speech that a second of training takes."""
    rows = _rows(found, "training")
    speeds = [row["real_time"] for row in rows if row["backend"] != common.PEER]
    return max(speeds, default=None)


def transcription_speed(found: Results) -> float | None:
    """Seconds of speech that a second of beam search takes, files to texts."""
    rows = [row for row in _rows(found, "pipeline") if row["search"].startswith("beam 8")]
    return max((1 / row["rtf"] for row in rows), default=None)


WHOLE = ("B32 T200 U50", "B64 T250 U50")
TRAIN = "train LibriSpeech B32 U200"
BEAMS = "B16 N8 T200"
BEAMS_CASE, MANY_BEAMS_CASE = (
    case for case in attention.GPU_CASES if case.name in (BEAMS, "B64 N8 T250")
)


def _located(
    benchmark: str, baseline: str, methods: Iterable[str], *cases: str, **wanted: Any
) -> tuple[str, Callable[[Results], float | None]]:
    """The figure beside a target for additive scores."""
    return "location-aware", times(benchmark, baseline, methods, *cases, kind="location", **wanted)


def _additive(
    benchmark: str, baseline: str, methods: Iterable[str], *cases: str, **wanted: Any
) -> Callable[[Results], float | None]:
    return times(benchmark, baseline, methods, *cases, kind="additive", **wanted)


def _greedy(what: str, least: float, baseline: str | None, case: str) -> Target:
    def ratio(kind: str) -> Callable[[Results], float | None]:
        def measured(found: Results) -> float | None:
            rows = _rows(found, "greedy", case=case, kind=kind)
            ours = _quickest(rows, ["persistent"])
            theirs = _quickest(rows, STEPS if baseline is None else [baseline])
            if ours is None or theirs is None:
                return None
            return theirs["median_us"] / ours["median_us"]

        return measured

    return Target(what, least, "{:.1f} x", ratio("additive"), "location-aware", ratio("location"))


BOTH: dict[str, Any] = {"pass": "both"}
TARGETS = (
    Target("attention, forward and backward, against graphed eager", 4, "{:.1f} x",
           _additive("sequence", "eager graphed", GRAPHED, *WHOLE),
           *_located("sequence", "eager graphed", GRAPHED, *WHOLE)),
    Target("the same against graphed torch.compile", 3, "{:.1f} x",
           _additive("sequence", "compile graphed", GRAPHED, *WHOLE),
           *_located("sequence", "compile graphed", GRAPHED, *WHOLE)),
    Target("a step's forward, B64 T250: share of the speed of a copy", 0.8, "{:.0%}",
           of_the_bytes_bound, "warm", of_the_bytes_bound_warm),
    Target("peak memory of forward and backward, B64 T250, less than eager's", 10, "{:.1f} x",
           less_memory),
    Target("a step of 16 x 8 beams against graphed eager", 5, "{:.1f} x",
           _additive("attention", "eager graphed", GRAPHED, BEAMS),
           *_located("attention", "eager graphed", GRAPHED, BEAMS)),
    Target("the same: share of the rate of tanh", 0.6, "{:.0%}", of_the_tanh_bound(BEAMS_CASE)),
    Target("a step of 64 x 8 beams: share of the rate of tanh", 0.6, "{:.0%}",
           of_the_tanh_bound(MANY_BEAMS_CASE)),
    Target("decoder as `las train` runs it, forward and backward, 200 steps, against eager", 5,
           "{:.1f} x", _additive("decoder", "eager", TRAINED, TRAIN, **BOTH),
           *_located("decoder", "eager", TRAINED, TRAIN, **BOTH)),
    Target("the same in a graph, which no training makes, against eager", 5, "{:.1f} x",
           _additive("decoder", "eager", GRAPHED, TRAIN, **BOTH),
           *_located("decoder", "eager", GRAPHED, TRAIN, **BOTH)),
    Target("the same in a graph against graphed eager", 1.8, "{:.1f} x",
           _additive("decoder", "eager graphed", GRAPHED, TRAIN, **BOTH),
           *_located("decoder", "eager graphed", GRAPHED, TRAIN, **BOTH)),
    _greedy("greedy search in one launch, 1 utterance, against eager", 10, "eager", "B1 T250"),
    _greedy("the same against the fused steps in a graph", 2, None, "B1 T250"),
    _greedy("greedy search in one launch, 32 utterances, against eager", 10, "eager", "B32 T250"),
    _greedy("the same against the fused steps in a graph", 2, None, "B32 T250"),
    Target("training, 100.yaml, times real time", 5000, "{:,.0f} x", training_speed),
    Target("transcription, beam of 8, times real time", 2000, "{:,.0f} x", transcription_speed),
)  # fmt: skip


def read(folder: Path) -> Results:
    """The files of one device."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}


def gpus(results: Path) -> list[Results]:
    """Those devices that are GPUs."""
    found = [read(folder) for folder in sorted(results.iterdir()) if folder.is_dir()]
    return [one for one in found if any("capability" in file for file in one.values())]


def table(found: Results) -> list[str]:
    """Lines of the table of one device, whose name and versions come first."""
    header = next((file for file in found.values() if "capability" in file), None)
    lines = []
    if header is not None:
        versions = f"torch {header['torch']}, triton {header['triton']}, CUDA {header['cuda']}"
        lines += [f"Measured on one {header['device']} ({versions}), {header['date'][:10]}:", ""]
    lines += ["| | target | measured | |", "|---|---|---|---|"]
    for target in TARGETS:
        value, beside = target.measured(found), target.figure(found)
        cells = [target.what, f"at least {target.form.format(target.least)}"]
        if value is None:
            cells += ["not measured", ""]
        else:
            cells.append(
                f"**{target.form.format(value)}** {'met' if value >= target.least else 'missed'}"
            )
            cells.append("" if beside is None else f"{target.beside} {target.form.format(beside)}")
        lines.append(f"| {' | '.join(cells)} |")
    if "bounds" in found:
        bounds = found["bounds"]["bounds"]
        lines += [
            "",
            f"Bounds: copying {bounds['copy'] / 1e12:.2f} TB/s, {bounds['tanh'] / 1e12:.2f} 10^12 "
            f"tanh a second, a launch {bounds['launch']:.1f} us, a node of a graph "
            f"{bounds['graph_node']:.1f} us, a barrier of all blocks {bounds['barrier']:.1f} us.",
        ]
    return lines


def text(readme: str, results: Path) -> str:
    """The README with its table made anew."""
    devices = gpus(results)
    blocks = ["\n".join(table(one)) for one in devices] or [NONE]
    block = "\n\n".join(blocks)
    return _BLOCK.sub(lambda match: f"{match[1]}{block}\n{match[2]}", readme)


def rewrite(check: bool = False) -> None:
    """Make the README's table anew, or with ``check`` only say whether it needs that."""
    old = README.read_text("utf-8")
    new = text(old, common.RESULTS)
    if new == old:
        return
    print(f"{README.name}: {'not up to date' if check else 'rewritten'}")
    if check:
        sys.exit(1)
    common.write(README, new)


def main() -> None:
    """Rewrite or check."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.targets", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--check", action="store_true")
    rewrite(parser.parse_args().check)


if __name__ == "__main__":
    main()
