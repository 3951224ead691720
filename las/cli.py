"""The command ``las``. It parses and prints; the work is done elsewhere.

Heavy modules are imported by the commands that need them, so that ``las --help`` is quick.
"""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from las import __version__, standard
from las.calibrate_cli import calibrate
from las.compare_cli import compare
from las.errors import LASError
from las.explain_cli import explain
from las.imports import lasting
from las.lm_cli import app as lm_app
from las.search_options import (
    BeamOption,
    CTCOption,
    Device,
    DeviceOption,
    GreedyOption,
    LMOption,
    LMWeightOption,
    NormalizerOption,
    Normalizers,
    Precision,
    PrecisionOption,
    SearchOption,
    ThreadsOption,
    WordsOption,
    search_settings,
)
from las.text import ALPHABET, check_alphabet
from las.threads import of_environment as threads_of_environment
from las.transcribe_cli import transcribe
from las.tune_cli import tune

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Listen, Attend and Spell: train, score and use an attention speech recogniser.",
)
app.add_typer(lm_app, name="lm")
app.command()(compare)
app.command()(tune)
app.command()(calibrate)
app.command()(transcribe)
app.command()(explain)


class Corpus(StrEnum):
    """Layouts that ``las prepare`` reads."""

    LIBRISPEECH = "librispeech"
    AN4 = "an4"
    COMMONVOICE = "commonvoice"
    FOLDER = "folder"


def main() -> None:
    """Run the command; a :class:`LASError` becomes one line and exit status 1."""
    standard.open_closed()
    try:
        threads_of_environment()  # torch would take as many as it says
        try:
            app()
        finally:
            standard.put("")  # what is left in the buffer
    except LASError as error:
        standard.complain(f"error: {error}")
        sys.exit(1)
    except BrokenPipeError:  # `las ... | head`
        standard.abandon()
        sys.exit(1)
    except OSError as error:  # an output that cannot be written, a full disk
        standard.complain(f"error: {error.filename or 'files'}: {error.strerror or error}")
        if error.filename == standard.NAME:
            standard.abandon()
        sys.exit(1)


def _version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


