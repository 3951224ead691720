"""The commands ``las lm``: options and output; `las.lm` does the work."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from las.cli.options import Command, NormalizerOption, Normalizers
from las.imports import frozen_imports
from las.text.characters import ALPHABET

app = typer.Typer(no_args_is_help=True, help="Language models for the search.")

_TEXT = "Text with one sentence per line: UTF-8, plain, .gz or .xz."


@app.command(cls=Command)
def train(
    text: Annotated[Path, typer.Argument(help=_TEXT)],
    output: Annotated[
        Path, typer.Argument(help="Folder of the training; the model is in OUTPUT/model.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings that replace those of the file, e.g. width=256 training.max_minutes=10",
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
) -> None:
    """Train an LSTM language model; the same command resumes an interrupted training."""
    from las.lm import config as lm_config

    settings = lm_config.load(config, overrides or [])

    with frozen_imports():
        from las.lm.trainer import InterruptedLMTrainingError, LMTrainer

    try:
        LMTrainer(settings, text, output).run()
    except InterruptedLMTrainingError as error:
        print(f"interrupted: {error}", file=sys.stderr)
        raise typer.Exit(130) from None


@app.command(cls=Command)
def ngram(
    text: Annotated[Path, typer.Argument(help=_TEXT)],
    output: Annotated[Path, typer.Argument(help="Folder for the model.")],
    order: Annotated[
        int, typer.Option(min=1, max=12, help="Length of the longest n-grams, in characters.")
    ] = 12,
    least: Annotated[
        str, typer.Option(help="Minimum counts of n-grams of length 1, 2, ...")
    ] = "1,1,1,1,1,1,1,2",
    max_megabytes: Annotated[
        float | None,
        typer.Option(min=0.001, help="Maximum size of the model; rare n-grams are left out."),
    ] = None,
    alphabet: Annotated[
        str, typer.Option(help="Characters of the recogniser, at most 29.")
    ] = ALPHABET,
    normalizer: NormalizerOption = Normalizers.ENGLISH,
    max_characters: Annotated[
        int, typer.Option(min=1, help="Longer lines are skipped and counted.")
    ] = 1000,
    dev_every: Annotated[
        int,
        typer.Option(
            min=0, help="Hold out one sentence in so many to measure perplexity; 0: none."
        ),
    ] = 100,
) -> None:
    """Make a character n-gram language model of a text, within minutes."""
    with frozen_imports():
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


@app.command(cls=Command)
def words(
    source: Annotated[
        Path,
        typer.Argument(
            help=_TEXT + " Or an ARPA file of KenLM, SRILM, ...: .arpa, .arpa.gz, .arpa.xz."
        ),
    ],
    output: Annotated[Path, typer.Argument(help="Folder for the model.")],
    order: Annotated[
        int, typer.Option(min=1, max=6, help="Length of the longest n-grams, in words.")
    ] = 3,
    vocabulary: Annotated[
        int,
        typer.Option(min=1, max=2_000_000, help="Size of the vocabulary: the most frequent words."),
    ] = 60_000,
    max_megabytes: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="Maximum size of the model; the least useful n-grams are left out."
        ),
    ] = None,
    alphabet: Annotated[str, typer.Option(help="Characters of the recogniser.")] = ALPHABET,
    normalizer: NormalizerOption = Normalizers.ENGLISH,
    max_characters: Annotated[
        int, typer.Option(min=1, help="Longer lines are skipped and counted.")
    ] = 1000,
    dev_every: Annotated[
        int,
        typer.Option(
            min=0, help="Hold out one sentence in so many to measure perplexity; 0: none."
        ),
    ] = 100,
) -> None:
    """Make a word n-gram model (for --words) of a text or an ARPA file."""
    with frozen_imports():
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


@app.command(cls=Command)
def score(
    folder: Annotated[Path, typer.Argument(help="Language model folder.")],
    text: Annotated[Path, typer.Argument(help=_TEXT)],
    max_characters: Annotated[
        int, typer.Option(min=1, help="Longer lines are skipped and counted.")
    ] = 10000,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads; 0 uses OMP_NUM_THREADS if set, else one.")
    ] = 0,
) -> None:
    """Report the perplexity of a language model on a text."""
    with frozen_imports():
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
        f"characters: {result.characters:,} (the end of each sentence counts as one)"
    )
    print(f"lines skipped: {read.skipped}")
