"""Utterances of manifests and shards, as what a Transcriber reads."""

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.serialization import deserialize_item

from las.api import waveform
from las.bulk.blocks import Item
from las.data import recordings
from las.errors import LASError, shown
from las.transcription.transcript import Reading

_ROUNDED = 1e-4  # seconds by which a duration in a manifest may be rounded


def lines(path: str | Path) -> list[str]:
    """The lines of a manifest that are not empty.

    Raises:
        LASError: it is missing, damaged or empty.
    """
    path = Path(path)
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8") as file:
            found = [line for line in file if line.strip()]
    except FileNotFoundError:
        raise LASError(f"{shown(path)}: no such manifest; `las prepare` makes one") from None
    except (OSError, EOFError, ValueError) as error:
        raise _damaged(str(path), error) from None
    if not found:
        raise LASError(f"{shown(path)}: the manifest is empty")
    return found


def of_lines(found: Iterable[str], origin: str) -> Iterator[Item]:
    """The utterances of lines of a manifest.

    Raises:
        LASError: a line is none.
    """
    for line in found:
        try:
            cut = deserialize_item(json.loads(line))
            if not isinstance(cut, Cut):
                raise ValueError(f"no utterance but {type(cut).__name__}")
        except Exception as error:  # various types, for another or a damaged file
            raise _damaged(origin, error) from None
        yield _item(cut, origin)


def of_shard(manifest: str, tar: str) -> Iterator[Item]:
    """The utterances of a shard.

    Raises:
        LASError: it is damaged; those before the damage were yielded.
    """
    try:
        for cut in CutSet.from_shar(fields={"cuts": [manifest], "recording": [tar]}):
            yield _item(cut, tar)
    except Exception as error:  # various types, for a damaged file
        line = " ".join(str(error).split())[:200]
        raise LASError(
            f"{shown(tar)}: damaged, or not of {shown(Path(manifest).name)} "
            f"({type(error).__name__}: {line}); write the shards again"
        ) from None


def _damaged(path: str, error: Exception) -> LASError:
    line = " ".join(str(error).split())[:200]
    return LASError(
        f"{shown(path)}: not a manifest or damaged ({type(error).__name__}: {line}); "
        "`las prepare` makes one"
    )


def _item(cut: Cut, origin: str) -> Item:
    files = [
        str(source.source)
        for recording in recordings.of_cut(cut)
        for source in recording.sources
        if source.type == "file"
    ]
    path = files[0] if files else origin
    if _is_whole_file(cut):  # read as `las transcribe` does, in bounded memory
        return Item(path, cut.id, Path(path))
    return Item(path, cut.id, Reading(Path(path), partial(_samples, cut)))


def _is_whole_file(cut: Cut) -> bool:
    """Whether a cut is all channels of a file from its start to its end, unchanged."""
    recording = getattr(cut, "recording", None)
    if recording is None or recording.transforms or len(recording.sources) != 1:
        return False
    (source,) = recording.sources
    channels = cut.channel if isinstance(cut.channel, Sequence) else [cut.channel]
    return (
        source.type == "file"
        and ".tar/" not in str(source.source)
        and cut.start == 0
        and abs(cut.duration - recording.duration) <= _ROUNDED
        and sorted(channels) == sorted(recording.channel_ids)
    )


def _samples(cut: Cut, rate: int) -> np.ndarray:
    """The samples [S] of a cut.

    Raises:
        LASError: they cannot be read, or are no audio.
    """
    samples = recordings.waveform(cut, rate)
    try:
        return waveform(samples, rate, rate)
    except LASError as error:
        raise LASError(f"utterance {cut.id}: {error}") from None
