"""The training set and the dev set of a run, checked against the model, and their batches."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from lhotse import CutSet

from las.config import DataConfig
from las.data.dataset import Batch
from las.data.manifests import Trainable, check_alphabet, read_manifest, trainable
from las.data.shards.reader import ShardSet, is_sharded
from las.errors import LASError
from las.model.las import LAS
from las.scoring.wer import check


def training_set(data: DataConfig, model: LAS) -> Trainable:
    """The utterances that can be trained on.

    Raises:
        LASError: the data are not usable, or too much of them cannot be trained on.
    """
    rate = model.config.frontend.sample_rate

    def frames(seconds: float) -> int:
        return int(model.ctc_frames(torch.tensor(int(seconds * rate))))

    if is_sharded(data.train):
        return ShardSet(data, model.text, frames).trainable()
    cuts = read_manifest(str(data.train))
    check_alphabet(cuts, model.text, str(data.train))
    return trainable(cuts, model.text, data, frames)


def dev_set(data: DataConfig, model: LAS) -> CutSet | None:
    """The dev set, if the settings name one.

    Raises:
        LASError: the manifest is not usable, or holds no words to score.
    """
    if not data.dev:
        return None
    cuts = read_manifest(data.dev)
    check_alphabet(cuts, model.text, data.dev)
    check(((cut.id, cut.supervisions[0].text) for cut in cuts), data.dev)
    return cuts


def read_batches(batches: Iterator[Batch | LASError]) -> Iterator[Batch]:
    """Batches that were read.

    Raises:
        LASError: a file cannot be read, or a reader process was killed.
    """
    while True:
        try:
            batch = next(batches, None)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise LASError(
                "a process that reads audio was killed, perhaps for want of memory; use fewer "
                "data.workers; the same command resumes from the last checkpoint"
            ) from None
        if batch is None:
            return
        if isinstance(batch, LASError):
            raise batch
        yield batch


def halves(batch: Batch) -> Sequence[Batch]:
    """The first and the second half of a batch, padded no more; empty for one utterance."""
    middle = len(batch.ids) // 2
    if not middle:
        return ()
    return _part(batch, slice(None, middle)), _part(batch, slice(middle, None))


def _part(batch: Batch, chosen: slice) -> Batch:
    samples, lengths = batch.samples[chosen], batch.token_lengths[chosen]
    return replace(
        batch,
        ids=batch.ids[chosen],
        texts=batch.texts[chosen],
        waveforms=batch.waveforms[chosen, : int(samples.max())],
        samples=samples,
        tokens=batch.tokens[chosen, : int(lengths.max())],
        token_lengths=lengths,
    )
