"""Prepares corpora: checks the audio and text of every utterance and writes manifests.

The readers of corpus layouts (:mod:`las.data.layouts`) list the utterances as :class:`Item`; they
are checked, and skipped ones counted by reason, in the same way for all layouts.
"""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from lhotse import CutSet, MonoCut, MultiCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from lhotse.cut import Cut

from las.audio import levels, reader
from las.data.layouts import an4, commonvoice, folder, librispeech
from las.data.layouts.listing import AUDIO_SUFFIXES, Item, exists
from las.errors import LASError
from las.storage.atomic import make_folder, replacing
from las.text.characters import ALPHABET, Characters, outside
from las.text.normalizer import Normalizer, check_alphabet, normalise

__all__ = [
    "AUDIO_SUFFIXES",
    "Item",
    "Prepared",
    "Skipped",
    "an4",
    "commonvoice",
    "counted",
    "folder",
    "librispeech",
    "prepare",
    "split_speakers",
]


@dataclass(frozen=True)
class Skipped:
    """An utterance that was skipped."""

    id: str
    path: str
    reason: str  # counted by this, such as "missing audio"
    detail: str


@dataclass
class Prepared:
    """The result for one part of a corpus."""

    part: str
    manifest: Path  # or the shard folder
    utterances: int = 0
    seconds: float = 0.0
    speakers: set[str] = field(default_factory=set)
    skipped: list[Skipped] = field(default_factory=list)
    unaccented: int = 0  # transcripts whose accents the normalizer removed

    def add(self, item: Item, cut: Cut | Skipped, characters: Characters, strict: bool) -> None:
        """Count an utterance.

        Raises:
            LASError: it is skipped, which ``strict`` does not allow.
        """
        if isinstance(cut, Skipped):
            if strict and not item.beside:
                raise LASError(f"{cut.path}: {cut.reason}: {cut.detail} (utterance {cut.id})")
            self.skipped.append(cut)
            return
        if characters.normalizer == "english":
            accented = normalise(item.text, "upper")
            self.unaccented += accented != characters.normalise(item.text)
        self.utterances += 1
        self.speakers.add(item.speaker)
        self.seconds += cut.duration

    def counts(self) -> dict[str, int]:
        """Number of skipped utterances, by reason."""
        counts: dict[str, int] = defaultdict(int)
        for skipped in self.skipped:
            counts[skipped.reason] += 1
        return dict(sorted(counts.items()))


