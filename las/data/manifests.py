"""Reads and checks the manifests of `las prepare`, and filters them for training."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lhotse import CutSet
from lhotse.cut import Cut

from las.config import DataConfig
from las.errors import LASError
from las.text.characters import Characters, outside
from las.text.characters import ctc_frames as frames_needed


def read_manifest(path: str | Path) -> CutSet:
    """Open a manifest, which is then read lazily.

    Raises:
        LASError: the file is missing or not a manifest of cuts with one transcript each.
    """
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
        if (
            not isinstance(cut, Cut)
            or len(cut.supervisions) != 1
            or not isinstance(cut.supervisions[0].text, str)
        ):
            raise LASError(f"{origin}: not a manifest of utterances; `las prepare` makes one")
        yield cut


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class Trainable(NamedTuple):
    """The utterances that can be trained on, and how many were left out."""

    cuts: CutSet
    size: int
    too_long: int  # over data.max_seconds
    too_many_characters: int  # with more characters than CTC has frames


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
    fastest = max(config.speeds)
    long, count, dense = 0, 0, set()
    for cut in cuts:
        if cut.duration > config.max_seconds:
            long += 1
        elif frames_needed(text.encode(cut.supervisions[0].text)) > ctc_frames(
            cut.duration / fastest
        ):
            dense.add(cut.id)
        else:
            count += 1
    if len(dense) > 0.01 * (count + len(dense)):
        raise LASError(
            f"{config.train}: {len(dense)} of {count + len(dense)} utterances have more "
            f"characters than CTC has frames at the speed {fastest:g}, such as {min(dense)}; use a "
            "smaller listener.reduction or slower data.speeds, or check the transcripts"
        )
    if not count:
        raise LASError(f"{config.train}: no utterance is left to train on")
    kept = cuts.filter(partial(_kept, longest=config.max_seconds, dense=dense))
    return Trainable(kept, count, long, len(dense))


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
