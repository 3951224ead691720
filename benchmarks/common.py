"""What the benchmarks share: options, the record that survives a kill, tables and a plot."""

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._functorch.config
import torch._inductor.config

import benchmarks

RESULTS = Path(__file__).parent / "results"
PEER = "speechbrain"  # whose decoder stands in for ours in a training step
NOT_GPU = "Measured on a CPU, at small shapes: these are not GPU numbers."
BASELINES = ("eager", "compile", "eager graphed", "compile graphed", "now")
GROUP = (
    "case",
    "kind",
    "dtype",
    "pass",
    "threads",
    "heap",
)  # rows that differ in nothing else compare
SELECTS = ("cases", "kinds", "methods", "passes")

Row = dict[str, Any]


def options(
    name: str, arguments: Sequence[str] | None, selects: Sequence[str] = ()
) -> argparse.Namespace:
    """Options of a benchmark; ``device`` and ``folder`` are filled in.

    Args:
        name: of the benchmark.
        arguments: of the command line; None for those of this process.
        selects: of ``SELECTS``, what can be chosen in this benchmark.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {benchmarks.module(name)}")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="default: a GPU if there is one")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no new shape after these")
    for what in selects:
        parser.add_argument(f"--{what}", help="only these, separated by commas, in this order")
    parser.add_argument(
        "--keep", action="store_true", help="go on with an earlier run: what it measured stays"
    )
    parser.add_argument("--no-plot", action="store_true", help="write numbers and tables alone")
    parser.add_argument("--smallest", action="store_true", help="only see that it works")
    parser.add_argument(
        "--render", action="store_true", help="only make the tables of a killed run"
    )
    chosen = parser.parse_args(arguments)
    chosen.device = chosen.device or ("cuda" if torch.cuda.is_available() else "cpu")
    for what in SELECTS:
        given = getattr(chosen, what, None)
        setattr(chosen, what, given.split(",") if given else None)
    chosen.folder = chosen.output / slug(device_name(chosen.device))
    chosen.end = time.monotonic() + chosen.seconds
    given = sys.argv[1:] if arguments is None else arguments
    chosen.command = " ".join([parser.prog, *given])
    return chosen


def asked_for(found: Sequence[Any], names: Sequence[str] | None, what: str) -> list[Any]:
    """The cases of these names, in the order of the names; all of them without names."""
    if names is None:
        return list(found)
    by_name = {case.name: case for case in found}
    if unknown := [name for name in names if name not in by_name]:
        raise SystemExit(f"error: no {what} {unknown[0]!r}; there are: {', '.join(by_name)}")
    return [by_name[name] for name in names]


def in_order(found: Iterable[str], names: Sequence[str] | None) -> list[str]:
    """Those of ``found`` that are asked for, in the order of the names."""
    found = list(found)
    return found if names is None else [name for name in names if name in found]


def exact_float32() -> None:
    """Have float32 mean float32: by default cuDNN rounds to TF32 what a convolution multiplies."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def prepare_compiler() -> None:
    """Settings of ``torch.compile`` without which its figures would be wrong, or missing."""
    # A backward pass is timed again and again with what one forward pass kept.
    torch._functorch.config.donated_buffer = False
    # Code for one thread must not be taken from the cache for two.
    torch._inductor.config.fx_graph_cache = False
    torch._functorch.config.enable_autograd_cache = False


