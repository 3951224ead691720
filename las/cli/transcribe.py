"""The command ``las transcribe``: what it is given, what it writes, and what it says."""

import errno
import io
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from las import standard
from las.cli.audio_paths import STDIN, Source, check_names, find, is_many, read_stdin
from las.cli.options import (
    BeamOption,
    CTCOption,
    Device,
    DeviceOption,
    GreedyOption,
    LMOption,
    LMWeightOption,
    Precision,
    PrecisionOption,
    SearchOption,
    ThreadsOption,
    WordsOption,
    search_settings,
)
from las.cli.progress import OF_A_FILE, Report, transcripts
from las.errors import LASError
from las.imports import lasting
from las.storage.atomic import check_file, check_folder, make_folder

if TYPE_CHECKING:
    from las.transcription.transcriber import Transcriber, Transcript


class FormatChoice(StrEnum):
    """What to write."""

    TXT = "txt"
    SRT = "srt"
    VTT = "vtt"
    TSV = "tsv"
    JSON = "json"
    ALL = "all"


def transcribe(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Audio files, folders (with all below them), patterns in quotes such as "
            "'calls/**/*.wav', or - for standard input.",
        ),
    ],
    model: Annotated[Path | None, typer.Option(help="Model folder; default: the bundled.")] = None,
    kind: Annotated[
        FormatChoice | None,
        typer.Option(
            "--format",
            "-f",
            help="Write a file for each input. Without it and --output-dir, texts are printed; "
            "and so is one format of standard input alone.",
        ),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir", "-o", help="Where to; default: here. Alone, it means --format all."
        ),
    ] = None,
    word_timestamps: Annotated[
        bool,
        typer.Option("--word-timestamps", help="Put words with times and probabilities in JSON."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Pass over inputs whose results are all there.")
    ] = False,
    device: DeviceOption = Device.AUTO,
    threads: ThreadsOption = 0,
    precision: PrecisionOption = Precision.AUTO,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Pieces of audio to decode at once, at most; never more than a minute of them.",
        ),
    ] = None,
    beam: BeamOption = None,
    ctc: CTCOption = None,
    lm: LMOption = None,
    lm_weight: LMWeightOption = None,
    words: WordsOption = None,
    n_best: Annotated[
        int | None,
        typer.Option(
            min=1, help="Print up to so many texts a file, or piece of it, each after its score."
        ),
    ] = None,
    search: SearchOption = None,
    greedy: GreedyOption = False,
    attention: Annotated[
        Path | None, typer.Option(help="Save a picture of the first file's attention.")
    ] = None,
) -> None:
    """Transcribe audio: print its text, or write text, subtitles, tables or JSON.

    Files are written as openai/whisper's, under the names of the inputs.
    Inputs from a folder or a pattern keep their folders.
    Two inputs that would be written to one file are refused; files of an
    earlier run are replaced, or passed over with --resume.

    A file that cannot be transcribed is one line on standard error; the
    others go on, and the exit status is 1. After an interrupt (status 130,
    or 143 by SIGTERM), what is finished is there and whole.
    """
    output = Output.of(kind, output_dir, inputs, word_timestamps, n_best is not None)
    if attention is not None:
        from las.evaluation import plots

        plots.kind_of(attention)
        check_file(attention)
    if resume and output.folder is None:
        raise LASError("--resume: no files are written to resume from; add --format or -o")
    for stream in (sys.stdout, sys.stderr):  # names of files may be any bytes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")

    with Report(bar=output.folder is not None or not sys.stdout.isatty()) as report, _ending():
        try:
            due = _due(inputs, output, resume, report)
            if due:
                with lasting():
                    from las.model.folder import bundled
                    from las.model.las import LAS
                    from las.runtime import choose_device, choose_threads, inference_precision
                    from las.transcription import confidence
                    from las.transcription.transcriber import Transcriber

                choose_threads(threads)
                place = choose_device(device.value)
                folder = model or bundled()
                las = LAS.from_pretrained(folder, place)
                las.precision = inference_precision(precision.value)
                options = {"beam": beam, "ctc": ctc, "lm_weight": lm_weight, "n_best": n_best}
                config, language_model = search_settings(
                    las, place, folder, lm, search, words=words, greedy=greedy, **options
                )
                # The words are wanted before long audio drops its alignments.
                timer = confidence.timer(folder) if output.formats else None
                transcriber = Transcriber(las, place, config, language_model, timer=timer)
                _run(transcriber, due, output, batch_size, report, attention)
        except KeyboardInterrupt as interrupt:
            cure = "; --resume goes on with the others" if output.folder is not None else ""
            report.say(f"interrupted: {report.done} of {report.files} files are done{cure}")
            number = signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT
            raise typer.Exit(128 + number) from None
    if output.folder is not None or report.files > 1:
        report.say(report.summary())
    if report.failed:
        raise typer.Exit(1)


class _Terminated(KeyboardInterrupt):
    """SIGTERM has come."""


