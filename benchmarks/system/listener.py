"""The listener of a recipe, forward and backward, and ways to make it faster.

    python -m benchmarks.system.listener

``now``       ``las.model.listener`` as it is: each direction of a layer after the other, in the
precision
              of training
``float32``   the same without autocast
``streams``   each direction of a layer on a stream of its own
``together``  both in one bidirectional call over a packed sequence
``compiled``  ``torch.compile`` of all that is not an LSTM

All have the same weights; ``differs`` is by how much a way's output is not that of ``now``, as a
share of its largest number. Dropout is off, so that they can be compared.
"""

import argparse
import contextlib
import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks import common
from benchmarks.kernels import timing
from las import config_files as configuration
from las.config import RunConfig
from las.model.listener import BidirectionalLSTM, Listener
from las.runtime import precision
from las_kernels import padding_mask
from las_kernels.lstm_eager import reversal

NAME = "listener"
RECIPE = Path(__file__).parents[2] / "recipes/librispeech/conf/100.yaml"
SECONDS = (5.0, 12.5, 15.5)  # of an utterance: of LibriSpeech a tenth is shorter, half, nine tenths


class Case(NamedTuple):
    """A batch of a recipe: utterances of nearly one length, as its buckets have them."""

    B: int
    frames: int  # of 10 ms

    @property
    def name(self) -> str:
        """How tables call it."""
        return f"B{self.B} {self.frames / 100:g} s"


class Streams(nn.Module):
    """A layer whose directions run side by side on a GPU."""

    def __init__(self, layer: BidirectionalLSTM) -> None:
        super().__init__()
        self.layer = layer
        self.side = torch.cuda.Stream()

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """As the layer. Autograd runs each backward on the stream of its forward."""
        mask = padding_mask(lengths, x.shape[1])
        here = torch.cuda.current_stream()
        # What lies in the pool of either stream is used again only behind these two waits.
        self.side.wait_stream(here)
        with torch.cuda.stream(self.side):
            order = reversal(lengths, x.shape[1])[:, :, None]
            back, _ = self.layer.backwards(x.gather(1, order.expand_as(x)))
            back = back.gather(1, order.expand_as(back))
        ahead, _ = self.layer.forwards(x)
        here.wait_stream(self.side)
        return torch.cat([ahead, back], -1) * mask[:, :, None].to(ahead.dtype)


