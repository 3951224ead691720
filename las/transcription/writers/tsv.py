"""A table of segments, times in milliseconds."""

from las.transcription.types import Transcription


def render(transcription: Transcription, _: bool = False) -> str:
    """The whole file."""
    rows = (
        f"{round(1000 * s.start)}\t{round(1000 * s.end)}\t{s.text.replace(chr(9), ' ')}\n"
        for s in transcription.segments
    )
    return "".join(["start\tend\ttext\n", *rows])
