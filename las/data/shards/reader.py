"""Reads utterances of shards: a :class:`ShardSet` takes the place of a manifest's set of cuts."""

import gzip
import json
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from lhotse.audio import AudioSource
from lhotse.cut import Cut
from lhotse.serialization import deserialize_item

from las.config import DataConfig
from las.data.augmentation import append_after, drop_transcript, perturb_speed
from las.data.manifests import Trainable, check_cut, refuse_dense, too_dense
from las.data.shards.files import SUFFIX, ShardFiles, is_remote
from las.data.shards.index import INDEX, Corpus
from las.data.shards.plan import Part, Planned, ShardSampler
from las.errors import LASError, shown
from las.text.characters import Characters

_OPEN = 256  # shards that a process holds open at most; each is a file descriptor
_SAMPLE = 1000  # utterances after which a share of them is judged


def is_sharded(train: str | list[str]) -> bool:
    """Whether a training set is of shards; a manifest otherwise."""
    if isinstance(train, list) or is_remote(train) or train.rstrip("/").endswith(SUFFIX):
        return True
    return bool(train) and Path(train, INDEX).is_file()


class OpenShard:
    """A shard that is being read: the lines of its cuts, and its open archive."""

    def __init__(self, corpus: Corpus, shard: int) -> None:
        (cuts, cuts_bytes), (self._name, size) = corpus.parts(shard)
        self.name = corpus.files.place(self._name)
        self.records: np.ndarray = corpus.records(shard)
        self._cuts = corpus.files.place(cuts)
        with corpus.files.open(cuts, cuts_bytes) as file:
            try:
                self.lines = gzip.decompress(file.read()).splitlines()
            except (OSError, EOFError, zlib.error) as error:
                raise self._damaged(error) from None
        if len(self.lines) != len(self.records):
            raise self._damaged(f"{len(self.lines)} of {len(self.records)} utterances")
        self._archive = corpus.files.open(self._name, size)

    def cut(self, row: int) -> Cut:
        """An utterance without its audio.

        Raises:
            LASError: it is damaged or has no transcript.
        """
        try:
            cut = deserialize_item(json.loads(self.lines[row]))
        except Exception as error:  # of various types
            raise self._damaged(error) from None
        check_cut(cut, shown(self._cuts))
        return cut

    def with_audio(self, cut: Cut, row: int) -> Cut:
        """The utterance with the bytes of its audio file."""
        _, size, at = self.records[row].item()
        data = os.pread(self._archive.fileno(), size, at)
        (source,) = cut.recording.sources
        cut.recording.sources = [AudioSource("memory", source.channels, data)]
        cut.shard = self.name  # for messages
        return cut

    def close(self) -> None:
        """Close the archive."""
        self._archive.close()

    def _damaged(self, what: object) -> LASError:
        line = " ".join(str(what).split())[:200]
        return LASError(
            f"{shown(self._cuts)}: damaged ({line}); copy it again, or run "
            "`las prepare ... --shards` again"
        )


