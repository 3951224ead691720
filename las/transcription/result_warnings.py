"""What a user should know of a transcript: nothing was decoded, or a likely hallucination."""

import math

import numpy as np

from las.decoding.hypothesis import Hypothesis

_LOUD_DB = 30.0  # a peak that much above silence is no quiet recording

_MAX_DISAGREEMENT = 0.55
"""Share of characters in which attention and CTC may differ before the text is doubted.

The bundled model's differ in 0.66 to 1.0 of the music, sweeps and bursts of noise that it takes
for speech, and in at most 0.51 of 120 utterances of four corpora.
"""


def nothing_decoded(peak: float, silent_dbfs: float) -> str:
    """Why nothing was decoded.

    Args:
        peak: highest amplitude of the file.
        silent_dbfs: level below which audio is silence.
    """
    if peak == 0.0:
        return "it is silent: all of its samples are 0"
    loudest = 20 * math.log10(peak)
    if loudest > silent_dbfs + _LOUD_DB:
        return "no speech was found in it: its sound is steady, or short clicks"
    return (
        f"it is too quiet to be heard: its peak is at {loudest:.0f} dB of full scale; amplify it "
        "if somebody speaks"
    )


def disagreement(best: Hypothesis) -> np.ndarray:
    """[2]: characters in which the attention and CTC outputs differ, and characters in all.

    The first is 0 where the CTC head was not asked.
    """
    import jiwer

    if not best.ctc or not best.text:
        return np.array([len(best.text) * (best.ctc == ""), len(best.text)], float)
    found = jiwer.process_characters(best.text, best.ctc)
    differ = found.substitutions + found.deletions + found.insertions
    return np.array([differ, len(best.text)], float)


def hallucination_warning(disagreement: np.ndarray) -> str | None:
    """A warning of a likely hallucination, by the sum of its chunks' :func:`disagreement` [2]."""
    differ, characters = disagreement.tolist()
    if differ <= _MAX_DISAGREEMENT * characters:
        return None
    return (
        "its text may be made up: the attention and CTC outputs agree on "
        f"{max(0.0, 1 - differ / characters):.0%} of it, as where nobody speaks"
    )
