"""Prepares a corpus as shards: checked as for a manifest, with the audio in archives.

The files of a shard are complete or absent, and beside them is a note of what was prepared from
what, so that an interrupted preparation continues. The index is written last, in place of the
notes.
"""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from lhotse.cut import Cut
from lhotse.shar.utils import to_shar_placeholder
from lhotse.utils import fastcopy

from las.audio import reader
from las.data.corpora import Item, Prepared, Skipped, check_all, finish
from las.data.shards.files import SUFFIX
from las.data.shards.index import COLUMNS, INDEX, RECORD, cuts_name, recording_name, write_index
from las.errors import LASError
from las.storage.atomic import locked, make_folder, remove_leftovers, replacing
from las.text.characters import ALPHABET, Characters
from las.text.normalizer import Normalizer, check_alphabet

UTTERANCES = 1000
"""Utterances of the corpus that make up a shard."""

_NOTE = "cuts.note{:06d}.json"  # of a block of utterances; lhotse takes it for no shard
_BEGUN = "cuts.note.json"  # there from the first moment to the last


@dataclass
class _Note:
    """What became of a block of utterances."""

    key: str  # of what was prepared, and how
    shard: int  # number of the next shard, which this is unless all utterances were skipped
    utterances: int = 0
    seconds: float = 0.0
    cuts_bytes: int = 0
    recording_bytes: int = 0
    records: list[tuple[float, int, int]] = field(default_factory=list)
    speakers: list[str] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    unaccented: int = 0


