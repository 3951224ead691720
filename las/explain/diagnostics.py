"""Warnings that a text may be wrong: loops, gaps, flat attention, doubt, disagreement."""

from collections.abc import Sequence

import jiwer

from las.explain.types import Alternative, Character
from las.transcription.quality import MAX_BACKWARD_SECONDS, MAX_UNTRANSCRIBED_SECONDS
from las.transcription.transcript import ChunkTranscript
from las.transcription.types import Word

_UNSURE = 0.5  # probability of a word below which it is named
_FLAT_SECONDS = 0.5  # width of attention from which it is called flat
_DISAGREE = 0.3  # share of characters by which the attention and CTC outputs may differ


def warnings(
    chunk: ChunkTranscript,
    characters: Sequence[Character],
    words: Sequence[Word],
    alternatives: Sequence[Alternative],
) -> list[str]:
    """Why the text of a chunk may be wrong, a sentence for each reason."""
    quality, found = chunk.quality, []
    if not quality.finished:
        found.append("The limit of steps cut the text off: the speller did not find an end.")
    elif quality.looped:
        found.append("The text repeats itself: the speller probably looped.")
    if quality.untranscribed_seconds > MAX_UNTRANSCRIBED_SECONDS:
        found.append(
            f"There is no text for {quality.untranscribed_seconds:.1f} s of sound in a row: the "
            "speller stopped early or skipped something, or it is no speech."
        )
    if quality.backward_seconds > MAX_BACKWARD_SECONDS:
        found.append(
            f"Attention went back by {quality.backward_seconds:.1f} s: words may be repeated."
        )
    flat = [c for c in characters if c.text.strip() and c.width > _FLAT_SECONDS]
    if flat and chunk.hypotheses[0].alignment.shape[-1] > 1:
        share = len(flat) / max(1, sum(bool(c.text.strip()) for c in characters))
        found.append(
            f"Attention of {len(flat)} character{'s' * (len(flat) > 1)} ({share:.0%}) is spread "
            f"over more than {_FLAT_SECONDS:g} s: they are not aligned with one place in the sound."
        )
    unsure = [word for word in words if word.probability < _UNSURE]
    if unsure:
        named = ", ".join(f"{word.word} ({word.probability:.0%})" for word in unsure[:8])
        more = f" and {len(unsure) - 8} more" if len(unsure) > 8 else ""
        found.append(f"The model is not sure of {named}{more}.")
    if alternatives and not alternatives[0].chosen:
        found.append(
            f"A wider search finds a more likely text: \u201c{alternatives[0].text}\u201d. "
            "Try --beam 8."
        )
    return found


def disagreement(text: str, ctc: str) -> list[str]:
    """A warning if the attention and CTC outputs are different texts."""
    differ = jiwer.cer(text, ctc) if text and ctc else float(text != ctc)
    if differ <= _DISAGREE:
        return []
    other = f"\u201c{ctc}\u201d" if ctc else "nothing"
    return [f"The CTC head, which has no attention, recognises something else: {other}."]
