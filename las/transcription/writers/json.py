"""JSON: text, segments and, if asked for, words with times and probabilities."""

import json

from las.transcription.types import Transcription


def render(transcription: Transcription, word_timestamps: bool = False) -> str:
    """The whole file, one line."""
    whole = transcription.to_dict(word_timestamps)
    return json.dumps(whole, ensure_ascii=False, allow_nan=False) + "\n"
