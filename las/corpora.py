"""Corpora on disk -> manifests of utterances whose audio and text are known to be usable.

A reader of a layout only says what should be there, as :class:`Item`; checking it, and counting
what is left out and why, is done once for all of them.
"""

import csv
import io
import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lhotse import CutSet, MonoCut, MultiCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource

from las import audio
from las.errors import LASError
from las.files import make_folder, replacing
from las.text import ALPHABET, normalise, outside

AUDIO_SUFFIXES = (".flac", ".wav", ".opus", ".ogg", ".mp3", ".sph", ".aiff", ".aif")


@dataclass(frozen=True)
class Item:
    """One utterance as a corpus announces it."""

    id: str
    path: Path
    text: str
    speaker: str


@dataclass(frozen=True)
class Skipped:
    """An utterance that was left out."""

    id: str
    path: str
    reason: str  # a kind that is counted, such as "missing audio"
    detail: str


@dataclass
class Prepared:
    """What became of one part of a corpus."""

    part: str
    manifest: Path
    utterances: int = 0
    seconds: float = 0.0
    speakers: set[str] = field(default_factory=set)
    skipped: list[Skipped] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Number of utterances left out, by reason."""
        counts: dict[str, int] = defaultdict(int)
        for skipped in self.skipped:
            counts[skipped.reason] += 1
        return dict(sorted(counts.items()))


def librispeech(root: Path, parts: Sequence[str] = ()) -> dict[str, list[Item]]:
    """Read LibriSpeech's layout: ``<part>/<speaker>/<chapter>/*.trans.txt`` beside the audio.

    Args:
        root: the folder that holds the parts, under any names.
        parts: which; all folders that hold transcripts if empty.

    Raises:
        LASError: a part is missing or holds no transcripts.
    """
    _need_folder(root)
    names = list(parts) or sorted(
        p.name for p in root.iterdir() if p.is_dir() and next(p.glob("*/*/*.trans.txt"), None)
    )
    if not names:
        raise LASError(f"{root}: no LibriSpeech layout (<part>/<speaker>/<chapter>/*.trans.txt)")
    found = {}
    for name in names:
        transcripts = sorted((root / name).glob("*/*/*.trans.txt"))
        if not transcripts:
            raise LASError(f"{root / name}: no <speaker>/<chapter>/*.trans.txt below it")
        found[name] = [
            Item(id, _sibling(transcript.parent, id), text, f"{name}-{transcript.parts[-3]}")
            for transcript in transcripts
            for id, text in _lines(transcript)
        ]
    return found


def an4(root: Path) -> dict[str, list[Item]]:
    """Read AN4 as CMU ships it: ``etc/an4_{train,test}.{fileids,transcription}`` and ``wav/``.

    Raises:
        LASError: one of the lists is missing or malformed.
    """
    _need_folder(root)
    pattern = re.compile(r"^(?:<s>)?\s*(.*?)\s*(?:</s>)?\s*\((\S+)\)\s*$")
    found = {}
    for part in ("train", "test"):
        texts = {}
        for line in _read(root / "etc" / f"an4_{part}.transcription").split("\n"):
            match = pattern.match(line)
            if match:
                texts[match[2]] = match[1]
        items = []
        for fileid in _read(root / "etc" / f"an4_{part}.fileids").split():
            path = root / "wav" / fileid
            speaker = path.parent.name
            text = texts.get(path.name, "")
            items.append(Item(path.name, _sibling(path.parent, path.name), text, speaker))
        found[part] = items
    return found


def folder(source: Path) -> dict[str, list[Item]]:
    """Read a user's own data.

    Args:
        source: a CSV or JSONL file with ``audio`` and ``text`` (and, if wanted, ``id`` and
            ``speaker``), paths relative to the file; or a folder whose audio files have a
            ``.txt`` of the same name beside them, subfolders being speakers.

    Raises:
        LASError: there is nothing, or a line is malformed.
    """
    if source.suffix.lower() in (".csv", ".tsv", ".jsonl"):
        return {source.stem: list(_table(source))}
    _need_folder(source)
    items = []
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() in AUDIO_SUFFIXES:
            transcript = path.with_suffix(".txt")
            text = _read(transcript) if transcript.is_file() else ""
            relative = path.relative_to(source)
            speaker = relative.parts[0] if len(relative.parts) > 1 else relative.stem
            items.append(Item("-".join(relative.with_suffix("").parts), path, text, speaker))
    if not items:
        raise LASError(f"{source}: no audio ({' '.join(AUDIO_SUFFIXES)}) below it")
    return {source.resolve().name: items}


def split_speakers(
    items: Sequence[Item], speakers: int, seed: int = 0
) -> tuple[list[Item], list[Item]]:
    """Carve a development set out of a training set, by speaker.

    Args:
        items: the training set.
        speakers: how many speakers to move.
        seed: of the draw.

    Returns:
        what stays in training, and the development set.
    """
    names = sorted({item.speaker for item in items})
    if speakers >= len(names):
        raise LASError(f"cannot carve {speakers} speakers out of {len(names)}: use fewer")
    chosen = set(random.Random(seed).sample(names, speakers))
    return (
        [item for item in items if item.speaker not in chosen],
        [item for item in items if item.speaker in chosen],
    )


def prepare(
    part: str,
    items: Sequence[Item],
    output: Path,
    *,
    alphabet: str = ALPHABET,
    strict: bool = False,
    decode: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Prepared:
    """Check utterances and write ``<part>.jsonl.gz`` and, if any, ``<part>.skipped.jsonl``.

    Left out are: missing, unreadable and too short audio, empty text, characters outside the
    alphabet after normalisation, and repeated ids.

    Args:
        part: name of the manifest.
        items: what the corpus announces.
        output: folder for the manifests.
        alphabet: what a transcript may hold.
        strict: raise at the first utterance that would be left out.
        decode: decode every file, which finds damage beyond the header; False believes headers.
        progress: called with the number of utterances done.

    Raises:
        LASError: with ``strict``; or if nothing is left.
    """
    make_folder(output)
    result = Prepared(part, output / f"{part}.jsonl.gz")
    cuts: list[MonoCut | MultiCut] = []
    seen: set[str] = set()
    with ThreadPoolExecutor() as pool:  # the decoders run outside Python's lock
        checked = pool.map(partial(_check, alphabet=alphabet, decode=decode), items)
        for done, (item, cut) in enumerate(zip(items, checked, strict=True), start=1):
            if item.id in seen:
                cut = Skipped(item.id, str(item.path), "repeated id", "one came before")
            seen.add(item.id)
            if isinstance(cut, Skipped):
                if strict:
                    pool.shutdown(cancel_futures=True)
                    raise LASError(f"{cut.path}: {cut.reason}: {cut.detail} (utterance {cut.id})")
                result.skipped.append(cut)
            else:
                cuts.append(cut)
                result.speakers.add(item.speaker)
                result.seconds += cut.duration
            if progress is not None:
                progress(done)
    result.utterances = len(cuts)
    _write_skipped(output / f"{part}.skipped.jsonl", result.skipped)
    if not cuts:
        reasons = ", ".join(f"{n} {reason}" for reason, n in result.counts().items())
        raise LASError(f"{part}: no usable utterance among {len(items)} ({reasons or 'none'})")
    with replacing(result.manifest) as temporary:
        CutSet.from_cuts(cuts).to_file(temporary)
    return result


def _check(item: Item, alphabet: str, decode: bool) -> MonoCut | MultiCut | Skipped:
    """A usable utterance, or why it is not."""
    text = normalise(item.text)
    strange = outside(text, alphabet)
    skipped = partial(Skipped, item.id, str(item.path))
    if not text:
        return skipped("empty text", f"the transcript is {item.text!r}")
    if strange:
        return skipped("characters outside the alphabet", f"{strange!r} in {text!r}")
    if not _exists(item.path):
        return skipped("missing audio", "no such file")
    try:
        header = audio.info(item.path)
        if header.duration < audio.MIN_SECONDS:
            return skipped("too short audio", f"{header.duration:.3f} s")
        if decode:
            audio.load(item.path, header.sample_rate)
    except audio.AudioError as error:
        return skipped("unreadable audio", str(error))
    return _cut(item, text, header)


def _cut(item: Item, text: str, header: audio.AudioInfo) -> MonoCut | MultiCut:
    channels = list(range(header.channels))
    recording = Recording(
        id=item.id,
        sources=[AudioSource(type="file", channels=channels, source=str(item.path.resolve()))],
        sampling_rate=header.sample_rate,
        num_samples=header.num_samples,
        duration=header.num_samples / header.sample_rate,
        channel_ids=channels,
    )
    supervision = SupervisionSegment(
        id=item.id,
        recording_id=item.id,
        start=0.0,
        duration=recording.duration,
        channel=channels if len(channels) > 1 else 0,
        text=text,
        speaker=item.speaker,
    )
    kind = MultiCut if len(channels) > 1 else MonoCut
    return kind(
        id=item.id,
        start=0.0,
        duration=recording.duration,
        channel=supervision.channel,
        supervisions=[supervision],
        recording=recording,
    )


def _write_skipped(path: Path, skipped: Sequence[Skipped]) -> None:
    if not skipped:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(s.__dict__) + "\n" for s in skipped), "utf-8")


def _table(path: Path) -> Iterator[Item]:
    """Rows of a CSV, TSV or JSONL file."""
    read = _json_rows if path.suffix.lower() == ".jsonl" else _csv_rows
    for number, row in read(path):
        if not row.get("audio") or row.get("text") is None:
            raise LASError(f"{path}: line {number} lacks `audio` or `text`")
        relative = Path(row["audio"])
        source = path.parent / relative
        id = row.get("id") or "-".join((*relative.parent.parts, relative.stem)).lstrip("/-")
        yield Item(id, source, row["text"], row.get("speaker") or source.parent.name)


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows under a header, each with the number of its last line."""
    delimiter, name = ("\t", "tab") if path.suffix.lower() == ".tsv" else (",", "comma")
    rows = csv.DictReader(io.StringIO(_read(path)), delimiter=delimiter, strict=True)
    try:
        header = rows.fieldnames or []
        if not {"audio", "text"} <= set(header):
            raise LASError(f"{path}: the header lacks `audio` or `text`: it is {list(header)}")
        for row in rows:
            if None in row:  # a text with a comma would lose what follows it
                raise LASError(
                    f"{path}: line {rows.reader.line_num} has more fields than the header; put a "
                    f"text that holds a {name} in double quotes"
                )
            yield rows.reader.line_num, row
    except csv.Error as error:
        raise LASError(f"{path}: line {rows.reader.line_num} is malformed ({error})") from None


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Objects, each with the number of its line."""
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)
            raise LASError(f"{path}: line {number} is not JSON ({reason})") from None
        if not isinstance(row, dict):
            raise LASError(f"{path}: line {number} is not a JSON object")
        yield number, {key: str(value) for key, value in row.items() if value is not None}


def _lines(transcript: Path) -> Iterator[tuple[str, str]]:
    """``ID TEXT`` lines."""
    for line in _read(transcript).split("\n"):
        id, *text = line.split(maxsplit=1) or [""]
        if id:
            yield id, "".join(text)


def _sibling(parent: Path, stem: str) -> Path:
    """The audio file of this name, whatever its suffix; ``.flac`` if there is none."""
    paths = (parent / (stem + suffix) for suffix in AUDIO_SUFFIXES)
    return next((path for path in paths if path.exists()), parent / f"{stem}.flac")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long to be one
        return False


def _need_folder(path: Path) -> None:
    if not path.is_dir():
        raise LASError(f"{path}: {'not a folder' if path.exists() else 'no such folder'}")


def _read(path: Path) -> str:
    """A text file; its lines end in a line feed alone, whatever the file has."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise LASError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise LASError(f"{path}: cannot read ({error.strerror})") from None
