"""Signs that a text may be wrong, in words: loops, skips, flat attention, doubt, disagreement."""

from collections.abc import Sequence

import jiwer

from las.explain.types import Alternative, Character
from las.transcription.stitching import MAX_BACK, MAX_SKIPPED
from las.transcription.transcriber import Decoded
from las.transcription.types import Word

_UNSURE = 0.5  # probability of a word below which it is named
_FLAT_SECONDS = 0.5  # width of attention from which a character was not heard in one place
_DISAGREE = 0.3  # share of characters by which the two heads may differ


def signs(
    window: Decoded,
    characters: Sequence[Character],
    words: Sequence[Word],
    alternatives: Sequence[Alternative],
) -> list[str]:
    """What makes this window doubtful, each in a sentence."""
    judgement, found = window.judgement, []
    if not judgement.finished:
        found.append("The limit of steps cut the text off: the speller did not find an end.")
    elif judgement.looped:
        found.append("The text repeats itself: the speller probably went round in a loop.")
    if judgement.skipped > MAX_SKIPPED:
        found.append(
            f"Nothing was written for {judgement.skipped:.1f} s of sound in a row: the speller "
            "stopped early or skipped something, or it is no speech."
        )
    if judgement.back > MAX_BACK:
        found.append(f"Attention went back by {judgement.back:.1f} s: something may be said twice.")
    flat = [c for c in characters if c.text.strip() and c.width > _FLAT_SECONDS]
    if flat and window.hypotheses[0].alignment.shape[-1] > 1:
        share = len(flat) / max(1, sum(bool(c.text.strip()) for c in characters))
        found.append(
            f"Attention of {len(flat)} character{'s' * (len(flat) > 1)} ({share:.0%}) is spread "
            f"over more than {_FLAT_SECONDS:g} s: no one place in the sound speaks for them."
        )
    unsure = [word for word in words if word.probability < _UNSURE]
    if unsure:
        named = ", ".join(f"{word.word} ({word.probability:.0%})" for word in unsure[:8])
        more = f" and {len(unsure) - 8} more" if len(unsure) > 8 else ""
        found.append(f"The model is not sure of {named}{more}.")
    if alternatives and not alternatives[0].chosen:
        found.append(
            f"A wider search finds a likelier text: \u201c{alternatives[0].text}\u201d. "
            "Try --beam 8."
        )
    return found


def disagreement(text: str, ctc: str) -> list[str]:
    """Whether the two heads of the model heard different things."""
    differ = jiwer.cer(text, ctc) if text and ctc else float(text != ctc)
    if differ <= _DISAGREE:
        return []
    heard = f"\u201c{ctc}\u201d" if ctc else "nothing"
    return [f"The CTC head, which hears without attention, hears something else: {heard}."]
