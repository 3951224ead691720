"""Reads and checks the manifests of `las prepare`, and filters them for training."""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lhotse import CutSet
from lhotse.cut import Cut

from las.config import DataConfig
from las.data.shards.files import SUFFIX
from las.errors import LASError
from las.text.characters import Characters, outside
from las.text.characters import ctc_frames as frames_needed

if TYPE_CHECKING:
    from las.data.shards.reader import ShardSet


def read_manifest(path: str | Path) -> CutSet:
    """Open a manifest, which is then read lazily.

    Raises:
        LASError: the file is missing or not a manifest of cuts with one transcript each.
    """
    if str(path).rstrip("/").endswith(SUFFIX):
        raise LASError(f"{path}: shards, not a manifest; only data.train may be shards")
    if not path or not Path(path).is_file():
        if not path:
            raise LASError("data.train is not set: add data.train=MANIFEST, made by `las prepare`")
        raise LASError(f"{path}: no such manifest; `las prepare` makes one")
    cuts = CutSet.from_jsonl_lazy(path)
    if next(_utterances(cuts, path), None) is None:
        raise LASError(f"{path}: the manifest is empty")
    return cuts


def _utterances(cuts: CutSet, origin: str | Path) -> Iterator[Cut]:
    """The cuts of a manifest, each checked to be an utterance with a transcript."""
    iterator = iter(cuts)
    while True:
        try:
            cut = next(iterator)
        except StopIteration:
            return
        except Exception as error:  # various types, for another or a damaged file
            raise LASError(
                f"{origin}: not a manifest or damaged ({type(error).__name__}: {_line(error)}); "
                "`las prepare` makes one"
            ) from None
        check_cut(cut, origin)
        yield cut


def check_cut(cut: object, origin: str | Path) -> None:
    """Check that a line of a manifest is an utterance with a transcript.

    Raises:
        LASError: it is not.
    """
    if (
        not isinstance(cut, Cut)
        or len(cut.supervisions) != 1
        or not isinstance(cut.supervisions[0].text, str)
    ):
        raise LASError(f"{origin}: not a manifest of utterances; `las prepare` makes one")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class Trainable(NamedTuple):
    """The utterances that can be trained on, and how many were left out."""

    cuts: "CutSet | ShardSet"
    size: int  # utterances of an epoch
    too_long: int  # over data.max_seconds
    too_many_characters: int  # with more characters than CTC has frames
    longest: float  # seconds


def trainable(
    cuts: CutSet, text: Characters, config: DataConfig, ctc_frames: Callable[[float], int]
) -> Trainable:
    """Leave out utterances that are too long, or that CTC cannot align at the fastest speed.

    Args:
        cuts: a manifest.
        text: the alphabet.
        config: longest duration and speeds.
        ctc_frames: number of frames of the CTC head for seconds of audio.

    Raises:
        LASError: no utterance is left, or more than 1 % cannot be aligned.
    """
    long, count, longest, dense = 0, 0, 0.0, set()
    for cut in cuts:
        if cut.duration > config.max_seconds:
            long += 1
        elif too_dense(cut, text, config, ctc_frames):
            dense.add(cut.id)
        else:
            count += 1
            longest = max(longest, cut.duration)
    refuse_dense(dense, count + len(dense), str(config.train), config)
    if not count:
        raise LASError(f"{config.train}: no utterance is left to train on")
    kept = cuts.filter(partial(_kept, longest=config.max_seconds, dense=dense))
    return Trainable(kept, count, long, len(dense), longest)


def too_dense(
    cut: Cut, text: Characters, config: DataConfig, ctc_frames: Callable[[float], int]
) -> bool:
    """Whether CTC cannot align an utterance at the fastest speed; see :func:`trainable`.

    Raises:
        LASError: a character is not in the alphabet.
    """
    frames = ctc_frames(cut.duration / max(config.speeds))
    return frames_needed(text.encode(cut.supervisions[0].text)) > frames


def refuse_dense(dense: Collection[str], count: int, origin: str, config: DataConfig) -> None:
    """Refuse a training set of which CTC cannot align more than 1 %.

    Args:
        dense: ids of the utterances that it cannot align.
        count: number of all utterances that were looked at.
        origin: of the training set.
        config: the speeds.

    Raises:
        LASError: it is more than 1 %.
    """
    if len(dense) > 0.01 * count:
        raise LASError(
            f"{origin}: {len(dense)} of {count} utterances have more characters than CTC has "
            f"frames at the speed {max(config.speeds):g}, such as {min(dense)}; use a smaller "
            "listener.reduction or slower data.speeds, or check the transcripts"
        )


def _kept(cut: Cut, longest: float, dense: set[str]) -> bool:
    return cut.duration <= longest and cut.id not in dense


def check_alphabet(cuts: CutSet, text: Characters, origin: str) -> None:
    """Check that all transcripts of a manifest are in the alphabet of a model.

    Raises:
        LASError: a transcript is not, or a line is damaged.
    """
    for cut in _utterances(cuts, origin):
        strange = outside(cut.supervisions[0].text, text.alphabet)
        if strange:
            raise LASError(
                f"{origin}: utterance {cut.id} has characters {strange!r} outside the alphabet "
                f"{text.alphabet!r}; prepare the data with the same alphabet"
            )
