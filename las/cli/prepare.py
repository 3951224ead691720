"""The command ``las prepare``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from las.cli.options import Normalizers
from las.errors import LASError
from las.imports import lasting
from las.text.normalizer import check_alphabet


class Corpus(StrEnum):
    """Layouts that ``las prepare`` reads."""

    LIBRISPEECH = "librispeech"
    AN4 = "an4"
    COMMONVOICE = "commonvoice"
    FOLDER = "folder"


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
        from las.config import ModelConfig
        from las.data import corpora
        from las.training.finetuning import text_settings

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
