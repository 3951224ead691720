"""The training loop: schedule, accumulation, checkpoints, exact resume, several processes.

Everything random in a step follows from (seed, step, process), so that a resumed training
computes the same bits as one that was never stopped.
"""

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet
from torch import Tensor, nn

from las import config as configuration
from las.config import RunConfig, TrainingConfig
from las.data.dataset import Batch, evaluation_batches, training_batches
from las.data.manifests import check_alphabet, read_manifest, trainable
from las.errors import LASError
from las.model.las import LAS, Losses
from las.runtime import choose_device, choose_threads, precision, seed_everything
from las.scoring.wer import check
from las.storage import checkpoint, settings_diff
from las.storage.atomic import check_folder, make_folder
from las.storage.checkpoint import STATE
from las.storage.settings import save_settings
from las.storage.weights import WEIGHTS, read_weights, write_weights
from las.training import finetuning
from las.training.distributed import Processes
from las.training.logger import Journal
from las.training.validation import Validation, validate

# What a training that goes on may have otherwise than before: where things are, how often it looks,
# what computes, and how long it trains. The learning rate then follows the new number of epochs.
_FREE = frozenset(
    [
        "data.train",
        "data.dev",
        "data.workers",
        "training.output",
        "training.epochs",
        "training.threads",
        "training.device",
        "training.evaluate_every",
        "training.checkpoint_minutes",
    ]
)


class InterruptedTrainingError(LASError):
    """The user or the system asked the training to stop; its state was saved."""


def rate(config: TrainingConfig, step: int, progress: float) -> float:
    """Learning rate: linear warm-up over steps, then a hold, then cosine decay over epochs.

    Args:
        config: peak, warm-up, hold and final rate.
        step: optimizer steps taken.
        progress: share of all epochs that is done, 0 to 1.
    """
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    done = max(0.0, min(1.0, (progress - config.hold) / max(1e-9, 1.0 - config.hold)))
    decay = config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * warm * decay


