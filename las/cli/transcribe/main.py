"""The command ``las transcribe``: its options, and the way of files through it.

    find inputs -> plan -> transcribe -> write

Each step is a module of this folder; ``progress`` is told of what they give.
"""

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from las.cli.interrupts import exit_status, sigterm_interrupts
from las.cli.loading import load_exported, load_model, search_settings
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
    choices,
    one_of,
)
from las.cli.transcribe.inputs import readable
from las.cli.transcribe.output import ALL, Output, ResultWriter
from las.cli.transcribe.plan import Plan, make_plan
from las.cli.transcribe.progress import Progress
from las.cli.transcribe.recognition import recognise
from las.cli.transcribe.verbose import SegmentPrinter
from las.errors import LASError
from las.imports import frozen_imports
from las.storage.atomic import check_file
from las.transcription.writers import FORMATS

if TYPE_CHECKING:
    from las.transcription.transcriber import Transcriber

_FORMATS = (*FORMATS, ALL)


def transcribe(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Audio files, folders (with subfolders), globs in quotes such as "
            "'calls/**/*.wav', or - (stdin).",
        ),
    ],
    model: Annotated[
        Path | None, typer.Option(help="Model folder. Default: the bundled model.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            metavar=choices(_FORMATS),
            callback=one_of(_FORMATS),
            help="Format of the result files, one for each input. Without --format and "
            "--output-dir, texts are printed. With stdin as the only input, one format is printed.",
        ),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir",
            "-o",
            help="Folder for the result files. Default: the current folder. Without --format it "
            "means --format all.",
        ),
    ] = None,
    word_timestamps: Annotated[
        bool,
        typer.Option("--word-timestamps", help="Add words with times and probabilities to JSON."),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            help="Print segments with their times as soon as they are ready; on standard error "
            "where a result is printed.",
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip inputs whose results exist.")
    ] = False,
    device: DeviceOption = Device.AUTO,
    threads: ThreadsOption = 0,
    precision: PrecisionOption = Precision.AUTO,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Maximum number of audio chunks to decode at once; never more than a minute.",
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
            min=1,
            help="Print up to so many texts for each file (each chunk of long audio), with scores.",
        ),
    ] = None,
    search: SearchOption = None,
    greedy: GreedyOption = False,
    attention: Annotated[
        Path | None, typer.Option(help="Save a plot of the first file's attention.")
    ] = None,
) -> None:
    """Transcribe audio: print the text, or write text, subtitles, tables or JSON.

    Result files have the formats of openai/whisper and the names of the
    inputs. Inputs from a folder or a glob keep their subfolders. Two inputs
    with the same result file are refused. Existing results are replaced, or
    skipped with --resume.

    WAV from stdin is transcribed while it arrives.

    A file that cannot be transcribed is reported on standard error; the
    others are still transcribed, and the exit status is 1. After an
    interrupt (status 130, or 143 after SIGTERM), finished results are
    complete.
    """
    output = Output.from_options(
        kind, output_dir, inputs, word_timestamps, n_best is not None, verbose
    )
    if attention is not None:
        from las.evaluation import plots

        plots.kind_of(attention)
        check_file(attention)
    if resume and output.folder is None:
        raise LASError("--resume: no result files are written; add --format or -o")
    for stream in (sys.stdout, sys.stderr):  # names of files may be any bytes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")

    bar = (output.folder is not None or not sys.stdout.isatty()) and not verbose
    with Progress(bar) as progress, sigterm_interrupts():
        try:
            plan = make_plan(inputs, output, resume)
            output.make_folder()
            progress.planned(plan)
            if plan.pending:
                with frozen_imports():
                    from las.config import SearchConfig
                    from las.model.folder import bundled
                    from las.storage.exported import is_exported
                    from las.transcription import confidence
                    from las.transcription.transcriber import Transcriber

                folder = model or bundled()
                if is_exported(folder):
                    asked = {
                        "--beam": beam not in (None, 1),
                        "--ctc": bool(ctc),
                        "--lm": lm is not None,
                        "--lm-weight": lm_weight is not None,
                        "--words": words is not None,
                        "--n-best": n_best not in (None, 1),
                        "--search": bool(search),
                        "--device": device == Device.CUDA,
                        "--precision": precision == Precision.BFLOAT16,
                    }
                    las, torch_device = load_exported(folder, threads, asked)
                    config, language_model = SearchConfig(), None
                else:
                    las, torch_device = load_model(folder, device, threads, precision)
                    options = {"beam": beam, "ctc": ctc, "lm_weight": lm_weight, "n_best": n_best}
                    config, language_model = search_settings(
                        las, torch_device, folder, lm, search, words=words, greedy=greedy, **options
                    )
                # Words are timed before long audio drops its alignments.
                timer = confidence.timer(folder) if output.formats or verbose else None
                transcriber = Transcriber(las, torch_device, config, language_model, timer=timer)
                writer = ResultWriter(output, transcriber, attention)
                _run(plan, transcriber, writer, batch_size, progress)
        except KeyboardInterrupt as interrupt:
            progress.interrupted(resumable=output.folder is not None)
            raise typer.Exit(exit_status(interrupt)) from None
    if output.folder is not None or progress.files > 1:
        progress.finished()
    if progress.failed:
        raise typer.Exit(1)


def _run(
    plan: Plan,
    transcriber: "Transcriber",
    writer: ResultWriter,
    batch_size: int | None,
    progress: Progress,
) -> None:
    """Transcribe and write one file after another."""
    from las.transcription.transcript import Failure

    with readable(plan.pending) as paths:
        progress.started()
        ready = None
        if writer.output.verbose:
            named = dict(zip(paths, plan.pending, strict=True))
            ready = SegmentPrinter(writer.output, transcriber.rate, named).ready
        results = recognise(transcriber, plan.pending, paths, batch_size, progress.audio, ready)
        for source, result in results:
            progress.recognised(source, result)
            if not isinstance(result, Failure):
                progress.written(writer.write(source, result))