class Together(nn.Module):
    """A layer whose directions are one call; packing takes the place of reversing."""

    def __init__(self, layer: BidirectionalLSTM) -> None:
        super().__init__()
        first = layer.forwards
        self.lstm = nn.LSTM(
            first.input_size, first.hidden_size, batch_first=True, bidirectional=True
        )
        weights = {name: weight.detach() for name, weight in first.named_parameters()}
        for name, weight in layer.backwards.named_parameters():
            weights[f"{name}_reverse"] = weight.detach()
        self.lstm.load_state_dict(weights)
        self.to(next(layer.parameters()).device)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """As the layer; the lengths are fetched from the GPU, which waits for it."""
        sizes = lengths.cpu()
        packed = nn.utils.rnn.pack_padded_sequence(x, sizes, True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(
            self.lstm(packed)[0], True, total_length=x.shape[1]
        )[0]


def _with(layer: Callable[[BidirectionalLSTM], nn.Module]) -> Callable[[Listener], Listener]:
    def change(listener: Listener) -> Listener:
        listener.layers = nn.ModuleList(
            layer(old) for old in listener.layers if isinstance(old, BidirectionalLSTM)
        )
        return listener

    return change


class Apart(nn.Module):
    """A layer that the compiler does not look into: cuDNN's LSTM is to be called as it is."""

    def __init__(self, layer: BidirectionalLSTM) -> None:
        super().__init__()
        self.layer = layer

    @torch.compiler.disable
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """As the layer."""
        found: Tensor = self.layer(x, lengths)
        return found


def _compiled(listener: Listener) -> nn.Module:
    return torch.compile(_with(Apart)(listener), dynamic=False)  # type: ignore[return-value]


WAYS: dict[str, Callable[[Listener], nn.Module]] = {
    "now": lambda listener: listener,
    "float32": lambda listener: listener,
    "streams": _with(Streams),
    "together": _with(Together),
    "compiled": _compiled,
}


def cases(config: RunConfig) -> list[Case]:
    """Batches of the recipe."""
    data = config.data
    return [
        Case(max(1, min(data.batch_utterances, int(data.batch_seconds / s))), round(100 * s))
        for s in SECONDS
    ]


def measure(
    config: RunConfig, case: Case, record: common.Record, chosen: argparse.Namespace
) -> None:
    """All ways of one batch."""
    device = torch.device(chosen.device)
    torch.manual_seed(0)
    width = config.frontend.n_mels
    original = Listener(width, config.listener.model_copy(update={"dropout": 0.0})).to(device)
    # Noise; the shortest is a tenth shorter than the longest.
    lengths = torch.linspace(0.9 * case.frames, case.frames, case.B, device=device).long()
    lengths[-1] = case.frames
    features = torch.randn(case.B, case.frames, width, device=device)
    features *= padding_mask(lengths, case.frames)[:, :, None]
    expected: Tensor | None = None
    for name in common.in_order(WAYS, chosen.methods):
        change = WAYS[name]
        row: common.Row = {"benchmark": NAME, "case": case.name, "method": name, "pass": "both"}
        if record.has(row):
            continue
        row["audio_s"] = float(lengths.sum()) / 100
        autocast: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if name != "float32":
            autocast = precision(config.training, device)
        with autocast:
            halves = torch.is_autocast_enabled(device.type)
        # Not a "dtype": rows of several would not be compared.
        row["precision"] = "bfloat16" if halves else "float32"
        try:
            if name == "streams" and device.type != "cuda":
                raise RuntimeError("it needs a GPU")
            listener = change(copy.deepcopy(original))

            def both(
                _: int,
                listener: nn.Module = listener,
                autocast: contextlib.AbstractContextManager[object] = autocast,
            ) -> Tensor:
                with autocast:
                    memory: Tensor = listener(features, lengths)[0]
                memory.float().square().mean().backward()
                return memory

            found = both(0).detach().float()
            expected = found if expected is None else expected
            row["differs"] = float((found - expected).abs().max() / expected.abs().max())
            if chosen.device == "cuda":
                took = timing.time_on_gpu(both, 1, graphed=False, seconds=0.5)
                row["peak_bytes"] = timing.peak_bytes(both)
            else:
                took = timing.time_on_cpu({name: both}, 2 if chosen.smallest else 5)[name]
            figures = took._asdict()
            row["real_time"] = row["audio_s"] / (figures["median_us"] / 1e6)
            record.add({**row, **figures})
        except Exception as error:
            record.add({**row, "skipped": common.reason(error)})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or make the tables of a run that was killed."""
    chosen = common.options(NAME, arguments, ("cases", "methods"))
    if chosen.render:
        common.render(NAME, chosen.folder, not chosen.no_plot)
        return
    common.prepare_compiler()
    config = configuration.load(RunConfig, RECIPE, [])
    several = cases(config)
    if chosen.smallest:
        config = configuration.load(RunConfig, RECIPE, ["listener.width=8", "listener.layers=2"])
        several = [Case(3, 46)]
    if chosen.device == "cuda":
        torch.cuda.set_stream(torch.cuda.Stream())
    record = common.Record(NAME, chosen.folder, common.environment(chosen), chosen.keep)
    for case in common.asked_for(several, chosen.cases, "case"):
        if time.monotonic() > chosen.end:
            record.add({"case": case.name, "skipped": "no time left"})
            continue
        torch._dynamo.reset()
        measure(config, case, record, chosen)
    common.render(NAME, chosen.folder, not chosen.no_plot)


if __name__ == "__main__":
    main()
