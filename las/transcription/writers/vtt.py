"""WebVTT subtitles."""

from las.transcription.types import Transcription
from las.transcription.writers.subtitles import lines, timestamp


def render(transcription: Transcription, _: bool = False) -> str:
    """The whole file."""
    cues = (
        f"{timestamp(s.start, hours=False)} --> {timestamp(s.end, hours=False)}\n{lines(s.text)}\n"
        for s in transcription.segments
    )
    return "\n".join(["WEBVTT\n", *cues])