def prepare_shards(
    part: str,
    items: Sequence[Item],
    output: Path,
    *,
    alphabet: str = ALPHABET,
    normalizer: Normalizer = "english",
    strict: bool = False,
    decode: bool = True,
    size: int = UTTERANCES,
    flac: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> Prepared:
    """Check utterances as :func:`las.data.corpora.prepare` does, and write ``<part>.shards``.

    After an interruption it continues, if neither corpus nor settings have changed. Only the
    utterances of one shard are in memory with their audio.

    Args:
        part: name of the folder.
        items: utterances of the corpus.
        output: folder for the shards.
        alphabet: characters that a transcript may have.
        normalizer: of the transcripts.
        strict: raise at the first utterance that would be skipped; other files are still skipped.
        decode: decode every file, which finds damage after the header; False reads headers only.
        size: utterances of a shard.
        flac: store audio as FLAC where that is lossless; otherwise the files are copied.
        log: called with a line that says whether an interrupted preparation continues.

    Raises:
        LASError: see ``strict``; or no utterance is usable; or the folder cannot be written to.
    """
    check_alphabet(alphabet, normalizer)
    characters = Characters(alphabet, normalizer)
    make_folder(output)
    folder = output / f"{part}{SUFFIX}"
    result = Prepared(part, folder)
    settings = (alphabet, normalizer, decode, size, flac)
    records: list[np.ndarray] = []
    shards: list[dict[str, float]] = []
    seen: set[str] = set()
    with locked(folder) as alone:
        if not alone:
            raise LASError(f"{folder}: another `las prepare` writes these shards; wait for it")
        remove_leftovers(folder, "")
        (folder / _BEGUN).touch()
        (folder / INDEX).unlink(missing_ok=True)  # from here on it is not complete
        continuing = True
        for number, block in enumerate(_blocks(items, size)):
            path = folder / _NOTE.format(number)
            key = _key(settings, block)
            note = _kept(path, key, len(shards)) if continuing else None
            if note is None and continuing:
                continuing = False
                left = _remove_notes(folder, number)
                if number:
                    log(f"{folder}: continues after the {number} shards that are done")
                elif left:
                    log(f"{folder}: starts over, as the corpus or the options have changed")
            if note is None:
                note = _Note(key, len(shards))
                _prepare_block(note, block, seen, characters, strict, decode, folder, flac)
                with replacing(path) as temporary:
                    temporary.write_text(json.dumps(asdict(note)), "utf-8")
            else:
                seen.update(item.id for item in block if not item.beside)
            result.utterances += note.utterances
            result.seconds += note.seconds
            result.speakers.update(note.speakers)
            result.skipped += [Skipped(**one) for one in note.skipped]
            result.unaccented += note.unaccented
            if note.utterances:
                shards.append({name: getattr(note, name) for name in COLUMNS})
                records.append(np.array([tuple(one) for one in note.records], RECORD))
        finish(result, items, output)
        _remove_surplus(folder, len(shards))
        write_index(folder, shards, records)
        _remove_notes(folder, 0)
        (folder / _BEGUN).unlink()
    return result


def unfinished(folder: Path) -> bool:
    """Whether a preparation of shards was interrupted, so that some may be missing.

    Shards of other programs have no index, but then no notes either.
    """
    return any(folder.glob("cuts.note*.json")) and not (folder / INDEX).is_file()


def _blocks(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """As many utterances as a shard has; other files count with the utterance after them."""
    block: list[Item] = []
    count = 0
    for item in items:
        block.append(item)
        count += not item.beside
        if count == size:
            yield block
            block, count = [], 0
    if block:
        yield block


def _key(settings: tuple[Any, ...], block: Sequence[Item]) -> str:
    """A hash of all that the shard follows from: settings, texts, and sizes and times of files."""
    digest = hashlib.sha256(repr(settings).encode())
    for item in block:
        try:
            status = item.path.stat()
            file = (status.st_size, status.st_mtime_ns)
        except OSError:
            file = (0, 0)
        digest.update(repr((item, file)).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _kept(path: Path, key: str, shard: int) -> _Note | None:
    """The note of an earlier run, if it still holds."""
    try:
        note = _Note(**json.loads(path.read_text("utf-8")))
        sizes = []
        if note.utterances:
            names = (cuts_name(shard), recording_name(shard))
            sizes = [path.with_name(name).stat().st_size for name in names]
    except (OSError, ValueError, TypeError):
        return None
    same = not sizes or sizes == [note.cuts_bytes, note.recording_bytes]
    return note if note.key == key and note.shard == shard and same else None


def _prepare_block(
    note: _Note,
    block: Sequence[Item],
    seen: set[str],
    characters: Characters,
    strict: bool,
    decode: bool,
    folder: Path,
    flac: bool,
) -> None:
    """Check a block, write its shard and fill in its note."""
    result = Prepared("", folder)
    cuts: list[Cut] = []
    with closing(check_all(block, seen, characters, decode)) as checked:
        for item, cut in checked:
            result.add(item, cut, characters, strict)
            if not isinstance(cut, Skipped):
                cuts.append(cut)
    note.utterances, note.seconds = result.utterances, result.seconds
    note.speakers, note.unaccented = sorted(result.speakers), result.unaccented
    note.skipped = [asdict(one) for one in result.skipped]
    if cuts:
        recording = folder / recording_name(note.shard)
        with replacing(recording) as temporary:
            placeholders = _write_archive(cuts, temporary, note, flac)
        lines = "".join(
            f"{json.dumps(cut.to_dict(), ensure_ascii=False)}\n" for cut in placeholders
        )
        path = folder / cuts_name(note.shard)
        with replacing(path) as temporary:
            temporary.write_bytes(gzip.compress(lines.encode(), mtime=0))
        note.cuts_bytes, note.recording_bytes = path.stat().st_size, recording.stat().st_size


def _write_archive(cuts: Sequence[Cut], path: Path, note: _Note, flac: bool) -> list[Cut]:
    """Write the audio of the cuts as lhotse Shar does; returns the cuts that belong to it."""
    found = []
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for cut in cuts:
            source = Path(cut.recording.sources[0].source)
            data, suffix = source.read_bytes(), source.suffix.lower() or ".audio"
            encoded = _as_flac(source) if flac and suffix != ".flac" else None
            if encoded is not None:
                data, suffix = encoded, ".flac"
            recording = to_shar_placeholder(cut.recording, cut)
            _add(archive, f"{cut.id}{suffix}", data)
            note.records.append((cut.duration, len(data), archive.offset - _padded(len(data))))
            _add(archive, f"{cut.id}.json", json.dumps(recording.to_dict()).encode())
            found.append(fastcopy(cut, recording=recording))
    return found


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _as_flac(path: Path) -> bytes | None:
    """The file as FLAC; None if its samples would change."""
    samples, rate = reader.read(path)
    for subtype, bits in (("PCM_16", 16), ("PCM_24", 24)):
        whole = samples * np.float32(2 ** (bits - 1))
        exact = (whole == np.round(whole)).all() and np.abs(samples).max(initial=0.0) < 1
        if not exact:
            continue
        buffer = io.BytesIO()
        try:
            soundfile.write(buffer, samples, rate, format="FLAC", subtype=subtype)
        except (soundfile.LibsndfileError, ValueError):  # more channels than FLAC has
            return None
        return buffer.getvalue()
    return None


def _remove_notes(folder: Path, first: int) -> int:
    """Remove the notes of blocks from a number on; returns how many there were."""
    found = [path for path in folder.glob("cuts.note*.json") if path.name >= _NOTE.format(first)]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def _remove_surplus(folder: Path, count: int) -> None:
    """Remove shards of an earlier preparation that had more."""
    for pattern, name in (("cuts.*.jsonl.gz", cuts_name), ("recording.*.tar", recording_name)):
        for path in folder.glob(pattern):
            if path.name >= name(count):
                path.unlink()
