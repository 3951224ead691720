"""Batches of waveforms and transcripts from manifests or shards.

The random choices depend only on (seed, epoch, utterance). A resumed training skips the batches
that it has had, whatever its reader processes had read ahead.
"""

import signal
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import DynamicBucketingSampler, DynamicCutSampler
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from las.config import DataConfig
from las.data import recordings
from las.data.augmentation import distort, drop_transcript, join, perturb_speed, text_of
from las.data.codec import check_rate
from las.data.shards.reader import ShardSet
from las.errors import LASError
from las.text.characters import Characters

# An utterance longer than the limit has a batch of its own.
warnings.filterwarnings("ignore", "We have exceeded the max_duration constraint")


@dataclass(frozen=True)
class Batch:
    """A padded batch of utterances."""

    ids: list[str]
    texts: list[str]
    waveforms: Tensor  # [B, S], zero beyond the valid samples
    samples: Tensor  # [B]
    tokens: Tensor  # [B, U], zero beyond the transcripts
    token_lengths: Tensor  # [B]
    left_out: int = 0  # utterances of shards that CTC cannot align

    def to(self, device: torch.device) -> "Batch":
        """Move waveforms and tokens to a device; lengths stay on the CPU, see ``LAS.forward``."""
        return replace(
            self,
            waveforms=self.waveforms.to(device, non_blocking=True),
            tokens=self.tokens.to(device, non_blocking=True),
        )


class Utterances(Dataset):
    """Reads the audio of a batch of cuts.

    An error is returned, not raised: an exception from a reader process would come with a
    traceback.

    Args:
        text: the alphabet.
        sample_rate: of the waveforms.
        augment: augmentation of the samples of a cut.
        read: gives the cuts of a batch, and how many were left out; default: the batch is its cuts.
    """

    def __init__(
        self,
        text: Characters,
        sample_rate: int,
        augment: Callable[[Cut, np.ndarray], np.ndarray] | None = None,
        read: Callable[[Any], tuple[list[Cut], int]] | None = None,
    ) -> None:
        self.text = text
        self.sample_rate = sample_rate
        self.augment = augment
        self.read = read

    def __getitem__(self, batch: Any) -> Batch | LASError:
        try:
            cuts, left_out = self.read(batch) if self.read else (list(batch), 0)
            return replace(self._read(cuts), left_out=left_out)
        except LASError as error:
            return error

    def _read(self, cuts: list[Cut]) -> Batch:
        waveforms, tokens = [], []
        for cut in cuts:
            samples = recordings.waveform(cut, self.sample_rate)
            waveforms.append(
                torch.from_numpy(self.augment(cut, samples) if self.augment else samples)
            )
            text = text_of(cut)
            try:
                tokens.append(torch.tensor(self.text.encode(text), dtype=torch.long))
            except LASError as error:
                raise LASError(f"utterance {cut.id}: {error}; run `las prepare` again") from None
        return Batch(
            [cut.id for cut in cuts],
            [text_of(cut) for cut in cuts],
            pad_sequence(waveforms, batch_first=True),
            torch.tensor([len(w) for w in waveforms]),
            pad_sequence(tokens, batch_first=True),
            torch.tensor([len(t) for t in tokens]),
        )


class SharedSampler:
    """The batches of one process, without the first of an epoch.

    Args:
        sampler: the batches of the epoch; their order does not depend on the processes.
        skip: batches of all processes that were already used.
        rank: of this process.
        world: number of processes.
        group: batches of an optimizer step, which the processes take in turn.
        start: number of the first batch in ``sampler``.
    """

    def __init__(
        self,
        sampler: Iterable[Any],
        skip: int = 0,
        rank: int = 0,
        world: int = 1,
        group: int = 1,
        start: int = 0,
    ) -> None:
        self.sampler = sampler
        self.skip, self.start = skip, start
        self.rank, self.world, self.group = rank, world, group

    def __iter__(self) -> Iterator[Any]:
        for index, cuts in enumerate(self.sampler, self.start):
            if index >= self.skip and index % self.group % self.world == self.rank:
                yield cuts


