"""Training of the character language model on a text file.

A batch holds whole sentences, each from the zero state, and not segments of a continuous text
(truncated back-propagation): a recogniser scores utterances independently, so context from before a
sentence would be learnt but never used. Batches are random and not grouped by length (see
:meth:`las.lm.corpus.Sentences.shuffled`). To save padding, a batch is computed in parts of similar
length, whose gradients are added.

The random numbers of a step depend only on (seed, step), so that a resumed training is
bit-identical to an uninterrupted one if its end is given in steps. With ``max_minutes`` the
learning rate depends on the time.
"""

import json
import math
import time
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from las import config_files as configuration
from las.errors import LASError
from las.lm import corpus
from las.lm.config import LMConfig
from las.lm.lstm import LanguageModel, Perplexity, measure
from las.memory import Pieces, added_whole
from las.optimization import Position, learning_rate, optimizer_step
from las.runtime import (
    StopRequest,
    choose_device,
    choose_threads,
    seed_everything,
    step_seed,
    stop_signals,
)
from las.storage import checkpoint, settings_diff
from las.storage.atomic import attribute_errors, check_folder, make_folder
from las.storage.logs import timestamped, truncate_rows
from las.storage.settings import save_settings
from las.storage.weights import fit_weights

STATE = "training.pt"
# Settings that may change when a training is resumed; see las.training.trainer.
_RESUMABLE_CHANGES = frozenset(
    [
        "training.steps",
        "training.max_minutes",
        "training.threads",
        "training.device",
        "training.evaluate_every",
        "training.log_every",
        "training.checkpoint_minutes",
    ]
)
_LINE_SECONDS = 15.0  # between lines of progress
_PARTS = 4  # of a batch, each padded separately


def _halves(part: np.ndarray) -> tuple[np.ndarray, ...]:
    middle = len(part) // 2
    return (part[:middle], part[middle:]) if middle else ()


class InterruptedLMTrainingError(LASError):
    """The training was stopped by a signal; its state was saved."""


@dataclass
class LMPosition(Position):
    """Where a training is.

    Attributes:
        best: Nats per character on the dev set and step of the best model; empty before the first.
        minutes: Minutes of training, over all resumes.
    """

    best: list[float] = field(default_factory=list)
    minutes: float = 0.0


