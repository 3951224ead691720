"""Segments with their times, printed as soon as their chunk is decoded."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from las import standard_streams
from las.cli.transcribe.inputs import Source
from las.cli.transcribe.output import Output

if TYPE_CHECKING:
    from las.transcription.segments import SegmentMaker
    from las.transcription.transcript import ChunkTranscript


class SegmentPrinter:
    """Prints ``[00:00.000 --> 00:02.500]  TEXT``, after the name of the file if there are several.

    Args:
        output: what the options ask for.
        rate: of the model, in Hz.
        sources: the files by the paths that they are read from.
    """

    def __init__(self, output: Output, rate: int, sources: Mapping[Path, Source]) -> None:
        self.output, self.rate, self.sources = output, rate, sources
        self._makers: dict[Path, SegmentMaker] = {}
        self._last: dict[Path, int] = {}  # where the last chunk started

    def ready(self, path: Path, chunk: "ChunkTranscript", samples: int) -> None:
        """Print a chunk that is final, of a file of which so many samples are read."""
        from las.transcription.segments import SegmentMaker
        from las.transcription.writers.subtitles import timestamp

        if chunk.start <= self._last.get(path, math.inf):  # the first, or it is decoded again
            self._makers[path] = SegmentMaker(self.rate)
        self._last[path] = chunk.start
        name = f"{self.sources[path].column}\t" if self.output.named else ""
        for segment in self._makers[path].of(chunk, samples / self.rate):
            start, end = (timestamp(t, hours=False) for t in (segment.start, segment.end))
            line = f"{name}[{start} --> {end}]  {segment.text}"
            if self.output.formats and self.output.folder is None:
                standard_streams.complain(line)
            else:
                standard_streams.put(line + "\n")