@app.command()
def prepare(
    corpus: Annotated[Corpus, typer.Argument(help="Its layout.")],
    source: Annotated[Path, typer.Argument(help="The corpus, or a CSV/TSV/JSONL file.")],
    output: Annotated[Path, typer.Argument(help="Folder for the manifests.")],
    part: Annotated[
        list[str] | None, typer.Option(help="Part of LibriSpeech or Common Voice; repeatable.")
    ] = None,
    dev_speakers: Annotated[
        int, typer.Option(min=0, help="Speakers to carve out of each part as <part>-dev.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the draw of the speakers.")] = 0,
    like: Annotated[
        Path | None,
        typer.Option(help="Take alphabet and normalizer of this model folder or training's YAML."),
    ] = None,
    alphabet: Annotated[
        str | None,
        typer.Option(help="Characters a transcript may hold; default: A to Z, ' and space."),
    ] = None,
    normalizer: Annotated[
        Normalizers | None,
        typer.Option(
            help="Of the transcripts; default: english, upper case without accents and "
            "punctuation. upper keeps accents, none keeps all."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first unusable utterance.")
    ] = False,
    trust_headers: Annotated[
        bool, typer.Option("--trust-headers", help="Do not decode every file to check it.")
    ] = False,
) -> None:
    """Check a corpus and write manifests of its usable utterances."""
    with lasting():
        from las import corpora
        from las.config import ModelConfig
        from las.finetuning import text_settings

    if like is not None and (alphabet is not None or normalizer is not None):
        raise LASError("--like: names alphabet and normalizer already; leave the others out")
    written = ModelConfig() if like is None else text_settings(like)
    characters = alphabet or written.alphabet
    form = normalizer.value if normalizer is not None else written.text.normalizer
    check_alphabet(characters, form)
    if part and corpus not in (Corpus.LIBRISPEECH, Corpus.COMMONVOICE):
        raise LASError(f"--part: {corpus.value} has no parts to choose from; leave it out")
    if corpus is Corpus.LIBRISPEECH:
        parts = corpora.librispeech(source, part or [])
    elif corpus is Corpus.AN4:
        parts = corpora.an4(source)
    elif corpus is Corpus.COMMONVOICE:
        parts = corpora.commonvoice(source, part or [])
    else:
        parts = corpora.folder(source)
    if dev_speakers:
        # A test set is scored, not trained on: nothing is carved out of it.
        split = [name for name in parts if not name.startswith("test")]
        for name in split:
            parts[name], parts[f"{name}-dev"] = corpora.split_speakers(
                parts[name], dev_speakers, seed
            )
    for name, items in parts.items():
        done = corpora.prepare(
            name,
            items,
            output,
            alphabet=characters,
            normalizer=form,
            strict=strict,
            decode=not trust_headers,
        )
        print(
            f"{done.manifest}: {done.utterances} utterances, {done.seconds / 3600:.2f} h, "
            f"{len(done.speakers)} speakers"
        )
        if done.unaccented:
            print(
                f"  {done.unaccented} transcripts lost accents; --normalizer upper, with an "
                "alphabet that has them, keeps them"
            )
        for reason, count in done.counts().items():
            print(f"  skipped {count}: {reason} (listed in {name}.skipped.jsonl)")


@app.command()
def bpe(
    text: Annotated[
        Path, typer.Argument(help="A manifest, or one sentence a line: plain, .gz or .xz.")
    ],
    output: Annotated[Path, typer.Argument(help="File for the pieces, one a line.")],
    size: Annotated[int, typer.Option(min=1, help="Number of pieces.")] = 500,
    alphabet: Annotated[str, typer.Option(help="Characters of the text.")] = ALPHABET,
    normalizer: NormalizerOption = Normalizers.ENGLISH,
) -> None:
    """Find pieces of words to write instead of characters: `las train CONF.yaml pieces=OUTPUT`."""
    with lasting():
        from las import data, lm_text
        from las.files import check_file, replacing
        from las.pieces import Pieces, learn
        from las.text import Characters

    check_file(output)
    if text.name.endswith((".jsonl.gz", ".jsonl")):
        lines = [cut.supervisions[0].text for cut in data.read_manifest(text)]
    else:
        characters = Characters(alphabet, normalizer.value)
        read = lm_text.read(text, characters, 10000).train
        bounds = zip(read.offsets, read.offsets[1:], strict=False)
        lines = [characters.decode(read.ids[a:b].tolist()) for a, b in bounds]
    pieces = learn(lines, size)
    Pieces(alphabet, pieces, normalizer.value)  # refuses what a model could not write
    with replacing(output) as temporary:
        temporary.write_text("".join(piece + "\n" for piece in pieces), encoding="utf-8")
    print(f"{output}: {len(pieces)} pieces of {len(lines)} sentences")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML file of settings.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="E.g. training.epochs=3")
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="That train together: one a GPU, or a core or two each.")
    ] = 1,
) -> None:
    """Train a model; the same command resumes a training that was stopped.

    On several machines: torchrun --nnodes 2 --nproc-per-node 8 ... -m las train CONFIG.yaml
    """
    with lasting():
        from las.finetuning import load

    settings = load(config, overrides or [])
    if processes > 1:
        from las.launch import run_together

        raise typer.Exit(run_together(processes, ["train", str(config), *(overrides or [])]))

    with lasting():
        import torch
        import torch.distributed as dist

        from las.training import InterruptedTrainingError, Trainer

    distributed = "LOCAL_RANK" in os.environ
    if distributed:
        cuda = torch.cuda.is_available() and settings.training.device != "cpu"
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if cuda else "gloo")
    try:
        Trainer(settings).run()
    except InterruptedTrainingError as error:
        print(f"interrupted: {error}", file=sys.stderr)
        raise typer.Exit(130) from None
    finally:
        if distributed:
            dist.destroy_process_group()


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    manifest: Annotated[Path, typer.Argument(help="Manifest of `las prepare`.")],
    output: Annotated[
        Path | None,
        typer.Option(help="Prefix of the reports; default: MODEL/evaluation-MANIFEST."),
    ] = None,
    device: DeviceOption = Device.AUTO,
    threads: ThreadsOption = 0,
    precision: PrecisionOption = Precision.AUTO,
    batch_seconds: Annotated[float, typer.Option(min=0.1, help="Audio in a batch.")] = 60.0,
    texts: Annotated[
        bool,
        typer.Option(
            help="Put references and hypotheses into the JSON; --no-texts for a corpus whose text "
            "may not be passed on. The text report has them either way."
        ),
    ] = True,
    check_batching: Annotated[
        bool, typer.Option("--check-batching", help="Also compare batches with single files.")
    ] = False,
    beam: BeamOption = None,
    ctc: CTCOption = None,
    lm: LMOption = None,
    lm_weight: LMWeightOption = None,
    words: WordsOption = None,
    search: SearchOption = None,
    greedy: GreedyOption = False,
) -> None:
    """Score a model: WER, CER, interval, and an aligned report."""
    with lasting():
        from las import evaluation, scoring
        from las.files import check_file
        from las.model import LAS, read_info
        from las.runtime import choose_device, choose_threads, inference_precision
        from las.search import describe
        from las.stored_search import LM, WORDS, model_names

    prefix = output or model / f"evaluation-{manifest.name.split('.')[0]}"
    choose_threads(threads)
    place = choose_device(device.value)
    las = LAS.from_pretrained(model, place)
    for path in scoring.report_paths(prefix):
        check_file(path)
    las.precision = inference_precision(precision.value)
    config, language_model = search_settings(
        las,
        place,
        model,
        lm,
        search,
        words=words,
        greedy=greedy,
        beam=beam,
        ctc=ctc,
        lm_weight=lm_weight,
    )
    names = model_names(language_model, lm or model / LM, words or model / WORDS)
    utterances = evaluation.transcribe_manifest(
        las, manifest, place, batch_seconds=batch_seconds, config=config, lm=language_model
    )
    result = scoring.score(utterances)
    extra: dict[str, Any] = {
        "manifest": manifest.name,
        "search": describe(config, *names),
        "precision": str(las.precision).removeprefix("torch."),
        "parameters": sum(p.numel() for p in las.parameters()),
        "model_info": read_info(model),
        **evaluation.provenance(place),
    }
    print(scoring.summary(result))
    if check_batching:
        count, differ, largest = evaluation.check_batching(
            las, manifest, place, config, language_model
        )
        extra["batching"] = {"utterances": count, "differ": differ, "largest": largest}
        print(
            f"batched and single: {count - len(differ)} of {count} texts equal, largest "
            f"difference of the listener's output {largest:.1e}"
        )
    text, report = scoring.write_reports(prefix, utterances, result, texts=texts, **extra)
    print(f"reports: {text} {report}")


@app.command()
def info(
    model: Annotated[
        Path | None, typer.Argument(help="Model folder; default: the bundled.")
    ] = None,
) -> None:
    """Print the versions, and what is known of a model."""
    with lasting():
        import torch
        import torchaudio

        from las import config as configuration
        from las import stored_search
        from las.calibration import stored as stored_confidence
        from las.model import LAS, bundled, read_info

    folder = model or bundled()
    las = LAS.from_pretrained(folder)
    print(f"listen-attend-spell {__version__}, torch {torch.__version__}, ", end="")
    print(f"torchaudio {torchaudio.__version__}, Python {sys.version.split()[0]}")
    print(f"model: {folder}")
    print(f"parameters: {sum(p.numel() for p in las.parameters()):,}")
    for key, value in read_info(folder).items():
        print(f"{key}: {value}")
    if (search := stored_search.summary(folder)) is not None:
        print(f"search: {search}")
    if (confidence := stored_confidence(folder)) is not None:
        numbers = f"slope {confidence.slope:.3g}, offset {confidence.offset:.3g}"
        print(f"confidence: calibrated ({numbers})")
    print(configuration.to_yaml(las.config), end="")
