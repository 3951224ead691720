"""The commands ``las lm``. They parse and print; the work is done elsewhere."""

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Character language models, to help the search along.")

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
    from las import lm_config

    settings = lm_config.load(config, overrides or [])

    from las.lm_training import InterruptedLMTrainingError, LMTrainer

    try:
        LMTrainer(settings, text, output).run()
    except InterruptedLMTrainingError as error:
        print(f"interrupted: {error}", file=sys.stderr)
        raise typer.Exit(130) from None


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
    from las import lm_text
    from las.lm import LanguageModel, measure
    from las.runtime import choose_device, choose_threads

    choose_threads(threads)
    model = LanguageModel.load(folder, choose_device("auto"))
    read = lm_text.read(text, model.text, max_characters)
    result = measure(model, read.train)
    print(f"perplexity per character: {result.per_character:.4f}")
    print(f"perplexity per word: {result.per_word:.2f}")
    print(f"bits per character: {result.bits:.4f}")
    print(
        f"sentences: {result.sentences:,}, words: {result.words:,}, "
        f"characters: {result.characters:,} (each sentence's end is predicted and counted too)"
    )
    print(f"lines skipped: {read.skipped}")
