"""A training step on a CPU: what ``python -m benchmarks.system.training --device cpu`` measures.

The bundled model's configuration and a recipe's train on noise, batches of utterances of 13 s, with
the LSTM layers of this project and with torch's, in float32 and in bfloat16, all in one run. CPU
seconds are those of all threads of a process; two processes exchange gradients as in a training,
and share the machine's cores. Where torch's layer cannot run in bfloat16 the row says so.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from functools import partial
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks import common
from benchmarks.system.training import CHARACTERS_PER_SECOND, PHASES, Batch, Clock, step, watch
from las import config_files as configuration
from las.config import ModelConfig, RunConfig
from las.model import listener
from las.model.folder import CONFIG, bundled
from las.model.las import LAS
from las.training.distributed import DistributedGroup
from las_kernels import bilstm

NAME = "training-cpu"
RECIPE = Path(__file__).parents[2] / "recipes/librispeech/conf/mini.yaml"
SIZES = (4, 8, 16)
SECONDS = 13.0
LAYERS = ("ours", "torch")
PRECISIONS = ("float32", "bfloat16")


class ProcessorClock(Clock):
    """Marks the processor's time that this process has had."""

    def mark(self, name: str) -> None:
        """The phase of this name ends here."""
        self.marks.append((name, time.process_time()))


def configurations(smallest: bool) -> dict[str, RunConfig]:
    """The bundled model's sizes with the recipe's training, and the recipe."""
    recipe = configuration.load(RunConfig, RECIPE, [])
    model = configuration.load(ModelConfig, bundled() / CONFIG)
    own = RunConfig(**{**dict(recipe), **{name: getattr(model, name) for name in _sizes()}})
    found = {"bundled": own, RECIPE.name: recipe}
    return {"bundled": own} if smallest else found


def _sizes() -> list[str]:
    return list(ModelConfig.model_fields)


def batch(config: RunConfig, model: LAS, size: int, seconds: float) -> Batch:
    """Noise, with as many random characters as read speech has."""
    random = torch.Generator().manual_seed(0)
    samples, length = (
        int(seconds * config.frontend.sample_rate),
        int(seconds * CHARACTERS_PER_SECOND),
    )
    return Batch(
        0.1 * torch.randn(size, samples, generator=random),
        torch.full((size,), samples),
        torch.randint(2, len(model.text), (size, length), generator=random),
        torch.full((size,), length),
    )


def measure(
    config: RunConfig, layer: str, precision: str, size: int, rounds: int, seconds: float
) -> common.Row:
    """Median CPU seconds by phase, and seconds on the wall, of one process's step."""
    training = config.training.model_copy(update={"precision": precision})
    config = config.model_copy(update={"training": training})
    torch.manual_seed(0)
    torch.set_num_threads(1)
    device = torch.device("cpu")
    model = LAS(config.model_settings()).train()
    clock = ProcessorClock(device)
    watch(model, clock)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.98))
    given = batch(config, model, size, seconds)
    group = DistributedGroup(device)
    parameters = list(model.parameters())
    used = [1] * len(parameters)
    optimizer.register_step_pre_hook(lambda *_: group.add_gradients(parameters, used))
    before = listener.bilstm
    if layer == "torch":
        listener.bilstm = partial(bilstm, backend="reference")
    took, walls = [], []
    try:
        for _ in range(rounds + 1):
            start = time.perf_counter()
            took.append(step(config, model, optimizer, given, clock))
            walls.append(time.perf_counter() - start)
    finally:
        listener.bilstm = before
    phases = {phase: statistics.median(one[phase] for one in took[1:]) for phase in PHASES}
    return {
        "phases": phases,
        "cpu_s": sum(phases.values()),
        "wall_s": statistics.median(walls[1:]),
        "audio_s": size * seconds,
    }


def _work(
    rank: int, meeting: str, results: "SimpleQueue[common.Row]", given: tuple[object, ...]
) -> None:
    """One of two processes."""
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    try:
        row = measure(*given)  # type: ignore[arg-type]
    except Exception as error:
        row = {"skipped": common.reason(error)}
    results.put(row)
    dist.barrier()
    dist.destroy_process_group()