def device_name(device: str) -> str:
    """The GPU's name, or the processor's and how many cores it has."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    found = re.search(r"model name\s*: (.*)", _read("/proc/cpuinfo"))
    model = found[1] if found else platform.processor() or platform.machine()
    return f"CPU {model}, {os.cpu_count()} cores"


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def slug(name: str) -> str:
    """A device's name as a folder's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def environment(chosen: argparse.Namespace) -> Row:
    """Everything that a number depends on besides the code."""
    try:
        import triton

        with_triton = triton.__version__
    except ImportError:
        with_triton = None
    found: Row = {
        "device": device_name(chosen.device),
        "date": now(),
        "command": chosen.command,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": with_triton,
        "numpy": np.__version__,
    }
    if chosen.device == "cuda":
        found |= {"cuda": torch.version.cuda, "driver": _driver()}
        found["capability"] = ".".join(map(str, torch.cuda.get_device_capability()))
        tf32 = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
        found["float32"] = "in part as TF32" if tf32 else "never as TF32"
    else:
        found |= {"note": NOT_GPU, "load": round(os.getloadavg()[0], 2)}
    return found


def now() -> str:
    """Date and time, for what was measured."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _driver() -> str | None:
    found = re.search(r"Kernel Module[^0-9]*([0-9.]+)", _read("/proc/driver/nvidia/version"))
    return found[1] if found else None


def reason(error: Exception) -> str:
    """Why something was not measured, in one line; its failure must not cost the others' rows."""
    return f"{type(error).__name__}: {error}".split("\n")[0][:200]