def training_batches(
    cuts: CutSet | ShardSet,
    count: int,
    text: Characters,
    config: DataConfig,
    *,
    sample_rate: int,
    seed: int,
    epoch: int,
    skip: int = 0,
    rank: int = 0,
    world: int = 1,
    group: int | None = None,
) -> Iterable[Batch | LASError]:
    """Batches of one epoch.

    Their order depends on seed and epoch, and that of shards on ``group``, but not on the number of
    processes, which take them in turn.

    A batch is complete when another utterance as long as its longest would exceed a limit. It may
    exceed ``batch_seconds`` by as much as durations differ within a bucket.

    Args:
        cuts: utterances, already filtered; or shards, whose batches never exceed the limit.
        count: number of utterances.
        text: the alphabet.
        config: sizes of batches, speeds, noise and codec.
        sample_rate: of the waveforms.
        seed: of the training.
        epoch: counted from 0; with the seed it determines the order and the augmentation.
        skip: batches of this epoch, of all processes, that were already used.
        rank: of this process; each process gets its own batches.
        world: number of processes of the training.
        group: batches of an optimizer step: the first process takes the first of each; None is
            one for each process.

    Raises:
        LASError: the settings ask for MP3, which does not have this sample rate.
    """
    if config.mp3:
        check_rate(sample_rate)
    augment = partial(distort, config=config, sample_rate=sample_rate, seed=seed, epoch=epoch)
    shared = {"skip": skip, "rank": rank, "world": world, "group": group or world}
    if isinstance(cuts, ShardSet):
        read = partial(cuts.cuts, seed=seed, epoch=epoch)
        dataset = Utterances(text, sample_rate, augment, read)
        planned = cuts.sampler(seed, epoch, skip, group or world)
        return _loader(dataset, SharedSampler(planned, **shared, start=skip), config.workers)
    # The sampler uses the sum of seed and epoch: without a hash, seeds 1 and 2 would share orders.
    common = {"world_size": 1, "rank": 0, "seed": zlib.crc32(str(seed).encode())}
    limits = {"max_duration": config.batch_seconds, "max_cuts": config.batch_utterances}
    utterances = cuts.map(
        partial(perturb_speed, speeds=config.speeds, seed=seed, epoch=epoch), apply_fn=None
    )
    if config.silence:
        utterances = utterances.map(
            partial(drop_transcript, share=config.silence, seed=seed, epoch=epoch), apply_fn=None
        )
    utterances = join(utterances, config.joins, seed, epoch)
    if epoch < config.short_first:
        sampler = _in_order(utterances, ascending=True, **limits, **common)
    elif count < 8:  # too few for the buckets of lhotse
        sampler = DynamicCutSampler(utterances, shuffle=True, **limits, **common)
    else:
        buckets = max(2, min(config.buckets, count // 8))
        sampler = DynamicBucketingSampler(
            utterances, shuffle=True, num_buckets=buckets, **limits, **common
        )
    sampler.set_epoch(epoch)
    dataset = Utterances(text, sample_rate, augment)
    return _loader(dataset, SharedSampler(sampler, **shared), config.workers)


def _loader(dataset: Utterances, sampler: Iterable[Any], workers: int) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        worker_init_fn=_ignore_signals,
    )


def evaluation_batches(
    cuts: CutSet,
    text: Characters,
    *,
    sample_rate: int,
    batch_seconds: float = 60.0,
    batch_utterances: int = 32,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Iterable[Batch | LASError]:
    """All utterances, longest first, so that running out of memory shows at once.

    Several processes take the batches in turn.
    """
    sampler = _in_order(
        cuts,
        ascending=False,
        max_duration=batch_seconds,
        max_cuts=batch_utterances,
        world_size=1,
        rank=0,
    )
    return DataLoader(
        Utterances(text, sample_rate),
        batch_size=None,
        sampler=SharedSampler(sampler, 0, rank, world, world),
        num_workers=workers,
        worker_init_fn=_ignore_signals,
    )


def _ignore_signals(_: int) -> None:
    """Ignore signals in a reader process: the main process handles them, and ends its readers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _in_order(cuts: CutSet, ascending: bool, **settings: Any) -> DynamicCutSampler:
    """Batches in order of duration."""
    with warnings.catch_warnings():
        # It recommends lazy reading, which is not possible with sorting.
        warnings.filterwarnings("ignore", "You are using DynamicCutSampler with an eagerly")
        return DynamicCutSampler(
            cuts.to_eager().sort_by_duration(ascending=ascending), shuffle=False, **settings
        )