class ShardSet:
    """The training set of one or several shard folders.

    Args:
        config: names the folders and their weights.
        text: the alphabet.
        ctc_frames: number of frames of the CTC head for seconds of audio.

    Raises:
        LASError: a folder is not usable.
    """

    def __init__(
        self, config: DataConfig, text: Characters, ctc_frames: Callable[[float], int]
    ) -> None:
        origins = [config.train] if isinstance(config.train, str) else config.train
        self.corpora = [Corpus(ShardFiles(origin, config)) for origin in origins]
        self.weights = config.weights or [1.0] * len(origins)
        self.text = text
        self.config = config
        self._frames = ctc_frames
        self._open: OrderedDict[tuple[int, int], OpenShard] = OrderedDict()
        utterances = sum(int(corpus.utterances.sum()) for corpus in self.corpora)
        shards = sum(len(corpus) for corpus in self.corpora)
        # Of two windows, as batches of a window are read ahead while others are still read.
        self._limit = min(_OPEN, 8 + 2 * -(-config.shuffle * shards // utterances))
        self._read = 0
        self._dense: list[str] = []

    def trainable(self) -> Trainable:
        """What there is to train on in an epoch, from the index and the first shards.

        Raises:
            LASError: there is nothing, or too much of it cannot be trained on.
        """
        kept, long, longest = 0.0, 0, 0.0
        for corpus, weight in zip(self.corpora, self.weights, strict=True):
            for shard in range(len(corpus)):
                seconds = corpus.records(shard)["seconds"]
                fits = seconds[seconds <= self.config.max_seconds]
                kept += weight * len(fits)
                long += len(seconds) - len(fits)
                longest = max(longest, float(fits.max(initial=0.0)))
        if kept < 1:
            raise LASError(f"{self._name}: no utterance is left to train on")
        for corpus in self.corpora:
            first = OpenShard(corpus, 0)
            for row in range(len(first.lines)):
                self._usable(first, row)
            first.close()
        refuse_dense(self._dense, self._read, self._name, self.config)
        self._read = 0
        self._dense = []
        return Trainable(self, round(kept), long, 0, longest)

    def sampler(self, seed: int, epoch: int, skip: int, group: int) -> "Sampler":
        """The batches of an epoch; see :class:`ShardSampler`."""
        return Sampler(
            self, ShardSampler(self.corpora, self.weights, self.config, seed, epoch, skip, group)
        )

    def cuts(self, batch: Planned, seed: int, epoch: int) -> tuple[list[Cut], int]:
        """Read a batch; an utterance that CTC cannot align is left out.

        Args:
            batch: of the sampler.
            seed: of the training.
            epoch: counted from 0.

        Returns:
            the utterances, and how many were left out.

        Raises:
            LASError: a shard is missing or damaged, or too much of it cannot be aligned.
        """
        found: list[Cut] = []
        left_out = 0
        for parts in batch:
            read = [(self._part(part, part.row), part.gap) for part in parts]
            usable = [(cut, gap) for cut, gap in read if cut is not None]
            left_out += len(read) - len(usable)
            if not usable:
                continue
            (whole, _), *others = usable
            if self.config.silence and len(parts) == 1:
                whole = drop_transcript(whole, self.config.silence, seed, epoch)
            for cut, gap in others:
                whole = append_after(whole, gap, cut)
            found.append(whole)
        if not found:  # a step needs all of its batches
            found = [self._other(batch[0][0])]
        return found, left_out

    @property
    def _name(self) -> str:
        return ", ".join(shown(corpus.files.origin) for corpus in self.corpora)

    def _part(self, part: Part, row: int) -> Cut | None:
        shard = self._shard(part.corpus, part.shard)
        cut = self._usable(shard, row)
        if self._read > _SAMPLE:
            refuse_dense(self._dense, self._read, self._name, self.config)
        if cut is None:
            return None
        cut = shard.with_audio(cut, row)
        if part.copy:
            cut = cut.with_id(f"{cut.id}_copy{part.copy}")
        return perturb_speed(cut, [part.speed], 0, 0)

    def _other(self, part: Part) -> Cut:
        """The next usable utterance of the shard that is not longer."""
        records = self._shard(part.corpus, part.shard).records
        for row in (np.arange(1, len(records)) + part.row) % len(records):
            if records["seconds"][row] <= records["seconds"][part.row]:
                cut = self._part(part, int(row))
                if cut is not None:
                    return cut
        name = shown(self._shard(part.corpus, part.shard).name)
        raise LASError(f"{name}: no utterance is left to train on")

    def _usable(self, shard: OpenShard, row: int) -> Cut | None:
        """An utterance; None if it has more characters than CTC has frames."""
        cut = shard.cut(row)
        self._read += 1
        try:
            dense = too_dense(cut, self.text, self.config, self._frames)
        except LASError as error:
            raise LASError(
                f"{shown(shard.name)}: utterance {cut.id}: {error}; run `las prepare` again"
            ) from None
        if dense:
            self._dense.append(cut.id)
        return None if dense else cut

    def _shard(self, corpus: int, shard: int) -> OpenShard:
        """An open shard; those that were not read for the longest time are closed."""
        key = (corpus, shard)
        if key not in self._open:
            self._open[key] = OpenShard(self.corpora[corpus], shard)
            while len(self._open) > self._limit:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(key)
        return self._open[key]


class Sampler:
    """Batches, while the shards of the next window are fetched if they are remote."""

    def __init__(self, shards: ShardSet, sampler: ShardSampler) -> None:
        self._shards = shards
        self._sampler = sampler

    def __iter__(self) -> Iterator[Planned]:
        if not any(corpus.files.remote for corpus in self._shards.corpora):
            yield from self._sampler
            return
        with _cancelling() as pool:

            def ahead(shards: np.ndarray) -> None:
                for corpus, shard in shards:
                    found = self._shards.corpora[corpus]
                    for name, size in found.parts(shard) if found.files.remote else ():
                        pool.submit(found.files.fetch_ahead, name, size)

            self._sampler.ahead = ahead
            yield from self._sampler


@contextmanager
def _cancelling() -> Iterator[ThreadPoolExecutor]:
    """Two threads, which do not finish what is still waiting."""
    pool = ThreadPoolExecutor(2, thread_name_prefix="shards")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
