"""The training loop: gradient accumulation, checkpoints, exact resume, several processes.

An optimizer step takes a group of batches, which the processes compute in turn. Order and random
numbers of the batches depend only on (seed, epoch, batch): a resumed training is bit-identical to
an uninterrupted one, and with another number of processes equal but for rounding.
"""

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from las import config_files as configuration
from las.config import RunConfig
from las.data.dataset import Batch, training_batches
from las.errors import LASError
from las.memory import Pieces, added_whole
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
from las.storage import checkpoint
from las.storage.atomic import check_folder, make_folder
from las.storage.checkpoint import STATE
from las.storage.settings import save_settings
from las.storage.weights import WEIGHTS, read_weights
from las.training import finetuning, resuming
from las.training.datasets import dev_set, halves, read_batches, training_set
from las.training.distributed import DistributedGroup
from las.training.logger import TrainingLogger
from las.training.model_selection import ModelSelection
from las.training.moving_average import MovingAverage
from las.training.position import TrainingPosition


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
        self.device = choose_device(self.settings.device)
        self.group = DistributedGroup(self.device, self.settings.peer_minutes)
        self.output = Path(self.settings.output)
        with self.group.together():
            self._prepare(config)
        self.parameters = list(self.model.parameters())
        self.position = TrainingPosition()
        self.stop = StopRequest()
        self.step_batches = self.settings.accumulate * self.group.world
        self.unaligned = 0  # utterances of this epoch that CTC cannot align, known when read

    def _prepare(self, explicit: RunConfig) -> None:
        """Model, optimizer and data."""
        state = self.output / STATE
        self.config = config = finetuning.resolved(explicit, state)
        choose_threads(self.settings.threads, "training.threads")
        seed_everything(self.settings.seed)
        self.model = LAS(config.model_settings()).to(self.device)
        if self.settings.init and not checkpoint.exists(state):
            weights = finetuning.model_folder(self.settings.init) / WEIGHTS
            self.model.load_weights(read_weights(weights), weights)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            betas=(0.9, 0.98),
            weight_decay=self.settings.weight_decay,
            fused=True if self.device.type == "cpu" else None,  # 8 times as fast there
        )
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

    def run(self) -> Path:
        """Train to the end; resumes if the output folder holds a checkpoint.

        Returns:
            the folder of the final model.

        Raises:
            LASError: the data or the folder is not usable, or too many steps were skipped.
            InterruptedTrainingError: a signal asked to stop.
        """
        with self.group.together():
            check_folder(self.output)
            make_folder(self.output)
        with contextlib.ExitStack() as stack:
            stack.enter_context(checkpoint.exclusive(self.output, self.group))
            lines = self._resume()
            self.stop = stack.enter_context(stop_signals())
            logger = TrainingLogger(self.output, self.config, self.group.rank)
            self.logger = stack.enter_context(logger)
            what = (self.average.model, self.config, self.group, self.dev_cuts, self.count)
            self.selection = ModelSelection(*what, self.position, self.logger)
            step, epoch, last = self.position.step, self.position.epoch, self.settings.epochs
            at = f"epoch {epoch + 1} of {last}"
            if epoch >= last:
                at = f"all {last} epochs are done: nothing is left to train"
            self.logger.info(
                f"{self.count} utterances, {sum(p.numel() for p in self.model.parameters()):,} "
                f"parameters, {self.device} x {self.group.world}, {at}"
            )
            for line in lines:
                self.logger.info(line)
            self.logger.truncate(step, epoch if step else -1)
            if self.settings.init and not step:
                self.logger.info(f"starts from the model {self.settings.init}")
                self.selection.validate_initial()
            while self.position.epoch < self.settings.epochs:
                self._epoch()
            return self._finish()

    # One epoch

    def _epoch(self) -> None:
        position = self.position
        self.model.train()
        use_speller = position.epoch >= self.settings.ctc_only
        rank, world = self.group.rank, self.group.world
        batches = training_batches(
            self.train_cuts,
            self.count,
            self.model.text,
            self.config.data,
            sample_rate=self.config.frontend.sample_rate,
            seed=self.settings.seed,
            epoch=position.epoch,
            skip=position.batches,
            rank=rank,
            world=world,
            group=self.step_batches,
        )
        saved = time.monotonic()
        self.unaligned = 0
        iterator = iter(batches)
        try:
            # As many of a step's batches as there are: the epoch may end before, or in another
            # process.
            while self._step(
                islice(iterator, len(range(rank, self.step_batches, world))), use_speller
            ):
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
        finally:
            # A traceback would keep it alive, and with it the reader processes.
            del iterator
        if self.unaligned:
            what = f"epoch {position.epoch + 1}: left out {self.unaligned} utterances"
            self.logger.info(f"{what} with more characters than frames")
        position.epoch += 1
        position.batches = position.seen = 0
        due = position.epoch % self.settings.evaluate_every == 0
        if self.dev_cuts is not None and (due or position.epoch == self.settings.epochs):
            self._validate()
        self._save()

    def _step(self, batches: Iterator[Batch | LASError], use_speller: bool) -> bool:
        """One optimizer step on the batches of this process and those of the others.

        Returns:
            whether the epoch may have more batches.
        """
        done: list[Pieces[Batch, Losses]] = []
        message = None
        unaligned = 0
        waited = time.monotonic()
        try:
            for batch in read_batches(batches):
                self.logger.input_waited(time.monotonic() - waited)
                index = self.position.batches + self.group.rank + len(done) * self.group.world
                seed_everything(self._seed(index))
                unaligned += batch.left_out
                done.append(self._backward(batch.to(self.device), use_speller))
                waited = time.monotonic()
        except LASError as error:
            message = str(error)
        losses = [one for pieces in done for one in pieces.done]
        halved = sum(pieces.halved for pieces in done)
        left_out = sum(len(pieces.left_out) for pieces in done)
        utterances = sum(len(one.alignments) for one in losses) + left_out
        used = [parameter.grad is not None for parameter in self.parameters]
        own = [message is not None, len(done), utterances, halved, left_out, unaligned, *used]
        totals = [int(value) for value in self.group.total(own)]
        failed, count, utterances, halved, left_out, unaligned, *gradients = totals
        self.unaligned += unaligned
        if failed:
            self.group.agree(message)
        if count:
            self.position.batches += count
            self.position.seen += utterances
            self.group.add_gradients(self.parameters, gradients)
            if count < self.step_batches:  # the epoch ended before; the mean is over fewer
                for parameter in self.parameters:
                    if parameter.grad is not None:
                        parameter.grad *= self.step_batches / count
            self._update(losses)
            self.logger.shortage(self.position.step, halved, left_out)
        return count == self.step_batches

    def _backward(self, batch: Batch, use_speller: bool) -> Pieces[Batch, Losses]:
        """Add the gradients of one batch, in parts if it does not fit into memory."""
        settings = self.settings
        sampling = (
            settings.scheduled_sampling
            if self.position.epoch + 1 >= settings.scheduled_sampling_start
            else 0.0
        )
        characters = batch.token_lengths.sum()
        tokens = characters + len(batch.ids)

        def backward(part: Batch) -> Losses:
            with added_whole(self.parameters):
                with precision(settings, self.device):
                    losses: Losses = self.model(
                        part.waveforms,
                        part.samples,
                        part.tokens,
                        part.token_lengths,
                        settings.label_smoothing,
                        sampling,
                        use_speller,
                    )
                ctc = settings.ctc if use_speller else 1.0
                total = (1 - ctc) * losses.attention / tokens
                total = total + ctc * losses.ctc / characters.clamp_min(1)
                (total / self.step_batches).backward()
            return Losses(*(value.detach() for value in losses))

        return Pieces(batch, backward, halves)

    def _update(self, losses: list[Losses]) -> None:
        """One optimizer step from the gradients of these batches and of the other processes'."""
        position = self.position
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
        total = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        # The only synchronisation with a GPU in a step.
        summed = [sum(of) for of in zip(*((x.attention, x.ctc) for x in losses), strict=True)]
        norm, *sums = torch.stack([total, *summed]).tolist()
        if all(parameter.grad is None for parameter in self.parameters):
            norm = math.nan  # no utterance fitted into memory
        counts = [sum(int(x.tokens) for x in losses), sum(int(x.characters) for x in losses)]
        attention, ctc, tokens, characters = self.group.total([*(sums or [0.0, 0.0]), *counts])
        limit = self.settings.max_skipped
        if optimizer_step(self.optimizer, rate, norm, position, limit, self.output):
            self.average.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.logger.step(
            step=position.step,
            epoch=position.epoch + 1,
            share=share,
            attention=attention / max(1, tokens),
            ctc=ctc / max(1, characters),
            rate=rate,
            norm=norm,
            skipped=position.skipped,
        )
        if position.in_a_row and not position.in_a_row & (position.in_a_row - 1):  # 1, 2, 4 ...
            self.logger.warning(
                f"step {position.step}: skipped, as its gradient is not finite "
                f"({position.in_a_row} in a row)"
            )

    def _seed(self, batch: int) -> int:
        """Of the random numbers of a batch; the 0 was the process, in earlier versions."""
        return step_seed(self.settings.seed, self.position.epoch, batch, 0)

    def _validate(self) -> None:
        self.selection.validate_epoch()

    def _finish(self) -> Path:
        """Write the final model, and beside it what a fine-tuning keeps of the initial one's."""
        final = self.selection.finish()
        if self.group.first:
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
                    "step_batches": self.step_batches,
                    "position": asdict(self.position),
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "average": self.average.state(),
                },
            )
        self.group.barrier()

    def _resume(self) -> list[str]:
        """Load the checkpoint of the output folder, if any; returns what there is to say."""
        path = self.output / STATE
        resumed = resuming.read(path, self.config, self.group, self.step_batches)
        if resumed is None:
            self._write_config()
            self.group.copy_first(self.parameters)
            self.average = MovingAverage(self.model, self.settings.moving_average)
            return []
        self.position, self.step_batches = resumed.position, resumed.step_batches
        self.model.load_weights(resumed.model, path)
        self.average = MovingAverage(self.model, self.settings.moving_average)
        self.average.load(resumed.average)
        for group in resumed.optimizer["param_groups"]:  # the device may be another
            group["fused"] = self.optimizer.param_groups[0]["fused"]
        self.optimizer.load_state_dict(resumed.optimizer)
        if resumed.changed:
            self._write_config()
        return resumed.lines

    def _write_config(self) -> None:
        if self.group.first:
            save_settings(self.config, self.output / "config.yaml")
