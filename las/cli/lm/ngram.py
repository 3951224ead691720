"""The work of ``las lm ngram``: a text -> a model folder, with a log."""

from datetime import UTC, datetime
from pathlib import Path

from las import config_files as configuration
from las.errors import LASError
from las.lm import corpus
from las.lm.kneser_ney import build
from las.lm.lstm import measure
from las.lm.ngram import NgramConfig
from las.storage.atomic import check_folder, replacing
from las.text.characters import Characters
from las.text.normalizer import Normalizer

_MEASURED = 2000  # sentences


def count(
    text: Path,
    output: Path,
    order: int,
    least: str,
    max_megabytes: float | None,
    alphabet: str,
    normalizer: Normalizer,
    max_characters: int,
    dev_every: int,
) -> None:
    """Make an n-gram model of a text; the options are those of ``las lm ngram``.

    Raises:
        LASError: an option or the text is not valid.
    """
    given = {"alphabet": alphabet, "normalizer": normalizer, "order": order}
    config = configuration.parse(NgramConfig, given, "command line")
    try:
        limits = [int(part) for part in least.split(",")]
    except ValueError:
        limits = []
    if not limits or min(limits) < 1:
        raise LASError(f"--least {least!r}: give counts of at least 1, like 1,1,2")
    if dev_every == 1:
        raise LASError("--dev-every 1 would hold out every sentence; use 2 or more, or 0")
    check_folder(output)
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z  {line}")
        print(lines[-1], flush=True)

    read = corpus.read(text, Characters(alphabet, normalizer), max_characters, dev_every)
    log(
        f"{len(read.train):,} sentences of {read.train.characters:,} characters, "
        f"{len(read.dev):,} held out; lines skipped: {read.skipped}"
    )
    limit = None if max_megabytes is None else int(max_megabytes * 1e6)
    model = build(read.train, config, limits, limit, log)
    info = {"sentences": str(len(read.train)), "least": least}
    if len(read.dev):
        dev = read.dev.sample(_MEASURED, seed=1)
        result = measure(model, dev)
        log(f"{len(dev):,} held-out sentences: {result}")
        info["dev_perplexity_per_character"] = f"{result.per_character:.4f}"
        info["dev_perplexity_per_word"] = f"{result.per_word:.2f}"
    model.save_pretrained(output, info)
    with replacing(output / "train.log") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    log(f"model: {output}")
