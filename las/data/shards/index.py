"""The index of a shard folder: what is in its shards, without reading them.

The folder is one of lhotse Shar (``cuts.000000.jsonl.gz``, ``recording.000000.tar`` and so on),
with two more files: ``cuts.index.json`` has the number of utterances, seconds and bytes of every
shard, ``cuts.records.bin`` for every utterance its seconds and where its audio is in the archive.
The index is written last: a folder without it is not complete.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from las.data.shards.files import ShardFiles
from las.errors import LASError, shown
from las.storage.atomic import replacing

INDEX = "cuts.index.json"
RECORDS = "cuts.records.bin"
RECORD = np.dtype([("seconds", "<f4"), ("bytes", "<u4"), ("at", "<u8")])
"""An utterance: its duration, and the size and offset of its audio in the archive."""

COLUMNS = ("utterances", "seconds", "cuts_bytes", "recording_bytes")
"""What the index has for every shard."""

_FORMAT = "listen-attend-spell/shards/1"


def cuts_name(shard: int) -> str:
    """The file of the cuts of a shard."""
    return f"cuts.{shard:06d}.jsonl.gz"


def recording_name(shard: int) -> str:
    """The archive with the audio of a shard."""
    return f"recording.{shard:06d}.tar"


def write_index(
    folder: Path, shards: Sequence[dict[str, float]], records: Sequence[np.ndarray]
) -> None:
    """Write both files of the index, the one by which a folder counts as complete last."""
    with replacing(folder / RECORDS) as temporary, temporary.open("wb") as file:
        for one in records:
            file.write(one.astype(RECORD).tobytes())
    columns = {name: [shard[name] for shard in shards] for name in COLUMNS}
    with replacing(folder / INDEX) as temporary:
        temporary.write_text(json.dumps({"format": _FORMAT, **columns}) + "\n", "utf-8")


class Corpus:
    """A shard folder, of which only the index is in memory.

    Args:
        files: of the folder.

    Attributes:
        utterances: Number of utterances of each shard, [S].
        seconds: Seconds of audio of each shard, [S].

    Raises:
        LASError: the index is missing or of another format.
    """

    def __init__(self, files: ShardFiles) -> None:
        self.files = files
        content = files.index(INDEX)
        try:
            index = json.loads(content)
            if index["format"] != _FORMAT:
                raise ValueError(f"its format is {index['format']}")
            columns = [np.asarray(index[name], np.float64) for name in COLUMNS]
            if len({len(column) for column in columns}) > 1 or not len(columns[0]):
                raise ValueError("no shards")
        except (ValueError, KeyError, TypeError) as error:
            raise LASError(
                f"{shown(files.place(INDEX))}: not an index of shards ({error}); run "
                "`las prepare ... --shards` again, or use the version that made it"
            ) from None
        self.utterances = columns[0].astype(np.int64)
        self.seconds = columns[1]
        self._bytes = {"cuts": columns[2], "recording": columns[3]}
        self._starts = np.concatenate([[0], np.cumsum(self.utterances)])
        self._records = files.open(RECORDS, int(self._starts[-1]) * RECORD.itemsize)

    def __len__(self) -> int:
        return len(self.utterances)

    def records(self, shard: int) -> np.ndarray:
        """The utterances of a shard: :data:`RECORD` [n]."""
        # Without the position of the file, which processes share.
        size = int(self.utterances[shard]) * RECORD.itemsize
        at = int(self._starts[shard]) * RECORD.itemsize
        return np.frombuffer(os.pread(self._records.fileno(), size, at), RECORD)

    def parts(self, shard: int) -> list[tuple[str, int]]:
        """Name and bytes of both files of a shard."""
        return [
            (cuts_name(shard), int(self._bytes["cuts"][shard])),
            (recording_name(shard), int(self._bytes["recording"][shard])),
        ]