def counted(count: int, what: str) -> str:
    """A number of things, in words: ``1 speaker``, ``2 speakers``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def split_speakers(
    items: Sequence[Item], speakers: int, seed: int = 0
) -> tuple[list[Item], list[Item]]:
    """Split a development set off a training set, by speaker.

    Args:
        items: the training set.
        speakers: number of speakers of the development set.
        seed: of the random choice.

    Returns:
        the rest of the training set, and the development set.

    Raises:
        LASError: there are not more speakers than that.
    """
    names = sorted({item.speaker for item in items if item.speaker and not item.beside})
    if speakers >= len(names):
        raise LASError(
            f"--dev-speakers: cannot take {counted(speakers, 'speaker')} of {len(names)}; use fewer"
        )
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
    normalizer: Normalizer = "english",
    strict: bool = False,
    decode: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Prepared:
    """Check utterances and write ``<part>.jsonl.gz`` and, if any, ``<part>.skipped.jsonl``.

    Skipped are: missing, unreadable, too short and silent audio; missing, unreadable and empty
    text; characters outside the alphabet after normalisation; repeated ids; and other files of the
    corpus. An unusable utterance does not stop the preparation.

    Args:
        part: name of the manifest.
        items: utterances of the corpus.
        output: folder for the manifests.
        alphabet: characters that a transcript may have.
        normalizer: of the transcripts.
        strict: raise at the first utterance that would be skipped; other files are still skipped.
        decode: decode every file, which finds damage after the header; False reads headers only.
        progress: called with the number of utterances done.

    Raises:
        LASError: see ``strict``; or no utterance is usable; or ``output`` is not a folder.
    """
    check_alphabet(alphabet, normalizer)
    characters = Characters(alphabet, normalizer)
    make_folder(output)
    result = Prepared(part, output / f"{part}.jsonl.gz")
    cuts: list[Cut] = []
    seen: set[str] = set()
    with closing(check_all(items, seen, characters, decode)) as checked:
        for done, (item, cut) in enumerate(checked, start=1):
            result.add(item, cut, characters, strict)
            if not isinstance(cut, Skipped):
                cuts.append(cut)
            if progress is not None:
                progress(done)
    finish(result, items, output)
    with replacing(result.manifest) as temporary:
        CutSet.from_cuts(cuts).to_file(temporary)
    return result


def check_all(
    items: Sequence[Item], seen: set[str], characters: Characters, decode: bool
) -> Generator[tuple[Item, Cut | Skipped], None, None]:
    """Check utterances, several at a time: for each its cut, or why it is skipped.

    Args:
        items: utterances of the corpus.
        seen: ids of earlier ones, to which those of these are added.
        characters: alphabet and normalizer of the transcripts.
        decode: decode every file; False reads headers only.
    """
    with ThreadPoolExecutor() as pool:  # the decoders release the GIL
        try:
            checked = pool.map(partial(_check, characters=characters, decode=decode), items)
            for item, cut in zip(items, checked, strict=True):
                if not item.beside:
                    if item.id in seen:
                        what = ("repeated id", "an earlier utterance has this id")
                        cut = Skipped(item.id, str(item.path), *what)
                    seen.add(item.id)
                yield item, cut
        finally:
            pool.shutdown(cancel_futures=True)


def finish(result: Prepared, items: Sequence[Item], output: Path) -> None:
    """List what was skipped.

    Raises:
        LASError: nothing else is left.
    """
    part = result.part
    _write_skipped(output / f"{part}.skipped.jsonl", result.skipped)
    if not result.utterances:
        reasons = ", ".join(f"{n} {reason}" for reason, n in result.counts().items())
        count = sum(not item.beside for item in items)
        raise LASError(f"{part}: no usable utterance among {count} ({reasons or 'none'})")


def _check(item: Item, characters: Characters, decode: bool) -> Cut | Skipped:
    """The cut of an utterance, or why it is skipped."""
    skipped = partial(Skipped, item.id, str(item.path))
    if item.flaw is not None:
        return skipped(*item.flaw)
    text = characters.normalise(item.text)
    strange = outside(text, characters.alphabet)
    if not text:
        return skipped("empty text", f"the transcript is {item.text!r}")
    if strange:
        return skipped("characters outside the alphabet", f"{strange!r} in {text!r}")
    if not exists(item.path):
        return skipped("missing audio", "no such file")
    try:
        header = reader.info(item.path)
        if header.duration < reader.MIN_SECONDS:
            return skipped("too short audio", f"{header.duration:.3f} s")
        if decode:
            samples = reader.load(item.path, header.sample_rate)
            if levels.silent(samples, header.sample_rate):
                return skipped("silent audio", "its level is below -70 dB of full scale throughout")
            # The decoded length counts: headers of compressed audio are not exact.
            header = replace(header, num_samples=len(samples))
        cut = _cut(item, text, header)
        json.dumps(cut.to_dict(), ensure_ascii=False).encode()
    except reader.AudioError as error:
        return skipped("unreadable audio", str(error))
    except UnicodeEncodeError:
        return skipped("name that is not UTF-8", "manifests cannot hold it; rename it")
    except Exception as error:  # libraries raise various types
        reason = " ".join(str(error).split())
        return skipped("unreadable audio", f"{type(error).__name__}: {reason}")
    return cut


def _cut(item: Item, text: str, header: reader.AudioInfo) -> MonoCut | MultiCut:
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