def together(*given: object) -> common.Row:
    """Two processes: CPU seconds of both, the longer time on the wall."""
    context = multiprocessing.get_context("spawn")
    results: SimpleQueue[common.Row] = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        workers = [
            context.Process(target=_work, args=(rank, meeting, results, given)) for rank in range(2)
        ]
        for worker in workers:
            worker.start()
        rows = [results.get() for _ in workers]
        for worker in workers:
            worker.join()
    if skipped := next((row for row in rows if "skipped" in row), None):
        return skipped
    phases = {phase: sum(row["phases"][phase] for row in rows) for phase in PHASES}
    return {
        "phases": phases,
        "cpu_s": sum(phases.values()),
        "wall_s": max(row["wall_s"] for row in rows),
        "audio_s": sum(row["audio_s"] for row in rows),
    }


def markdown(found: common.Row) -> str:
    """The table."""
    lines = [f"# benchmarks.system.training --device cpu: {found['device']}", ""]
    hidden = ("device", "note", "rows")
    lines += [f"- {key}: {value}" for key, value in found.items() if key not in hidden]
    lines += [
        "",
        "CPU seconds of a step, and its parts as shares of them; times real time by CPU seconds "
        "of a process, and by the clock on the wall, which other work on the machine holds up.",
        "",
    ]
    titles = ["configuration", "B x s", "layers", "precision", "processes", "CPU s", *PHASES]
    titles += ["x torch float32", "times real time, CPU", "wall", "processor"]
    lines += [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    keys = ("configuration", "size", "processes")
    plain = {
        tuple(row[key] for key in keys): row["cpu_s"]
        for row in found["rows"]
        if row["layers"] == "torch" and row["precision"] == "float32" and "cpu_s" in row
    }
    for row in found["rows"]:
        cells = [row["configuration"], f"{row['size']} x {row['seconds']:g}", row["layers"]]
        cells += [row["precision"], str(row["processes"])]
        if "skipped" in row:
            lines.append(f"| {' | '.join(cells)} | not measured: {row['skipped']} |")
            continue
        cells.append(f"{row['cpu_s']:.3f}")
        cells += [f"{row['phases'][phase] / row['cpu_s']:.0%}" for phase in PHASES]
        base = plain.get(tuple(row[key] for key in keys))
        cells.append(f"{base / row['cpu_s']:.2f}" if base else "")
        cells.append(f"{row['audio_s'] / row['cpu_s'] * row['processes']:.1f}")
        cells += [f"{row['audio_s'] / row['wall_s']:.1f}", row["processor"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(chosen: argparse.Namespace) -> None:
    """Measure all, and write JSON and a table; the options are ``benchmarks.system.training``'s."""
    sizes, seconds = ((2,), 0.6) if chosen.smallest else (SIZES, SECONDS)
    found: common.Row = {**common.environment(chosen), "cores": os.cpu_count(), "rows": []}
    found.pop("note", None)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for name, config in configurations(chosen.smallest).items():
        for size in sizes:
            for processes, layer, precision in _methods(chosen.smallest):
                given = (config, layer, precision, size, chosen.rounds, seconds)
                try:
                    row = measure(*given) if processes == 1 else together(*given)
                except Exception as error:
                    row = {"skipped": common.reason(error)}
                about = {"configuration": name, "size": size, "seconds": seconds}
                about |= {"layers": layer, "precision": precision, "processes": processes}
                found["rows"].append({**about, "processor": found["device"], **row})
                print(found["rows"][-1], flush=True)
                _write(chosen.folder, found)


def _methods(smallest: bool) -> list[tuple[int, str, str]]:
    """Processes, layers and precision of each row."""
    alone = [(1, layer, precision) for layer in LAYERS for precision in PRECISIONS]
    both = [(2, layer, precision) for _, layer, precision in alone]
    return alone + (both[:1] if smallest else both)


def _write(folder: Path, found: common.Row) -> None:
    """After each row: what a limit of time cuts off must not cost the others."""
    common.write(folder / f"{NAME}.json", json.dumps(found, indent=1) + "\n")
    common.write(folder / f"{NAME}.md", markdown(found))
