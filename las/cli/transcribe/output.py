"""Where the results of ``las transcribe`` go: printed texts, or files of one or all formats."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from las import standard_streams
from las.cli.transcribe.failures import writing_failed
from las.cli.transcribe.inputs import STDIN, Source, is_many
from las.errors import LASError
from las.storage.atomic import check_folder, make_folder
from las.transcription import writers

if TYPE_CHECKING:
    from las.transcription.transcriber import Transcriber
    from las.transcription.transcript import Failure, Transcript


ALL = "all"
"""In place of a format: a file of each."""


@dataclass(frozen=True)
class Output:
    """What the options ask for."""

    formats: tuple[str, ...]  # none: texts are printed
    folder: Path | None  # None: standard output
    named: bool  # print texts after the names of their files
    word_timestamps: bool
    scores: bool  # print the n best with their scores
    verbose: bool = False  # print segments as they are ready

    @classmethod
    def from_options(
        cls,
        kind: str | None,
        folder: Path | None,
        inputs: Sequence[str],
        word_timestamps: bool,
        scores: bool,
        verbose: bool = False,
    ) -> "Output":
        """Combine the options.

        Raises:
            LASError: they contradict each other.
        """
        formats: tuple[str, ...] = ()
        if kind == ALL or (kind is None and folder is not None):
            formats = tuple(writers.FORMATS)
        elif kind is not None:
            formats = (kind,)
        if word_timestamps and "json" not in formats:
            raise LASError("--word-timestamps: only JSON has words; add --format json")
        if scores and formats:
            raise LASError("--n-best: result files have one text; leave out --format and -o")
        if scores and verbose:
            raise LASError("--n-best: segments have one text; leave out --verbose")
        if formats and folder is None and (len(formats) > 1 or list(inputs) != [STDIN]):
            folder = Path()
        named = len(inputs) > 1 or is_many(inputs[0])
        return cls(formats, folder, named, word_timestamps, scores, verbose)

    def paths(self, source: Source) -> list[Path]:
        """The results of a file, one for each format."""
        name = (self.folder or Path()) / source.name
        return [name.with_name(f"{name.name}.{kind}") for kind in self.formats]

    def make_folder(self) -> None:
        """Make the folder of the results, if there is one.

        Raises:
            LASError: it cannot be written to.
        """
        if self.folder is not None:
            check_folder(self.folder)
            make_folder(self.folder)


class ResultWriter:
    """Writes or prints transcripts, one at a time.

    Args:
        output: where to, and as what.
        transcriber: what they come from.
        attention: where to save a plot of the first transcript's attention; None saves none.
    """

    def __init__(
        self, output: Output, transcriber: "Transcriber", attention: Path | None = None
    ) -> None:
        self.output, self.transcriber, self.attention = output, transcriber, attention

    def write(self, source: Source, transcript: "Transcript") -> "Failure | None":
        """Write or print one transcript; what fails is returned if it concerns this file alone.

        Raises:
            OSError: nothing more can be written: standard output is closed, the disk is full.
        """
        from las.transcription.isolation import FILE_ERRORS
        from las.transcription.transcript import Failure

        try:
            if self.output.formats:
                self._write_formats(source, transcript)
            else:
                self._print(source, transcript)
            if self.attention is not None and transcript.chunks:
                _plot_attention(self.transcriber, transcript, self.attention)
                self.attention = None
        except (LASError, *FILE_ERRORS) as error:
            return Failure(source.path, writing_failed(source, error))
        return None

    def _write_formats(self, source: Source, transcript: "Transcript") -> None:
        from las.transcription.segments import transcription

        config, output = self.transcriber.model.config, self.output
        result = transcription(transcript, config.frontend.sample_rate, config.text.language)
        if output.folder is None:
            (kind,) = output.formats
            standard_streams.put(writers.render(result, kind, output.word_timestamps))
            return
        for kind, path in zip(output.formats, output.paths(source), strict=True):
            writers.write(result, path, kind, output.word_timestamps)

    def _print(self, source: Source, transcript: "Transcript") -> None:
        if self.output.verbose:  # it is printed already
            return
        name = [source.column] if self.output.named else []
        if not self.output.scores:
            standard_streams.put("\t".join([*name, transcript.text]) + "\n")
            return
        for chunk in transcript.chunks:
            for hypothesis in chunk.hypotheses:
                columns = [*name, f"{hypothesis.score:.3f}", hypothesis.text]
                standard_streams.put("\t".join(columns) + "\n")


def _plot_attention(transcriber: "Transcriber", transcript: "Transcript", to: Path) -> None:
    """Plot the attention of the first chunk of a file, which is decoded again for it."""
    from las.audio import reader
    from las.evaluation import plots

    frontend = transcriber.model.config.frontend
    chunk = transcript.chunks[0]
    waveform = reader.load(transcript.path, frontend.sample_rate)[chunk.start : chunk.end]
    hypothesis = transcriber.waveforms([waveform])[0]
    alignment = hypothesis.alignment.mean(1).numpy()
    plots.save(plots.attention(waveform, alignment, hypothesis.text, frontend), to)
