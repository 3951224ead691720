"""A training step, its parts and its throughput: ``python -m benchmarks.system.training``.

A recipe's model trains on noise of LibriSpeech's lengths, with as many random characters a second
as read speech has, in the precision that the recipe trains in. Audio in memory: what reading it
costs is the "input wait" in the log of a training. ``--backends`` compares the kernels, and
SpeechBrain's decoder in the same model where SpeechBrain can be imported (``speechbrain``). With
``--device cpu`` and no backends named, :mod:`benchmarks.system.training_cpu` compares LSTM layers
instead.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks import common, module
from benchmarks.kernels.shapes import LIBRISPEECH_SECONDS
from benchmarks.memory import peak_bytes
from las import config_files as configuration
from las.config import RunConfig
from las.model.las import LAS
from las.runtime import precision
from las_kernels.backends import VARIABLE

NAME = "training"
RECIPE = Path(__file__).parents[2] / "recipes/librispeech/conf/100.yaml"
SMALLEST = (0.3, 0.4)
CHARACTERS_PER_SECOND = 14.5  # of train-clean-5, measured
PHASES = ("frontend", "listener", "decoder", "decoder backward", "listener backward", "optimizer")


class Batch(NamedTuple):
    """What a step is given; as in a training the lengths are on the CPU."""

    waveforms: Tensor  # [B, S]
    samples: Tensor  # [B]
    tokens: Tensor  # [B, U]
    token_lengths: Tensor  # [B]


class Clock:
    """Marks moments of a step; on a GPU those at which it has done what was asked before."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[tuple[str, torch.cuda.Event | float]] = []

    def mark(self, name: str) -> None:
        """The phase of this name ends here."""
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append((name, event))
        else:
            self.marks.append((name, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """How long each phase took, and start anew."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        found: dict[str, float] = {}
        for (_, start), (name, end) in zip(self.marks, self.marks[1:], strict=False):
            if isinstance(start, torch.cuda.Event):
                assert isinstance(end, torch.cuda.Event)
                took = start.elapsed_time(end) / 1e3
            else:
                assert isinstance(end, float)
                took = end - start
            found[name] = found.get(name, 0.0) + took
        self.marks = []
        return found


def watch(model: LAS, clock: Clock) -> None:
    """Have the model mark where its parts end, forward and backward."""

    def after_frontend(*_: object) -> None:
        clock.mark("frontend")

    def after_listener(_: nn.Module, __: object, outputs: tuple[Tensor, ...]) -> None:
        clock.mark("listener")
        # Its gradient is complete when all that follows the listener has been through.
        outputs[0].register_hook(lambda _: clock.mark("decoder backward"))

    model.frontend.register_forward_hook(after_frontend)
    model.listener.register_forward_hook(after_listener)


def batches(
    config: RunConfig, model: LAS, count: int, device: torch.device, lengths: Sequence[float]
) -> list[Batch]:
    """Noise with random texts, each batch of one of these lengths in seconds, in all alike."""
    random = torch.Generator().manual_seed(0)
    found = []
    for index in range(count):
        seconds = lengths[round((index + 0.5) / count * (len(lengths) - 1))]
        size = max(1, min(config.data.batch_utterances, int(config.data.batch_seconds / seconds)))
        samples = int(seconds * config.frontend.sample_rate)
        length = int(seconds * CHARACTERS_PER_SECOND)
        batch = Batch(
            0.1 * torch.randn(size, samples, generator=random),
            torch.full((size,), samples),
            torch.randint(2, len(model.text), (size, length), generator=random),
            torch.full((size,), length),
        )
        found.append(
            batch._replace(waveforms=batch.waveforms.to(device), tokens=batch.tokens.to(device))
        )
    return found


def step(
    config: RunConfig,
    model: LAS,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    clock: Clock,
) -> dict[str, float]:
    """One optimizer step; seconds by phase."""
    settings = config.training
    clock.mark("before")
    with precision(settings, clock.device):
        losses = model(*batch, settings.label_smoothing)
    total = (1 - settings.ctc) * losses.attention / losses.tokens
    total = total + settings.ctc * losses.ctc / losses.characters
    clock.mark("decoder")
    total.backward()
    clock.mark("listener backward")
    nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    clock.mark("optimizer")
    return clock.seconds()


def with_speechbrain(model: LAS) -> LAS:
    """Put SpeechBrain's decoder of the same sizes in the place of ours."""
    from benchmarks.peers.speechbrain_training import SpeechBrainSpeller

    width, sizes = model.listener.width, model.config
    speller = SpeechBrainSpeller(len(model.text), width, sizes.speller, sizes.attention)
    model.speller = speller  # type: ignore[assignment]
    return model


def measure(config: RunConfig, chosen: argparse.Namespace, peer: bool = False) -> common.Row:
    """Median seconds of each phase over rounds of the same batches, summed over them."""
    device = torch.device(chosen.device)
    lengths = SMALLEST if chosen.smallest else LIBRISPEECH_SECONDS
    torch.manual_seed(0)
    model = LAS(config.model_settings())
    model = (with_speechbrain(model) if peer else model).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.98))
    clock = Clock(device)
    watch(model, clock)
    prepared = batches(config, model, chosen.batches, device, lengths)
    audio = sum(float(batch.samples.sum()) for batch in prepared) / config.frontend.sample_rate
    took: list[dict[str, list[float]]] = [{phase: [] for phase in PHASES} for _ in prepared]
    for turn in range(chosen.rounds + 1):
        for batch, times in zip(prepared, took, strict=True):
            if device.type == "cuda" and turn == 1:
                torch.cuda.reset_peak_memory_stats()
            found = step(config, model, optimizer, batch, clock)
            if turn:  # the first round compiles and warms up
                for phase in PHASES:
                    times[phase].append(found[phase])
    seconds = {phase: sum(statistics.median(times[phase]) for times in took) for phase in PHASES}
    row: common.Row = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": len(prepared),
        "audio_s": audio,
        "seconds": sum(seconds.values()),
        "phases": seconds,
        "real_time": audio / sum(seconds.values()),
    }
    # On a CPU that of the process, libraries and earlier backends included.
    cuda = device.type == "cuda"
    row["peak_bytes"] = torch.cuda.max_memory_allocated() if cuda else peak_bytes()
    return row


