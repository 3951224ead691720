"""The commands ``las lm``. They parse and print; the work is done elsewhere."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from las.cli.options import NormalizerOption, Normalizers
from las.imports import lasting
from las.text.characters import ALPHABET

app = typer.Typer(no_args_is_help=True, help="Language models, to help the search along.")

_TEXT = "One sentence a line: UTF-8, plain, .gz or .xz."


@app.command()
def train(
    text: Annotated[Path, typer.Argument(help=_TEXT)],
    output: Annotated[Path, typer.Argument(help="Folder of the run; the model is in OUTPUT/model")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="E.g. width=256 training.max_minutes=10"),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
) -> None:
    """Train a language model; the same command resumes a training that was stopped."""
    from las.lm import config as lm_config

    settings = lm_config.load(config, overrides or [])

    with lasting():
        from las.lm.trainer import InterruptedLMTrainingError, LMTrainer

    try:
        LMTrainer(settings, text, output).run()
    except InterruptedLMTrainingError as error:
        print(f"interrupted: {error}", file=sys.stderr)
        raise typer.Exit(130) from None


@app.command()
def ngram(
    text: Annotated[Path, typer.Argument(help=_TEXT)],
    output: Annotated[Path, typer.Argument(help="Folder of the model.")],
    order: Annotated[
        int, typer.Option(min=1, max=12, help="Length of the longest n-grams, in characters.")
    ] = 12,
    least: Annotated[
        str, typer.Option(help="How often n-grams of length 1, 2 ... must occur to be kept.")
    ] = "1,1,1,1,1,1,1,2",
    max_megabytes: Annotated[
        float | None, typer.Option(min=0.001, help="Of the model; rare n-grams are left out.")
    ] = None,
    alphabet: Annotated[str, typer.Option(help="Characters, at most 29.")] = ALPHABET,
    normalizer: NormalizerOption = Normalizers.ENGLISH,
    max_characters: Annotated[
        int, typer.Option(min=1, help="Longer lines are skipped and counted.")
    ] = 1000,
    dev_every: Annotated[
        int, typer.Option(min=0, help="A sentence in so many is held out and measured; 0: none.")
    ] = 100,
) -> None:
    """Count the n-grams of a text: a language model within minutes."""
    with lasting():
        from las.cli.lm.ngram import count

    count(
        text,
        output,
        order,
        least,
        max_megabytes,
        alphabet,
        normalizer.value,
        max_characters,
        dev_every,
    )


@app.command()
def words(
    source: Annotated[
        Path,
        typer.Argument(help=_TEXT + " Or a model of KenLM, SRILM ...: .arpa, .arpa.gz, .arpa.xz."),
    ],
    output: Annotated[Path, typer.Argument(help="Folder of the model.")],
    order: Annotated[
        int, typer.Option(min=1, max=6, help="Length of the longest n-grams, in words.")
    ] = 3,
    vocabulary: Annotated[
        int, typer.Option(min=1, max=2_000_000, help="The most frequent words are known.")
    ] = 60_000,
    max_megabytes: Annotated[
        float | None, typer.Option(min=0.001, help="Of the model; what gains least is left out.")
    ] = None,
    alphabet: Annotated[str, typer.Option(help="Characters of the recogniser.")] = ALPHABET,
    normalizer: NormalizerOption = Normalizers.ENGLISH,
    max_characters: Annotated[
        int, typer.Option(min=1, help="Longer lines are skipped and counted.")
    ] = 1000,
    dev_every: Annotated[
        int, typer.Option(min=0, help="A sentence in so many is held out and measured; 0: none.")
    ] = 100,
) -> None:
    """Count the words of a text, or read an ARPA file: a model of words, for --words."""
    with lasting():
        from las.cli.lm.words import make

    make(
        source,
        output,
        order,
        vocabulary,
        max_megabytes,
        alphabet,
        normalizer.value,
        max_characters,
        dev_every,
    )


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(help="Language model folder.")],
    text: Annotated[Path, typer.Argument(help=_TEXT)],
    max_characters: Annotated[
        int, typer.Option(min=1, help="Longer lines are skipped and counted.")
    ] = 10000,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads; 0 is OMP_NUM_THREADS if set, else one.")
    ] = 0,
) -> None:
    """Report how well a language model predicts a text."""
    with lasting():
        from las.lm import corpus
        from las.lm.loading import load
        from las.lm.lstm import measure
        from las.runtime import choose_device, choose_threads

    choose_threads(threads)
    model = load(folder, choose_device("auto"))
    read = corpus.read(text, model.text, max_characters)
    result = measure(model, read.train)
    print(f"perplexity per character: {result.per_character:.4f}")
    print(f"perplexity per word: {result.per_word:.2f}")
    print(f"bits per character: {result.bits:.4f}")
    print(
        f"sentences: {result.sentences:,}, words: {result.words:,}, "
        f"characters: {result.characters:,} (each sentence's end is predicted and counted too)"
    )
    print(f"lines skipped: {read.skipped}")
