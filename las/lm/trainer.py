"""Training of the character language model on a text file.

A batch holds whole sentences, each from the zero state, rather than pieces of one running text
(truncated back-propagation): a recogniser asks for utterances one by one, in no order, so context
from before a sentence would be trained but never used; and sentences are short enough to go
through back-propagation whole. They are drawn at random, not by length (see
:meth:`las.lm.corpus.Sentences.shuffled`); for less padding a batch goes through the model in parts
of similar length, whose gradients add up to the batch's.

Everything random in a step follows from (seed, step), so that a resumed training computes the same
bits as one that was never stopped, as long as the end is a number of steps: with ``max_minutes``
the learning rate follows the clock.
"""

import contextlib
import json
import math
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from las import config as configuration
from las.errors import LASError
from las.lm import corpus
from las.lm.config import LMConfig, LMTrainingConfig
from las.lm.lstm import LanguageModel, Perplexity, measure
from las.runtime import choose_device, choose_threads, seed_everything
from las.storage import checkpoint, settings_diff
from las.storage.atomic import check_folder, make_folder, naming, replacing
from las.storage.settings import save_settings
from las.storage.weights import fit_weights

STATE = "training.pt"
# What a training that goes on may have otherwise than before; see las.training.trainer.
_FREE = frozenset(
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
_PARTS = 4  # of a batch
_POSITION = ("step", "epoch", "batches", "skipped", "in_a_row", "best", "minutes")


class InterruptedLMTrainingError(LASError):
    """The user or the system asked the training to stop; its state was saved."""


def rate(config: LMTrainingConfig, step: int, progress: float) -> float:
    """Learning rate: linear warm-up over steps, and cosine decay over the whole training.

    Args:
        config: peak, warm-up and final rate.
        step: optimizer steps taken.
        progress: share of the training that is done, 0 to 1.
    """
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    done = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.learning_rate * warm * (config.final_rate + (1 - config.final_rate) * done)


class LMTrainer:
    """Trains one language model.

    Args:
        config: the run.
        text: a text of one sentence a line; see :func:`las.lm.corpus.read`.
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
        self.halves = self.settings.precision == "bfloat16"
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
        # Where the training is: all that resuming needs beside weights and optimizer.
        self.step = self.epoch = self.batches = self.skipped = self.in_a_row = 0
        self.best: list[float] = []  # [dev nats per character, step]
        self.minutes = 0.0
        self.stop = False

    def run(self) -> Path:
        """Train to the end, resuming what the output folder holds.

        Returns:
            the folder of the model.

        Raises:
            LASError: the folder is of another training, or the training broke down.
            InterruptedLMTrainingError: a signal asked to stop.
        """
        check_folder(self.output)
        make_folder(self.output)
        with checkpoint.alone(self.output):
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
            f"step {self.step} of {self.settings.steps}"
        )
        with self._signals():
            self._train()
        folder = self.output / "model"
        if not len(self.dev):
            self.model.save_pretrained(folder, self._info())
        self._line(f"model: {folder}")
        return folder

    def _train(self) -> None:
        settings = self.settings
        self.model.train()
        saved = began = line = time.monotonic()
        before = self.minutes
        characters, since = 0, began
        while not self._finished():
            train = self.text.train
            epoch = train.shuffled(settings.batch_characters, settings.seed, self.epoch)
            for index in islice(epoch, self.batches, None):
                loss, count = self._update(index)
                self.batches += 1
                characters += count
                now = time.monotonic()
                self.minutes = before + (now - began) / 60
                if now - line > _LINE_SECONDS:
                    self._line(
                        f"step {self.step}  epoch {self.epoch + 1}  train perplexity "
                        f"{math.exp(min(loss, 50.0)):.3f}  {characters / (now - since):,.0f} "
                        f"characters/s  {self.minutes:.1f} min"
                    )
                    line = since = now
                    characters = 0
                if self._finished() or self.step % settings.evaluate_every == 0:
                    self._validate()
                if self._finished():
                    break
                if self.stop:
                    self._save()
                    raise InterruptedLMTrainingError(
                        f"{self.output}: stopped by a signal after step {self.step}; the same "
                        "command resumes"
                    )
                if time.monotonic() - saved > 60 * settings.checkpoint_minutes:
                    self._save()
                    saved = time.monotonic()
            else:
                self.epoch, self.batches = self.epoch + 1, 0
        self._save()

    def _finished(self) -> bool:
        return self._progress() >= 1.0

    def _progress(self) -> float:
        """Share of the budget that is spent."""
        progress = self.step / self.settings.steps
        if self.settings.max_minutes is not None:
            progress = max(progress, self.minutes / self.settings.max_minutes)
        return progress

    def _update(self, index: np.ndarray) -> tuple[float, int]:
        """One optimizer step; a gradient that is not finite is thrown away and counted.

        Returns:
            nats per character, and the number of characters, ends of sentence included.
        """
        settings = self.settings
        seed_everything(
            int(np.random.SeedSequence([settings.seed, self.step]).generate_state(1)[0])
        )
        train = self.text.train
        count = int((train.offsets[index + 1] - train.offsets[index]).sum()) + len(index)
        self.optimizer.zero_grad(set_to_none=True)
        value = 0.0
        for part in train.parts(index, _PARTS):
            tokens, lengths = train.select(part)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.halves):
                losses = self.model.losses(tokens.to(self.device), lengths.to(self.device))
            loss = losses.sum() / count
            loss.backward()
            value += float(loss.detach())
        lr = rate(settings, self.step, self._progress())
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
            self.in_a_row = 0
        else:
            self.skipped += 1
            self.in_a_row += 1
            if self.in_a_row >= settings.max_skipped:
                raise LASError(
                    f"{self.output}: {self.in_a_row} steps in a row had a gradient that is not "
                    "finite; lower training.learning_rate"
                )
        self.step += 1
        if self.step % settings.log_every == 0 or self.step == 1:
            self._log(
                epoch=self.epoch + 1, loss=value, rate=lr, norm=float(norm), skipped=self.skipped
            )
        return value, count

    def _validate(self) -> None:
        """Measure the dev set, and keep the model if it is the best so far."""
        if not len(self.dev):
            return
        result = measure(self.model, self.dev, max(16384, self.settings.batch_characters))
        mark = ""
        nats = math.log(2) * result.bits
        if not self.best or nats < self.best[0]:
            self.best = [nats, float(self.step)]
            self.model.save_pretrained(self.output / "model", self._info(result))
            mark = " (best)"
        self._line(f"step {self.step}  epoch {self.epoch + 1}  dev {result}{mark}")
        self._log(
            epoch=self.epoch + 1,
            dev={
                "perplexity_per_character": result.per_character,
                "perplexity_per_word": result.per_word,
                "bits_per_character": result.bits,
            },
        )

    def _info(self, dev: Perplexity | None = None) -> dict[str, str]:
        info = {"step": str(self.step), "sentences": str(len(self.text.train))}
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
                "position": {name: getattr(self, name) for name in _POSITION},
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
        )

    def _resume(self) -> None:
        path = self.output / STATE
        if not path.is_file():
            save_settings(self.config, self.output / "config.yaml")
            (self.output / "log.jsonl").unlink(missing_ok=True)
            return
        state = checkpoint.load(path)
        changed = settings_diff.check(self.config, state.get("lm"), path, _FREE)
        if state["text"] != self._fingerprint():
            raise LASError(f"{path}: belongs to a training on another text; choose a new folder")
        fit_weights(self.model, state["model"], path, "config.yaml")
        self.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["position"].items():
            setattr(self, name, value)
        self._truncate()
        if changed:
            save_settings(self.config, self.output / "config.yaml")
            self._line(f"goes on with other settings: {settings_diff.shown(changed)}")

    def _fingerprint(self) -> list[int]:
        """What tells one text from another."""
        train = self.text.train
        return [len(train), train.characters, corpus.checksum(train), len(self.text.dev)]

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Note a request to stop, to be honoured after the step."""

        def note(*_: Any) -> None:
            self.stop = True

        before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # What is said

    def _line(self, text: str) -> None:
        stamped = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z  {text}"
        print(stamped, flush=True)
        self._append("train.log", stamped)

    def _log(self, **values: Any) -> None:
        self._append("log.jsonl", json.dumps({"step": self.step, **values}))

    def _append(self, name: str, line: str) -> None:
        path = self.output / name
        with naming(path), path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _truncate(self) -> None:
        """Drop what was logged after the step that is resumed, and lines that were cut off."""
        path = self.output / "log.jsonl"
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            with contextlib.suppress(json.JSONDecodeError):
                if json.loads(line)["step"] <= self.step:
                    kept.append(line + "\n")
        with replacing(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