def markdown(found: common.Row) -> str:
    """The table."""
    lines = [f"# {module(NAME)}: {found['device']}", ""]
    if "note" in found:
        lines += [f"**{found['note']}**", ""]
    hidden = ("device", "note", "rows")
    lines += [f"- {key}: {value}" for key, value in found.items() if key not in hidden]
    titles = ["backend", "times real time", "ms a step", *PHASES, "peak GB"]
    lines += ["", f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for row in found["rows"]:
        if "skipped" in row:
            lines.append(f"| {row['backend']} | not measured: {row['skipped']} |")
            continue
        shares = [f"{row['phases'][phase] / row['seconds']:.0%}" for phase in PHASES]
        peak = f"{row['peak_bytes'] / 1e9:.1f}" if "peak_bytes" in row else ""
        speed = [f"{row['real_time']:.1f}", f"{1e3 * row['seconds'] / row['steps']:.1f}"]
        lines.append(f"| {' | '.join([row['backend'], *speed, *shares, peak])} |")
    return "\n".join(lines) + "\n"


def told(row: common.Row) -> str:
    """A row in one line."""
    start = f"{NAME}: {row['backend']}: "
    if "skipped" in row:
        return start + row["skipped"]
    each = 1e3 / row["steps"]
    phases = ", ".join(f"{phase} {seconds * each:.1f}" for phase, seconds in row["phases"].items())
    peak = f", peak {row['peak_bytes'] / 1e9:.2f} GB" if "peak_bytes" in row else ""
    return f"{start}{row['real_time']:.0f} x real time{peak}; ms a step: {phases}"


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options; ``device`` and ``folder`` are filled in."""
    parser = argparse.ArgumentParser(prog=f"python -m {module(NAME)}", description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], help="default: a GPU if there is one")
    parser.add_argument("--config", type=Path, default=RECIPE, help="a recipe's configuration")
    parser.add_argument("--rounds", type=int, default=5, help="each batch is trained on as often")
    parser.add_argument("--batches", type=int, default=10, help="of different lengths")
    parser.add_argument(
        "--backends", help="of the kernels, auto,reference on a GPU; speechbrain: its decoder"
    )
    parser.add_argument("--output", type=Path, default=common.RESULTS, help="of the results")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no backend after these")
    parser.add_argument(
        "--keep", action="store_true", help="go on with an earlier run: what it measured stays"
    )
    parser.add_argument("--smallest", action="store_true", help="only see that it works")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of the configuration")
    chosen = parser.parse_args(arguments)
    chosen.device = chosen.device or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen.folder = chosen.output / common.slug(common.device_name(chosen.device))
    chosen.layers = chosen.device == "cpu" and chosen.backends is None
    chosen.backends = chosen.backends or "auto,reference"
    # The file of another recipe has its name: both may be measured on one device.
    chosen.file = NAME if chosen.config.stem == RECIPE.stem else f"{NAME}-{chosen.config.stem}"
    chosen.end = time.monotonic() + chosen.seconds
    given = ["--device", chosen.device, "--rounds", chosen.rounds]
    if not chosen.layers:
        given += ["--config", os.path.relpath(chosen.config, Path(__file__).parents[2])]
        given += ["--batches", chosen.batches, "--backends", chosen.backends, *chosen.settings]
    given += ["--smallest"] * chosen.smallest
    chosen.command = " ".join([parser.prog, *map(str, given)])
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every backend, and write JSON and a table."""
    chosen = options(arguments)
    if chosen.layers:
        from benchmarks.system import training_cpu

        training_cpu.main(chosen)
        return
    config = configuration.load(RunConfig, chosen.config, chosen.settings)
    torch.set_num_threads(config.training.threads)
    earlier = common.read(chosen.file, chosen.folder)[1] if chosen.keep else []
    rows = [row for row in earlier if "skipped" not in row]
    there = {row["backend"] for row in rows}
    found = {**common.environment(chosen), "config": chosen.config.name, "rows": rows}
    chosen.folder.mkdir(parents=True, exist_ok=True)
    before = os.environ.get(VARIABLE)
    for backend in chosen.backends.split(","):
        if backend in there:
            continue
        peer = backend == common.PEER
        os.environ[VARIABLE] = "auto" if peer else backend
        try:
            if time.monotonic() > chosen.end:
                raise RuntimeError("no time left")
            row = measure(config, chosen, peer)
        except Exception as error:
            row = {"skipped": common.reason(error)}
        rows.append({"backend": backend, **row})
        print(told(rows[-1]), flush=True)
        # After each: what a limit of time cuts off must not cost the others.
        common.write(chosen.folder / f"{chosen.file}.json", json.dumps(found, indent=1) + "\n")
        common.write(chosen.folder / f"{chosen.file}.md", markdown(found))
    os.environ.pop(VARIABLE, None)
    if before is not None:
        os.environ[VARIABLE] = before


if __name__ == "__main__":
    main()
