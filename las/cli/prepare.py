"""The command ``las prepare``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from las.cli.options import Normalizers, choices, one_of
from las.data.layouts import LAYOUTS
from las.errors import LASError
from las.imports import frozen_imports
from las.storage.atomic import check_folder
from las.text.normalizer import check_alphabet


def prepare(
    corpus: Annotated[
        str,
        typer.Argument(
            metavar=choices(LAYOUTS), callback=one_of(LAYOUTS), help="Layout of the corpus."
        ),
    ],
    source: Annotated[
        Path, typer.Argument(help="Folder of the corpus, or a CSV, TSV or JSONL file.")
    ],
    output: Annotated[Path, typer.Argument(help="Folder for the manifests.")],
    part: Annotated[
        list[str] | None, typer.Option(help="Part of LibriSpeech or Common Voice; repeatable.")
    ] = None,
    dev_speakers: Annotated[
        int, typer.Option(min=0, help="Speakers to hold out of each part as <part>-dev.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Random seed of the choice of speakers.")] = 0,
    like: Annotated[
        Path | None,
        typer.Option(help="Use alphabet and normalizer of this model folder or training YAML."),
    ] = None,
    alphabet: Annotated[
        str | None,
        typer.Option(help="Allowed characters of transcripts. Default: A to Z, ' and space."),
    ] = None,
    normalizer: Annotated[
        Normalizers | None,
        typer.Option(
            help="Normalization of transcripts. Default: english, upper case without accents and "
            "punctuation; upper keeps accents, none keeps case and punctuation."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail at the first unusable utterance.")
    ] = False,
    trust_headers: Annotated[
        bool,
        typer.Option(
            "--trust-headers", help="Read only headers; do not decode the files to check them."
        ),
    ] = False,
    shards: Annotated[
        bool,
        typer.Option(
            "--shards",
            help="Write <part>.shards, archives with the audio, in place of manifests (except of "
            "--dev-speakers); for more than a million utterances, or to train from a server.",
        ),
    ] = False,
    shard_size: Annotated[int, typer.Option(min=1, help="Utterances of a shard.")] = 1000,
    flac: Annotated[
        bool,
        typer.Option(
            "--flac",
            help="Store audio in shards as FLAC where that is lossless; default: as it is.",
        ),
    ] = False,
) -> None:
    """Check a corpus and write manifests of its usable utterances, or shards."""
    with frozen_imports():
        from las.config import ModelConfig
        from las.data import corpora
        from las.data.shards.preparation import prepare_shards
        from las.training.finetuning import text_settings

    if flac and not shards:
        raise LASError("--flac: manifests leave the audio where it is; add --shards")
    if like is not None and (alphabet is not None or normalizer is not None):
        raise LASError(
            "--like: already gives alphabet and normalizer; leave out --alphabet and --normalizer"
        )
    text_config = ModelConfig() if like is None else text_settings(like)
    characters = alphabet or text_config.alphabet
    normalizer_name = normalizer.value if normalizer is not None else text_config.text.normalizer
    check_alphabet(characters, normalizer_name)
    layout = LAYOUTS[corpus]
    if part and not layout.has_parts:
        raise LASError(f"--part: {corpus} has no parts; leave it out")
    check_folder(output)
    parts = layout.read(source, part or [])
    held_out = set()
    if dev_speakers:
        # Nothing is held out of a test set, which is not trained on.
        split = [name for name in parts if not name.startswith("test")]
        for name in split:
            parts[name], parts[f"{name}-dev"] = corpora.split_speakers(
                parts[name], dev_speakers, seed
            )
            held_out.add(f"{name}-dev")
    common: dict[str, Any] = {
        "alphabet": characters,
        "normalizer": normalizer_name,
        "strict": strict,
        "decode": not trust_headers,
    }
    for name, items in parts.items():
        if shards and name not in held_out:
            done = prepare_shards(
                name, items, output, **common, size=shard_size, flac=flac, log=print
            )
        else:
            done = corpora.prepare(name, items, output, **common)
        utterances = corpora.counted(done.utterances, "utterance")
        speakers = corpora.counted(len(done.speakers), "speaker")
        print(f"{done.manifest}: {utterances}, {_duration(done.seconds)}, {speakers}")
        if done.unaccented:
            print(
                f"  {done.unaccented} transcripts lost accents; --normalizer upper, with an "
                "alphabet that has them, keeps them"
            )
        for reason, count in done.counts().items():
            print(f"  skipped {count}: {reason} (listed in {name}.skipped.jsonl)")


def _duration(seconds: float) -> str:
    """Hours, or minutes or seconds of little data."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 360 else f"{seconds / 3600:.2f} h"
