"""SubRip subtitles."""

from las.transcription.types import Transcription
from las.transcription.writers.subtitles import lines, timestamp


def render(transcription: Transcription, _: bool = False) -> str:
    """The whole file."""
    return "".join(
        f"{number}\n{timestamp(s.start, mark=',')} --> {timestamp(s.end, mark=',')}\n"
        f"{lines(s.text)}\n\n"
        for number, s in enumerate(transcription.segments, start=1)
    )