class Trainer:
    """Trains one model as a configuration says.

    Args:
        config: the run; with ``training.init`` the model's settings are taken from there.
    """

    def __init__(self, config: RunConfig) -> None:
        self.settings = config.training
        if not self.settings.output:
            raise LASError("training.output is empty: name a folder for the run")
        state = Path(self.settings.output) / STATE
        stated, config = config, finetuning.resolved(config, state)
        self.config = config
        self.device = choose_device(self.settings.device)
        self.processes = Processes(self.device)
        self.output = Path(self.settings.output)
        choose_threads(self.settings.threads, "training.threads")
        seed_everything(self.settings.seed)
        self.model = LAS(config.model_settings()).to(self.device)
        if self.settings.init and not state.is_file():
            weights = finetuning.folder_of(self.settings.init) / WEIGHTS
            self.model.load_weights(read_weights(weights), weights)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            betas=(0.9, 0.98),
            weight_decay=self.settings.weight_decay,
            fused=True if self.device.type == "cpu" else None,  # an eighth of the time there
        )
        self.replica: nn.Module | None = None
        self.train_cuts, self.count = self._training_cuts()
        if stated.longest_seconds is None:  # transcription cuts longer audio
            longest = round(max(cut.duration for cut in self.train_cuts), 1)
            longest = max(longest, config.longest_seconds or 0.0)  # of the training before this
            self.model.config = self.model.config.model_copy(update={"longest_seconds": longest})
        self.dev_cuts = read_manifest(config.data.dev) if config.data.dev else None
        if self.dev_cuts is not None:
            check_alphabet(self.dev_cuts, self.model.text, config.data.dev)
            check(((cut.id, cut.supervisions[0].text) for cut in self.dev_cuts), config.data.dev)
        # Where the training is: all that resuming needs beside weights and optimizer.
        self.epoch = self.batches = self.seen = self.step = self.skipped = 0
        self.in_a_row = 0
        self.best: list[list[Any]] = []  # [dev WER, epoch], the best first
        self.before: float | None = None  # dev WER of the model that the training started from
        self.stop: int | None = None

    def run(self) -> Path:
        """Train to the end, resuming what the output folder holds.

        Returns:
            the folder of the final model.

        Raises:
            LASError: the data or the folder is not usable, or the training broke down.
            InterruptedTrainingError: a signal asked to stop.
        """
        check_folder(self.output)
        make_folder(self.output)
        with contextlib.ExitStack() as stack:
            stack.enter_context(checkpoint.alone(self.output, self.processes))
            changed = self._resume()
            stack.enter_context(self._signals())
            journal = stack.enter_context(Journal(self.output, self.config, self.processes.rank))
            self.journal = journal
            last = self.settings.epochs
            at = f"epoch {self.epoch + 1} of {last}"
            if self.epoch >= last:
                at = f"all {last} epochs are done: nothing is left to train"
            journal.text(
                f"{self.count} utterances, {sum(p.numel() for p in self.model.parameters()):,} "
                f"parameters, {self.device} x {self.processes.world}, {at}"
            )
            if changed:
                journal.text(f"goes on with other settings: {settings_diff.shown(changed)}")
            journal.truncate(self.step, self.epoch if self.step else -1)
            if self.settings.init and not self.step:
                journal.text(f"starts from the model {self.settings.init}")
                self._validate_before()
            while self.epoch < self.settings.epochs:
                self._epoch()
            return self._finish()

    # One epoch

    def _epoch(self) -> None:
        self.model.train()
        spell = self.epoch >= self.settings.ctc_only
        if self.replica is None or self.epoch == self.settings.ctc_only:
            self.replica = None
            self.replica = self.processes.replica(self.model, whole=spell)
        batches = training_batches(
            self.train_cuts,
            self.count,
            self.model.text,
            self.config.data,
            sample_rate=self.config.frontend.sample_rate,
            seed=self.settings.seed,
            epoch=self.epoch,
            skip=self.batches,
            rank=self.processes.rank,
            world=self.processes.world,
        )
        pending: list[Losses] = []
        saved = waited = time.monotonic()
        iterator = iter(batches)
        try:
            while (batch := next(iterator, None)) is not None:
                if isinstance(batch, LASError):
                    raise batch
                waited = time.monotonic() - waited
                self.journal.waited(waited)
                last = len(pending) + 1 == self.settings.accumulate
                pending.append(self._backward(self.replica, batch, spell, synchronise=last))
                self.batches += 1
                if last:
                    self._update(pending)
                    pending = []
                    due = time.monotonic() - saved > 60 * self.settings.checkpoint_minutes
                    stopping, due = self.processes.any(self.stop is not None, due)
                    if stopping:
                        self._save()
                        raise InterruptedTrainingError(
                            f"{self.output}: stopped by a signal after step {self.step}; the same "
                            "command resumes"
                        )
                    if due:
                        self._save()
                        saved = time.monotonic()
                waited = time.monotonic()
        finally:
            # Held by a traceback, it would keep the reader processes, and so this one, from ending.
            del iterator
        if pending:
            self._update(pending)
        self.epoch, self.batches, self.seen = self.epoch + 1, 0, 0
        if self.dev_cuts is not None and (
            self.epoch % self.settings.evaluate_every == 0 or self.epoch == self.settings.epochs
        ):
            self._validate()
        self._save()

    def _backward(self, replica: nn.Module, batch: Batch, spell: bool, synchronise: bool) -> Losses:
        """Add the gradients of one batch."""
        seed_everything(self._seed())
        settings = self.settings
        batch = batch.to(self.device)
        sampling = (
            settings.scheduled_sampling
            if self.epoch + 1 >= settings.scheduled_sampling_start
            else 0.0
        )
        with self.processes.exchange(replica, synchronise):
            with precision(settings, self.device):
                losses: Losses = replica(
                    batch.waveforms,
                    batch.samples,
                    batch.tokens,
                    batch.token_lengths,
                    settings.label_smoothing,
                    sampling,
                    spell,
                )
            ctc = settings.ctc if spell else 1.0
            total = (1 - ctc) * losses.attention / losses.tokens
            total = total + ctc * losses.ctc / losses.characters.clamp_min(1)
            (total / settings.accumulate).backward()
        return Losses(*(value.detach() for value in losses))

    def _update(self, losses: list[Losses]) -> None:
        """One optimizer step; a gradient that is not finite is thrown away and counted."""
        # Processes hold batches of different sizes: with their own counts they would differ in
        # the rate, and their replicas would drift apart.
        self.seen += self.processes.total(sum(len(x.alignments) for x in losses))
        self._complete(len(losses))
        progress = (self.epoch + min(1.0, self.seen / self.count)) / self.settings.epochs
        lr = rate(self.settings, self.step, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        total = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        # The one time in a step that a GPU is waited for.
        summed = [sum(of) for of in zip(*((x.attention, x.ctc) for x in losses), strict=True)]
        norm, attention, ctc = torch.stack([total, *summed]).tolist()
        if math.isfinite(norm):
            self.optimizer.step()
            self.in_a_row = 0
        else:
            self.skipped += 1
            self.in_a_row += 1
            if self.in_a_row >= self.settings.max_skipped:
                raise LASError(
                    f"{self.output}: {self.in_a_row} steps in a row had a gradient that is not "
                    "finite; lower training.learning_rate or look at the data"
                )
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.journal.step(
            step=self.step,
            epoch=self.epoch + 1,
            share=min(1.0, self.seen / self.count),
            attention=attention / sum(int(x.tokens) for x in losses),
            ctc=ctc / max(1, sum(int(x.characters) for x in losses)),
            rate=lr,
            norm=norm,
            skipped=self.skipped,
        )

    def _complete(self, batches: int) -> None:
        """Make a mean of the gradients of a group that the end of the epoch cut short."""
        if batches == self.settings.accumulate:
            return
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad *= self.settings.accumulate / batches
        # No batch of the group was the one that exchanges gradients.
        self.processes.average_gradients(self.model.parameters())

    def _seed(self) -> int:
        parts = [self.settings.seed, self.epoch, self.batches, self.processes.rank]
        return int(np.random.SeedSequence(parts).generate_state(1)[0])

    # Evaluation, and the models that are kept

    def _validate(self) -> None:
        if self.processes.first:
            # Epochs of CTC alone are measured by CTC, and are not among the best.
            spell = self.epoch > self.settings.ctc_only
            result = self._measure(spell)
            self.journal.validation(self.epoch, self.step, result)
            if spell:
                self._rank_epoch(result)
        self.processes.wait()

    def _validate_before(self) -> None:
        """What the model that is started from is worth on the dev set: epoch 0."""
        if self.processes.first and self.dev_cuts is not None:
            result = self._measure()
            self.before = result.score.wer
            self.journal.validation(0, 0, result)
        self.processes.wait()

    def _rank_epoch(self, result: Validation) -> None:
        """Keep what is among the best, and warn of attention that learns nothing."""
        wer = result.score.wer
        flat_since = self.settings.ctc_only + 5
        if result.flat and self.epoch >= flat_since:
            self.journal.warning(
                f"the attention is still flat after {self.epoch} epochs (focus "
                f"{result.focus:.2f}): if this goes on nothing will be learnt; try a higher "
                "training.ctc, training.short_first, or attention.kind=location"
            )
        if not self.best or wer < self.best[0][0]:
            self.model.save_pretrained(self.output / "best", self._info(wer))
        self.best = sorted([*self.best, [wer, self.epoch]])
        if self.settings.average > 0:
            self._keep()

    def _measure(self, spell: bool = True) -> Validation:
        assert self.dev_cuts is not None
        batches = evaluation_batches(
            self.dev_cuts, self.model.text, sample_rate=self.config.frontend.sample_rate
        )
        result = validate(self.model, batches, self.device, spell)
        self.model.train()
        return result

    def _keep(self) -> None:
        """Keep this epoch's weights while it is among the best."""
        folder = self.output / "epochs"
        folder.mkdir(exist_ok=True)
        weights = {k: v.detach().cpu() for k, v in self.model.state_dict().items()}
        write_weights(weights, folder / f"epoch-{self.epoch:03d}.safetensors")
        for _, epoch in self.best[self.settings.average :]:
            (folder / f"epoch-{epoch:03d}.safetensors").unlink(missing_ok=True)

    def _finish(self) -> Path:
        """Write ``model``: the average of the best epochs if it is as good on the dev set."""
        final = self.output / "model"
        if self.processes.first:
            if not self.best:
                self.model.save_pretrained(final, self._info())
            else:
                wer = self.best[0][0]
                chosen = LAS.from_pretrained(self.output / "best")
                kept = [epoch for _, epoch in self.best[: self.settings.average]]
                if len(kept) > 1:
                    paths = [self.output / f"epochs/epoch-{e:03d}.safetensors" for e in kept]
                    self.model.load_weights(average(paths), self.output / "epochs")
                    averaged = self._measure().score.wer
                    self.journal.text(
                        f"dev WER {wer:.2f} % of the best epoch, {averaged:.2f} % of the average "
                        f"of epochs {', '.join(map(str, sorted(kept)))}"
                    )
                    if averaged <= wer:
                        chosen, wer = self.model, averaged
                chosen.save_pretrained(final, self._info(wer))
                self._compare(wer)
            if self.settings.init:
                for line in finetuning.carried(self.settings.init, final):
                    self.journal.text(line)
            self.journal.text(f"model: {final}")
        self.processes.wait()
        return final

    def _compare(self, wer: float) -> None:
        """Say what the training has made of the model that it started from."""
        if self.before is None:
            return
        line = f"dev WER {self.before:.2f} % before the training, {wer:.2f} % after it"
        if wer < self.before:
            self.journal.text(line)
        else:
            self.journal.warning(
                f"{line}: the model of before is as good; try a lower training.learning_rate, "
                "more data, or other epochs"
            )

    def _info(self, wer: float | None = None) -> dict[str, str]:
        info = {"epoch": str(self.epoch), "step": str(self.step), "utterances": str(self.count)}
        if self.settings.init:
            info["init"] = self.settings.init
        return info if wer is None else {**info, "dev_wer": f"{wer:.2f}"}

    # State

    def _save(self) -> None:
        if self.processes.first:
            state = {name: getattr(self, name) for name in _POSITION}
            checkpoint.save(
                self.output / STATE,
                {
                    "config": configuration.to_yaml(self.config),
                    "world": self.processes.world,
                    "position": state,
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                },
            )
        self.processes.wait()

    def _resume(self) -> list[settings_diff.Change]:
        """Take the state that the folder holds, if any; returns the settings that were others."""
        path = self.output / STATE
        if not path.is_file():
            self._write_config()
            return []
        state = checkpoint.load(path)
        world = ("processes", state.get("world"), self.processes.world)
        changed = settings_diff.check(self.config, state.get("config"), path, _FREE, [world])
        self.model.load_weights(state["model"], path)
        for group in state["optimizer"]["param_groups"]:  # the device may be another
            group["fused"] = self.optimizer.param_groups[0]["fused"]
        self.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["position"].items():
            setattr(self, name, value)
        if changed:
            self._write_config()
        return changed

    def _write_config(self) -> None:
        if self.processes.first:
            save_settings(self.config, self.output / "config.yaml")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Note a request to stop, to be honoured after the step."""

        def note(number: int, _: Any) -> None:
            self.stop = number

        before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # Data

    def _training_cuts(self) -> tuple[CutSet, int]:
        """The training set without what cannot be trained on, and its size."""
        data, rate = self.config.data, self.config.frontend.sample_rate
        cuts = read_manifest(data.train)
        check_alphabet(cuts, self.model.text, data.train)
        usable = trainable(
            cuts,
            self.model.text,
            data,
            lambda seconds: int(self.model.ctc_frames(torch.tensor(int(seconds * rate)))),
        )
        if self.processes.first and (usable.long or usable.dense):
            print(
                f"left out of training: {usable.long} utterances over {data.max_seconds:g} s, "
                f"{usable.dense} with more characters than frames"
            )
        return usable.cuts, usable.size


_POSITION = ("epoch", "batches", "seen", "step", "skipped", "in_a_row", "best", "before")


def average(paths: list[Path]) -> dict[str, Tensor]:
    """Mean of the weights in these files."""
    mean: dict[str, Tensor] = {}
    for path in paths:
        for name, weight in read_weights(path).items():
            mean[name] = mean.get(name, 0.0) + weight.double() / len(paths)
    return {name: weight.float() for name, weight in mean.items()}