class Record:
    """Writes each row as it comes; the tables are made of the file, also after a kill.

    Args:
        name: of the benchmark.
        folder: where its files are.
        header: what all rows have in common.
        keep: rows of an earlier run stay, but for those that say why they were not measured.
    """

    def __init__(self, name: str, folder: Path, header: Row, keep: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.folder = name, folder
        self.path = folder / f"{name}.jsonl"
        before, rows = read(name, folder) if keep else ({}, [])
        kept = [row for row in rows if "skipped" not in row]
        self.there = set(map(_what, kept))
        header = {**header, "command": _joined(before.get("command"), header.get("command"))}
        text = "".join(json.dumps(row) + "\n" for row in (header, *kept))
        write(self.path, text)
        for key, value in header.items():
            print(f"{key}: {value}", flush=True)

    def has(self, row: Row) -> bool:
        """Whether it is there, from an earlier run."""
        return _what(row) in self.there

    def add(self, row: Row) -> None:
        """Append a row."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        told = row.get("skipped") or f"{row['median_us']:.1f} us"
        told += f", {row['fraction']:.0%} of the bound" if "fraction" in row else ""
        told += f", peak {row['peak_bytes'] / 1e6:.1f} MB" if "peak_bytes" in row else ""
        what = " ".join(str(x) for x in _what(row) if x)
        print(f"{self.name}: {what}: {told}", flush=True)


def _what(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(key) for key in (*GROUP, "method"))


def _joined(before: str | None, now: str | None) -> str | None:
    """The commands that a file comes from, each once."""
    commands = [*(before or "").split("; "), now or ""]
    return "; ".join(dict.fromkeys(x for x in commands if x)) or None


def read(name: str, folder: Path) -> tuple[Row, list[Row]]:
    """Header and rows of an earlier run, also of one that was killed; nothing if there is none."""
    lines, whole = folder / f"{name}.jsonl", folder / f"{name}.json"
    if lines.exists():
        header, *rows = list(_parsed(lines.read_text().splitlines()))
        return header, rows
    if whole.exists():
        found = json.loads(whole.read_text())
        return found, found.pop("rows")
    return {}, []


def _parsed(lines: Iterable[str]) -> Iterator[Row]:
    for line in lines:
        with contextlib.suppress(ValueError):  # the last one, cut off by the kill
            yield json.loads(line)


def render(name: str, folder: Path, plots: bool = True) -> None:
    """Make JSON, Markdown and a plot of the rows written so far."""
    lines = folder / f"{name}.jsonl"
    if not lines.exists():
        raise SystemExit(f"error: no {lines}: nothing was left by a killed run")
    header, rows = read(name, folder)
    write(folder / f"{name}.json", json.dumps({**header, "rows": rows}, indent=1) + "\n")
    write(folder / f"{name}.md", markdown(name, header, rows))
    if plots:
        plot(name, folder, header, rows)
    lines.unlink()
    print(f"wrote {folder / name}.json and .md")


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def grouped(rows: list[Row]) -> dict[tuple[Any, ...], dict[str, Row]]:
    """Measured rows by what they have in common, then by method."""
    groups: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        if "skipped" not in row:
            groups.setdefault(tuple(row.get(key) for key in GROUP), {})[row["method"]] = row
    return groups


def markdown(name: str, header: Row, rows: list[Row]) -> str:
    """The table, with the header above it and what was skipped below."""
    groups = grouped(rows)
    shown = [key for i, key in enumerate(GROUP) if any(group[i] is not None for group in groups)]
    baselines = [b for b in BASELINES if any(b in methods for methods in groups.values())]
    measures = {
        "others": ("others busy", "{:.0%}"),
        "warm_us": ("warm us", "{:.1f}"),
        "peak_bytes": ("peak MB", "{:.1f}"),
        "bound_us": ("bytes bound us", "{:.1f}"),
        "fraction": ("of the bound", "{:.0%}"),
        "real_time": ("times real time", "{:.0f}"),
        "differs": ("differs by", "{:.0e}"),
    }
    measures = {key: m for key, m in measures.items() if any(key in row for row in rows)}
    titles = [*shown, "method", "median us", "p20 - p80", *(m[0] for m in measures.values())]
    titles += [f"x {baseline}" for baseline in baselines]
    lines = [f"# {benchmarks.module(name)}: {header['device']}", ""]
    if "note" in header:
        lines += [f"**{header['note']}**", ""]
    lines += [f"- {key}: {value}" for key, value in header.items() if key not in ("device", "note")]
    lines += ["", "`x eager` is how many times faster than eager, and so on.", ""]
    lines += [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for methods in groups.values():
        for method, row in methods.items():
            cells = [str(row.get(key, "")) for key in shown] + [method]
            cells += [f"{row['median_us']:.1f}", f"{row['p20_us']:.1f} - {row['p80_us']:.1f}"]
            for key, (_, form) in measures.items():
                value = row.get(key)
                scale = 1e-6 if key == "peak_bytes" else 1
                cells.append("" if value is None else form.format(value * scale))
            for baseline in baselines:
                base = methods.get(baseline)
                cells.append(f"{base['median_us'] / row['median_us']:.2f}" if base else "")
            lines.append(f"| {' | '.join(cells)} |")
    skipped = [row for row in rows if "skipped" in row]
    if skipped:
        lines += ["", "Not measured:", ""]
    for row in skipped:
        what = " ".join(str(row[key]) for key in (*GROUP, "method") if row.get(key) is not None)
        lines.append(f"- {what}: {row['skipped']}")
    return "\n".join(lines) + "\n"


def plot(name: str, folder: Path, header: Row, rows: list[Row]) -> None:
    """Times of all methods as bars, one group a shape; skipped where matplotlib is missing."""
    try:
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    groups = grouped(rows)
    methods = list(dict.fromkeys(method for group in groups.values() for method in group))
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.16 * sum(map(len, groups.values()))))
    y, ticks, labels = 0.0, [], []
    for key, group in groups.items():
        ticks.append(y + (len(group) - 1) / 2)
        labels.append(" ".join(str(part) for part in key if part is not None))
        for method, row in group.items():
            axes.barh(y, row["median_us"], color=f"C{methods.index(method)}", height=0.9)
            y += 1
        y += 1
    axes.set_yticks(ticks, labels, fontsize=7)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("microseconds (median)")
    axes.set_title(f"{name}: {header['device']}", fontsize=9)
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=f"C{i}") for i in range(len(methods))]
    axes.legend(handles, methods, fontsize=7)
    figure.tight_layout()
    part = folder / f"{name}.part.png"
    figure.savefig(part, dpi=120)
    pyplot.close(figure)
    part.replace(folder / f"{name}.png")