@contextmanager
def _ending() -> Iterator[None]:
    """Let SIGTERM end what is being done as an interrupt does: cleanly."""

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class Output:
    """Where results go, and as what."""

    formats: tuple[str, ...]  # none: texts
    folder: Path | None  # None: standard output
    named: bool  # print texts after the names of their files
    word_timestamps: bool
    scores: bool  # print the n best with their scores

    @classmethod
    def of(
        cls,
        kind: FormatChoice | None,
        folder: Path | None,
        inputs: Sequence[str],
        word_timestamps: bool,
        scores: bool,
    ) -> "Output":
        """What the options ask for.

        Raises:
            LASError: they contradict each other.
        """
        formats: tuple[str, ...] = ()
        if kind is FormatChoice.ALL or (kind is None and folder is not None):
            formats = tuple(choice.value for choice in FormatChoice if choice != FormatChoice.ALL)
        elif kind is not None:
            formats = (kind.value,)
        if word_timestamps and "json" not in formats:
            raise LASError("--word-timestamps: only JSON holds words; add --format json")
        if scores and formats:
            raise LASError("--n-best: only printed texts can be several; leave out --format and -o")
        if formats and folder is None and (len(formats) > 1 or list(inputs) != [STDIN]):
            folder = Path()
        named = len(inputs) > 1 or is_many(inputs[0])
        return cls(formats, folder, named, word_timestamps, scores)

    def paths(self, source: Source) -> list[Path]:
        """The files that an input gives."""
        name = (self.folder or Path()) / source.name
        return [name.with_name(f"{name.name}.{kind}") for kind in self.formats]

    def exists(self, source: Source) -> bool:
        """Whether all of them are there."""
        with suppress(OSError):  # a name too long to be there
            return all(path.is_file() for path in self.paths(source))
        return False

    def prepare(self, sources: Sequence[Source]) -> None:
        """Make the folder.

        Raises:
            LASError: it cannot be written to, or two inputs would have the same file.
        """
        check_names(sources)
        assert self.folder is not None
        check_folder(self.folder)
        make_folder(self.folder)

    def put(self, transcript: "Transcript", source: Source, rate: int, language: str) -> None:
        """Write or print one result."""
        if not self.formats:
            self._print(transcript, source)
            return
        from las.transcription import writers
        from las.transcription.segments import transcription

        result = transcription(transcript, rate, language)
        if self.folder is None:
            (kind,) = self.formats
            standard.put(writers.render(result, kind, self.word_timestamps))
            return
        for kind, path in zip(self.formats, self.paths(source), strict=True):
            writers.write(result, path, kind, self.word_timestamps)

    def _print(self, transcript: "Transcript", source: Source) -> None:
        name = [source.column] if self.named else []
        if not self.scores:
            standard.put("\t".join([*name, transcript.text]) + "\n")
            return
        for window in transcript.windows:
            for hypothesis in window.hypotheses:
                columns = [*name, f"{hypothesis.score:.3f}", hypothesis.text]
                standard.put("\t".join(columns) + "\n")


def _due(inputs: Sequence[str], output: Output, resume: bool, report: Report) -> list[Source]:
    """What there is to do; says what gives nothing, and makes the output's folder."""
    notes: list[str] = []
    found = list(find(inputs, notes.append))
    report.expect(len(found))
    sources = [source for source in found if isinstance(source, Source)]
    if output.folder is not None:
        output.prepare(sources)
    for note in notes:
        report.say(note)
    for problem in found:
        if isinstance(problem, LASError):
            report.error(str(problem))
    due = [source for source in sources if not (resume and output.exists(source))]
    report.skip(len(sources) - len(due))
    return due


def _run(
    transcriber: "Transcriber",
    sources: Sequence[Source],
    output: Output,
    batch_size: int | None,
    report: Report,
    attention: Path | None,
) -> None:
    """Transcribe all, and put each where it belongs as soon as it is done."""
    from las.transcription.transcriber import Failure

    settings = transcriber.model.config
    rate, language = settings.frontend.sample_rate, settings.text.language
    with ExitStack() as stack:
        paths = []
        for source in sources:
            piped = source.path == Path(STDIN)
            paths.append(stack.enter_context(read_stdin(sys.stdin)) if piped else source.path)
        report.begin()
        results = transcripts(transcriber, paths, batch_size, report)
        for source, path, result in zip(sources, paths, results, strict=True):
            if isinstance(result, Failure):
                report.error(result.reason.replace(str(path), source.shown))
                continue
            for note in result.notes:
                report.say(f"warning: {source.column}: {note}")
            try:
                output.put(result, source, rate, language)
                if attention is not None and result.windows:
                    _picture(transcriber, path, result, attention)
                    attention = None
            except (LASError, *OF_A_FILE) as error:
                report.error(_failed(error, source))
                continue
            report.finished()


def _failed(error: Exception, source: Source) -> str:
    """Why a result was not written, if that is a matter of this file alone.

    Raises:
        OSError: the others would fail as well: standard output is closed, the disk is full.
    """
    if isinstance(error, LASError):
        return str(error)
    if isinstance(error, OSError):
        if error.filename is None or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise error
        return f"{error.filename}: {error.strerror}"
    reason = " ".join(str(error).split())
    return f"{source.shown}: cannot be written ({type(error).__name__}: {reason})"


def _picture(transcriber: "Transcriber", path: Path, transcript: "Transcript", to: Path) -> None:
    """Draw the attention of the first window of a file, which is decoded again for it."""
    from las.audio import reader
    from las.evaluation import plots

    frontend = transcriber.model.config.frontend
    window = transcript.windows[0]
    waveform = reader.load(path, frontend.sample_rate)[window.start : window.end]
    hypothesis = transcriber.waveforms([waveform])[0]
    alignment = hypothesis.alignment.mean(1).numpy()
    plots.save(plots.attention(waveform, alignment, hypothesis.text, frontend), to)
