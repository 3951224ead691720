"""The training loop: gradient accumulation, checkpoints, exact resume, several processes.

The random numbers of a step depend only on (seed, epoch, batch, process), so that a resumed
training is bit-identical to an uninterrupted one.
"""

import contextlib
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from las import config as configuration
from las.config import RunConfig
from las.data.dataset import Batch, training_batches
from las.errors import LASError
from las.model.las import LAS, Losses
from las.optimization import learning_rate, optimizer_step
from las.runtime import (
    StopRequest,
    choose_device,
    choose_threads,
    precision,
    seed_everything,
    step_seed,
    stop_signals,
)
from las.storage import checkpoint, settings_diff
from las.storage.atomic import check_folder, make_folder
from las.storage.checkpoint import STATE
from las.storage.settings import save_settings
from las.storage.weights import WEIGHTS, read_weights
from las.training import finetuning
from las.training.datasets import dev_set, training_set
from las.training.distributed import DistributedGroup
from las.training.logger import TrainingLogger
from las.training.model_selection import ModelSelection
from las.training.position import TrainingPosition

# Settings that may change when a training is resumed: paths, hardware, how often it validates and
# saves, and its length. The learning rate then follows the new number of epochs.
_RESUMABLE_CHANGES = frozenset(
    [
        "data.train",
        "data.dev",
        "data.cache",
        "data.cache_gigabytes",
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
    """The training was stopped by a signal; its state was saved."""


class Trainer:
    """Trains one model.

    Args:
        config: of the run; with ``training.init``, that model's settings take the place of the
            defaults.

    Raises:
        LASError: a setting or the data is not usable.
    """

    def __init__(self, config: RunConfig) -> None:
        self.settings = config.training
        if not self.settings.output:
            raise LASError("training.output is empty: name a folder for the run")
        state = Path(self.settings.output) / STATE
        explicit, config = config, finetuning.resolved(config, state)
        self.config = config
        self.device = choose_device(self.settings.device)
        self.group = DistributedGroup(self.device)
        self.output = Path(self.settings.output)
        choose_threads(self.settings.threads, "training.threads")
        seed_everything(self.settings.seed)
        self.model = LAS(config.model_settings()).to(self.device)
        if self.settings.init and not state.is_file():
            weights = finetuning.model_folder(self.settings.init) / WEIGHTS
            self.model.load_weights(read_weights(weights), weights)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            betas=(0.9, 0.98),
            weight_decay=self.settings.weight_decay,
            fused=True if self.device.type == "cpu" else None,  # 8 times as fast there
        )
        self.replica: nn.Module | None = None
        usable = training_set(config.data, self.model)
        self.train_cuts, self.count = usable.cuts, usable.size
        if self.group.first and (usable.too_long or usable.too_many_characters):
            print(
                f"left out of training: {usable.too_long} utterances over "
                f"{config.data.max_seconds:g} s, {usable.too_many_characters} with more characters "
                "than frames"
            )
        if explicit.longest_seconds is None:  # transcription splits longer audio
            longest = round(usable.longest, 1)
            longest = max(longest, config.longest_seconds or 0.0)  # of the initial model
            self.model.config = self.model.config.model_copy(update={"longest_seconds": longest})
        self.dev_cuts = dev_set(config.data, self.model)
        self.position = TrainingPosition()
        self.stop = StopRequest()

    def run(self) -> Path:
        """Train to the end; resumes if the output folder holds a checkpoint.

        Returns:
            the folder of the final model.

        Raises:
            LASError: the data or the folder is not usable, or too many steps were skipped.
            InterruptedTrainingError: a signal asked to stop.
        """
        check_folder(self.output)
        make_folder(self.output)
        with contextlib.ExitStack() as stack:
            stack.enter_context(checkpoint.exclusive(self.output, self.group))
            changed = self._resume()
            self.stop = stack.enter_context(stop_signals())
            logger = TrainingLogger(self.output, self.config, self.group.rank)
            self.logger = stack.enter_context(logger)
            what = (self.model, self.config, self.device, self.dev_cuts, self.count)
            self.selection = ModelSelection(*what, self.position, self.logger)
            step, epoch, last = self.position.step, self.position.epoch, self.settings.epochs
            at = f"epoch {epoch + 1} of {last}"
            if epoch >= last:
                at = f"all {last} epochs are done: nothing is left to train"
            self.logger.info(
                f"{self.count} utterances, {sum(p.numel() for p in self.model.parameters()):,} "
                f"parameters, {self.device} x {self.group.world}, {at}"
            )
            if changed:
                self.logger.info(f"resumes with changed settings: {settings_diff.shown(changed)}")
            self.logger.truncate(step, epoch if step else -1)
            if self.settings.init and not step:
                self.logger.info(f"starts from the model {self.settings.init}")
                if self.group.first:
                    self.selection.validate_initial()
                self.group.barrier()
            while self.position.epoch < self.settings.epochs:
                self._epoch()
            return self._finish()

    # One epoch

    def _epoch(self) -> None:
        position = self.position
        self.model.train()
        use_speller = position.epoch >= self.settings.ctc_only
        if self.replica is None or position.epoch == self.settings.ctc_only:
            self.replica = None
            self.replica = self.group.replica(self.model, whole=use_speller)
        batches = training_batches(
            self.train_cuts,
            self.count,
            self.model.text,
            self.config.data,
            sample_rate=self.config.frontend.sample_rate,
            seed=self.settings.seed,
            epoch=position.epoch,
            skip=position.batches,
            rank=self.group.rank,
            world=self.group.world,
        )
        pending: list[Losses] = []
        left_out = 0
        saved = waited = time.monotonic()
        iterator = iter(batches)
        try:
            while (batch := next(iterator, None)) is not None:
                if isinstance(batch, LASError):
                    raise batch
                waited = time.monotonic() - waited
                self.logger.input_waited(waited)
                last = len(pending) + 1 == self.settings.accumulate
                pending.append(self._backward(self.replica, batch, use_speller, synchronise=last))
                position.batches += 1
                left_out += batch.left_out
                if last:
                    self._update(pending)
                    pending = []
                    due = time.monotonic() - saved > 60 * self.settings.checkpoint_minutes
                    stopping, due = self.group.any(self.stop.received, due)
                    if stopping:
                        self._save()
                        raise InterruptedTrainingError(
                            f"{self.output}: stopped by a signal after step {position.step}; "
                            "the same command resumes"
                        )
                    if due:
                        self._save()
                        saved = time.monotonic()
                waited = time.monotonic()
        finally:
            # A traceback would keep it alive, and with it the reader processes.
            del iterator
        if pending:
            self._update(pending)
        if left_out := self.group.total(left_out):
            what = f"epoch {position.epoch + 1}: left out {left_out} utterances"
            self.logger.info(f"{what} with more characters than frames")
        position.epoch += 1
        position.batches = position.seen = 0
        due = position.epoch % self.settings.evaluate_every == 0
        if self.dev_cuts is not None and (due or position.epoch == self.settings.epochs):
            self._validate()
        self._save()

    def _backward(
        self, replica: nn.Module, batch: Batch, use_speller: bool, synchronise: bool
    ) -> Losses:
        """Accumulate the gradients of one batch."""
        seed_everything(self._seed())
        settings = self.settings
        batch = batch.to(self.device)
        sampling = (
            settings.scheduled_sampling
            if self.position.epoch + 1 >= settings.scheduled_sampling_start
            else 0.0
        )
        with self.group.synchronised(replica, synchronise):
            with precision(settings, self.device):
                losses: Losses = replica(
                    batch.waveforms,
                    batch.samples,
                    batch.tokens,
                    batch.token_lengths,
                    settings.label_smoothing,
                    sampling,
                    use_speller,
                )
            ctc = settings.ctc if use_speller else 1.0
            total = (1 - ctc) * losses.attention / losses.tokens
            total = total + ctc * losses.ctc / losses.characters.clamp_min(1)
            (total / settings.accumulate).backward()
        return Losses(*(value.detach() for value in losses))

    def _update(self, losses: list[Losses]) -> None:
        """One optimizer step from the accumulated gradients of these batches."""
        position = self.position
        # The batches of the processes differ in size. The learning rate must be the same in all
        # processes, or their replicas would diverge: it follows the total count.
        position.seen += self.group.total(sum(len(x.alignments) for x in losses))
        self._rescale(len(losses))
        share = min(1.0, position.seen / self.count)
        progress = (position.epoch + share) / self.settings.epochs
        rate = learning_rate(
            position.step,
            progress,
            peak=self.settings.learning_rate,
            warmup=self.settings.warmup,
            hold=self.settings.hold,
            final_rate=self.settings.final_rate,
        )
        total = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        # The only synchronisation with a GPU in a step.
        summed = [sum(of) for of in zip(*((x.attention, x.ctc) for x in losses), strict=True)]
        norm, attention, ctc = torch.stack([total, *summed]).tolist()
        optimizer_step(self.optimizer, rate, norm, position, self.settings.max_skipped, self.output)
        self.optimizer.zero_grad(set_to_none=True)
        self.logger.step(
            step=position.step,
            epoch=position.epoch + 1,
            share=share,
            attention=attention / sum(int(x.tokens) for x in losses),
            ctc=ctc / max(1, sum(int(x.characters) for x in losses)),
            rate=rate,
            norm=norm,
            skipped=position.skipped,
        )

    def _rescale(self, batches: int) -> None:
        """Correct the mean gradient where the epoch ended before ``accumulate`` batches."""
        if batches == self.settings.accumulate:
            return
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad *= self.settings.accumulate / batches
        # The batch that synchronises the processes was not reached.
        self.group.average_gradients(self.model.parameters())

    def _seed(self) -> int:
        position = self.position
        return step_seed(self.settings.seed, position.epoch, position.batches, self.group.rank)

    def _validate(self) -> None:
        if self.group.first:
            self.selection.validate_epoch()
        self.group.barrier()

    def _finish(self) -> Path:
        """Write the final model, and beside it what a fine-tuning keeps of the initial one's."""
        final = self.output / "model"
        if self.group.first:
            self.selection.finish()
            if self.settings.init:
                for line in finetuning.copy_search_settings(self.settings.init, final):
                    self.logger.info(line)
            self.logger.info(f"model: {final}")
        self.group.barrier()
        return final

    # Checkpoints

    def _save(self) -> None:
        if self.group.first:
            checkpoint.save(
                self.output / STATE,
                {
                    "config": configuration.to_yaml(self.config),
                    "world": self.group.world,
                    "position": asdict(self.position),
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                },
            )
        self.group.barrier()

    def _resume(self) -> list[settings_diff.Change]:
        """Load the checkpoint of the output folder, if any; returns the settings that changed."""
        path = self.output / STATE
        if not path.is_file():
            self._write_config()
            return []
        state = checkpoint.load(path)
        world = ("processes", state.get("world"), self.group.world)
        changed = settings_diff.check(
            self.config, state.get("config"), path, _RESUMABLE_CHANGES, [world]
        )
        self.model.load_weights(state["model"], path)
        for group in state["optimizer"]["param_groups"]:  # the device may be another
            group["fused"] = self.optimizer.param_groups[0]["fused"]
        self.optimizer.load_state_dict(state["optimizer"])
        position = state["position"]
        ranking = [(wer, epoch) for wer, epoch in position["best"]]
        self.position = TrainingPosition(**{**position, "best": ranking})
        if changed:
            self._write_config()
        return changed

    def _write_config(self) -> None:
        if self.group.first:
            save_settings(self.config, self.output / "config.yaml")
