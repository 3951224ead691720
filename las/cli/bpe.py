"""The command ``las bpe``."""

from pathlib import Path
from typing import Annotated

import typer

from las.cli.options import NormalizerOption, Normalizers
from las.imports import frozen_imports
from las.text.characters import ALPHABET


def bpe(
    text: Annotated[
        Path,
        typer.Argument(
            help="A manifest, or a text with one sentence per line (plain, .gz or .xz)."
        ),
    ],
    output: Annotated[Path, typer.Argument(help="File for the subwords, one per line.")],
    size: Annotated[int, typer.Option(min=1, help="Number of subwords.")] = 500,
    alphabet: Annotated[str, typer.Option(help="Characters of the text.")] = ALPHABET,
    normalizer: NormalizerOption = Normalizers.ENGLISH,
) -> None:
    """Learn subwords (BPE) to write instead of characters: `las train CONF.yaml pieces=OUTPUT`."""
    with frozen_imports():
        from las.data import manifests
        from las.lm import corpus as lm_corpus
        from las.storage.atomic import check_file, replacing
        from las.text.characters import Characters
        from las.text.subwords import Subwords, learn

    check_file(output)
    if text.name.endswith((".jsonl.gz", ".jsonl")):
        lines = [cut.supervisions[0].text for cut in manifests.read_manifest(text)]
    else:
        characters = Characters(alphabet, normalizer.value)
        read = lm_corpus.read(text, characters, 10000).train
        bounds = zip(read.offsets, read.offsets[1:], strict=False)
        lines = [characters.decode(read.ids[a:b].tolist()) for a, b in bounds]
    subwords = learn(lines, size)
    Subwords(alphabet, subwords, normalizer.value)  # checks them
    with replacing(output) as temporary:
        temporary.write_text("".join(subword + "\n" for subword in subwords), encoding="utf-8")
    print(f"{output}: {len(subwords)} subwords from {len(lines)} sentences")