class LMTrainer:
    """Trains one language model.

    Args:
        config: of the run.
        text: file with one sentence a line; see :func:`las.lm.corpus.read`.
        output: folder of the run: ``model`` (the best on the dev set), ``log.jsonl``,
            ``train.log`` and the state to resume from.

    Raises:
        LASError: the text cannot be read, or has too few sentences.
    """

    def __init__(self, config: LMConfig, text: Path, output: Path) -> None:
        self.config = config
        self.settings = config.training
        self.output = output
        self.device = choose_device(self.settings.device)
        self.bfloat16 = self.settings.precision == "bfloat16"
        choose_threads(self.settings.threads, "training.threads")
        seed_everything(self.settings.seed)
        self.model = LanguageModel(config.model_settings()).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), betas=(0.9, 0.99))
        self.text = corpus.read(
            text, self.model.text, self.settings.max_characters, self.settings.dev_every
        )
        for name, part in (("train", self.text.train), ("dev", self.text.dev)):
            if not len(part) and (name == "train" or self.settings.dev_every):
                raise LASError(
                    f"{text}: no sentence for the {name} set of "
                    f"{len(self.text.train) + len(self.text.dev)}; change training.dev_every"
                )
        self.dev = self.text.dev.sample(self.settings.dev_sentences, self.settings.seed)
        self.position = LMPosition()
        self.stop = StopRequest()
        self.shortages = 0  # steps with a batch that did not fit into memory

    def run(self) -> Path:
        """Train to the end; resumes if the output folder holds a checkpoint.

        Returns:
            the folder of the model.

        Raises:
            LASError: the folder is of another training, or too many steps were skipped.
            InterruptedLMTrainingError: a signal asked to stop.
        """
        check_folder(self.output)
        make_folder(self.output)
        with checkpoint.exclusive(self.output):
            return self._run()

    def _run(self) -> Path:
        self._resume()
        train = self.text.train
        self._line(
            f"{len(train):,} sentences of {train.characters:,} characters to train on, "
            f"{len(self.text.dev):,} held out ({len(self.dev):,} measured); lines skipped: "
            f"{self.text.skipped}"
        )
        self._line(
            f"{sum(p.numel() for p in self.model.parameters()):,} parameters, {self.device}, "
            f"step {self.position.step} of {self.settings.steps}"
        )
        with stop_signals() as self.stop:
            self._train()
        folder = self.output / "model"
        if not len(self.dev):
            self.model.save_pretrained(folder, self._info())
        self._line(f"model: {folder}")
        return folder

    def _train(self) -> None:
        settings = self.settings
        self.model.train()
        position = self.position
        saved = began = line = time.monotonic()
        before = position.minutes
        characters, since = 0, began
        while not self._finished():
            train = self.text.train
            epoch = train.shuffled(settings.batch_characters, settings.seed, position.epoch)
            for index in islice(epoch, position.batches, None):
                loss, count = self._update(index)
                position.batches += 1
                characters += count
                now = time.monotonic()
                position.minutes = before + (now - began) / 60
                if now - line > _LINE_SECONDS:
                    self._line(
                        f"step {position.step}  epoch {position.epoch + 1}  "
                        f"train perplexity {math.exp(min(loss, 50.0)):.3f}  "
                        f"{characters / (now - since):,.0f} characters/s  "
                        f"{position.minutes:.1f} min"
                    )
                    line = since = now
                    characters = 0
                if self._finished() or position.step % settings.evaluate_every == 0:
                    self._validate()
                if self._finished():
                    break
                if self.stop.received:
                    self._save()
                    raise InterruptedLMTrainingError(
                        f"{self.output}: stopped by a signal after step {position.step}; "
                        "the same command resumes"
                    )
                if time.monotonic() - saved > 60 * settings.checkpoint_minutes:
                    self._save()
                    saved = time.monotonic()
            else:
                position.epoch, position.batches = position.epoch + 1, 0
        self._save()

    def _finished(self) -> bool:
        return self._progress() >= 1.0

    def _progress(self) -> float:
        """Share of the steps or minutes that is done, 0 to 1."""
        progress = self.position.step / self.settings.steps
        if self.settings.max_minutes is not None:
            progress = max(progress, self.position.minutes / self.settings.max_minutes)
        return progress

    def _update(self, index: np.ndarray) -> tuple[float, int]:
        """One optimizer step.

        Returns:
            nats per character, and the number of characters, ends of sentence included.
        """
        settings, position = self.settings, self.position
        seed_everything(step_seed(settings.seed, position.step))
        train = self.text.train
        count = int((train.offsets[index + 1] - train.offsets[index]).sum()) + len(index)
        self.optimizer.zero_grad(set_to_none=True)
        parameters = list(self.model.parameters())

        def backward(part: np.ndarray) -> float:
            tokens, lengths = train.select(part)
            with added_whole(parameters):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                    losses = self.model.losses(tokens.to(self.device), lengths.to(self.device))
                loss = losses.sum() / count
                loss.backward()
            return float(loss.detach())

        value, halved = 0.0, 0
        for part in train.parts(index, _PARTS):
            pieces = Pieces(part, backward, _halves)
            for left_out in pieces.left_out:
                raise LASError(
                    f"{self.output}: out of memory for a sentence of "
                    f"{train.select(left_out)[1].max()} characters; lower training.max_characters"
                )
            halved += pieces.halved
            value += sum(pieces.done)
        self._tell_of_halves(halved)
        rate = learning_rate(
            position.step,
            self._progress(),
            peak=settings.learning_rate,
            warmup=settings.warmup,
            final_rate=settings.final_rate,
        )
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip))
        optimizer_step(self.optimizer, rate, norm, position, settings.max_skipped, self.output)
        if position.step % settings.log_every == 0 or position.step == 1:
            self._log(
                epoch=position.epoch + 1, loss=value, rate=rate, norm=norm, skipped=position.skipped
            )
        return value, count

    def _validate(self) -> None:
        """Measure the dev set, and save the model if it is the best so far."""
        if not len(self.dev):
            return
        result = measure(self.model, self.dev, max(16384, self.settings.batch_characters))
        mark, position = "", self.position
        nats = math.log(2) * result.bits
        if not position.best or nats < position.best[0]:
            position.best = [nats, float(position.step)]
            self.model.save_pretrained(self.output / "model", self._info(result))
            mark = " (best)"
        self._line(f"step {position.step}  epoch {position.epoch + 1}  dev {result}{mark}")
        self._log(
            epoch=position.epoch + 1,
            dev={
                "perplexity_per_character": result.per_character,
                "perplexity_per_word": result.per_word,
                "bits_per_character": result.bits,
            },
        )

    def _info(self, dev: Perplexity | None = None) -> dict[str, str]:
        info = {"step": str(self.position.step), "sentences": str(len(self.text.train))}
        if dev is not None:
            info["dev_perplexity_per_character"] = f"{dev.per_character:.4f}"
            info["dev_perplexity_per_word"] = f"{dev.per_word:.2f}"
        return info

    # State

    def _save(self) -> None:
        checkpoint.save(
            self.output / STATE,
            {
                "lm": configuration.to_yaml(self.config),
                "text": self._fingerprint(),
                "position": asdict(self.position),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
        )

    def _resume(self) -> None:
        path = self.output / STATE
        if not checkpoint.exists(path):
            save_settings(self.config, self.output / "config.yaml")
            (self.output / "log.jsonl").unlink(missing_ok=True)
            return
        state, damage = checkpoint.load_last(path)
        changed = settings_diff.check(self.config, state.get("lm"), path, _RESUMABLE_CHANGES)
        if state["text"] != self._fingerprint():
            raise LASError(f"{path}: belongs to a training on another text; choose a new folder")
        fit_weights(self.model, state["model"], path, "config.yaml")
        self.optimizer.load_state_dict(state["optimizer"])
        self.position = LMPosition(**state["position"])
        if damage:
            self._line(damage)
        truncate_rows(self.output / "log.jsonl", lambda row: row["step"] <= self.position.step)
        if changed:
            save_settings(self.config, self.output / "config.yaml")
            self._line(f"resumes with changed settings: {settings_diff.shown(changed)}")

    def _fingerprint(self) -> list[int]:
        """Identifies the text."""
        train = self.text.train
        return [len(train), train.characters, corpus.checksum(train), len(self.text.dev)]

    # Logs

    def _tell_of_halves(self, halved: int) -> None:
        self.shortages += halved > 0
        if halved and not self.shortages & (self.shortages - 1):  # 1, 2, 4 ... steps
            self._line(
                f"WARNING: step {self.position.step + 1}: out of memory: {halved} parts of the "
                f"batch were computed in halves; steps like this so far: {self.shortages}; a "
                "smaller training.batch_characters avoids it"
            )

    def _line(self, text: str) -> None:
        stamped = timestamped(text)
        print(stamped, flush=True)
        self._append("train.log", stamped)

    def _log(self, **values: Any) -> None:
        self._append("log.jsonl", json.dumps({"step": self.position.step, **values}))

    def _append(self, name: str, line: str) -> None:
        path = self.output / name
        with attribute_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
