"""Plain text: a segment a line."""

from las.transcription.types import Transcription


def render(transcription: Transcription, _: bool = False) -> str:
    """The whole file."""
    return "".join(f"{segment.text}\n" for segment in transcription.segments)
