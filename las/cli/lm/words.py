"""The work of ``las lm words``: a text or an ARPA file -> a model folder, with a log."""

from datetime import UTC, datetime
from pathlib import Path

from las import config_files as configuration
from las.errors import LASError
from las.lm import arpa, corpus
from las.lm.word_kneser_ney import build
from las.lm.word_ngram import WordConfig
from las.lm.word_perplexity import measure
from las.storage.atomic import check_folder, replacing
from las.text.characters import Characters
from las.text.normalizer import Normalizer

_MEASURED = 2000  # sentences


def make(
    source: Path,
    output: Path,
    order: int,
    vocabulary: int,
    max_megabytes: float | None,
    alphabet: str,
    normalizer: Normalizer,
    max_characters: int,
    dev_every: int,
) -> None:
    """Make a word model of a text or an ARPA file; the options are those of ``las lm words``.

    Raises:
        LASError: an option or the file is not valid.
    """
    given = {"alphabet": alphabet, "normalizer": normalizer, "order": order}
    config = configuration.parse(WordConfig, given, "command line")
    if dev_every == 1:
        raise LASError("--dev-every 1 would hold out every sentence; use 2 or more, or 0")
    check_folder(output)
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z  {line}")
        print(lines[-1], flush=True)

    info = {}
    if arpa.is_arpa(source):
        if max_megabytes is not None:
            raise LASError(
                f"--max-megabytes: {source} is an ARPA file, which is not pruned here; prune it "
                "with the tool that made it"
            )
        model, skipped = arpa.read(source, alphabet, normalizer)
        listed = ", ".join(f"{len(table.words):,}" for table in model.tables)
        log(f"{source.name}: n-grams of length 1 to {len(model.tables)}: {listed}")
        log(
            f"words skipped, with characters outside the alphabet or repeated in another case: "
            f"{skipped:,}"
        )
    else:
        read = corpus.read(source, Characters(alphabet, normalizer), max_characters, dev_every)
        log(
            f"{len(read.train):,} sentences of {read.train.words:,} words, "
            f"{len(read.dev):,} held out; lines skipped: {read.skipped}"
        )
        limit = None if max_megabytes is None else int(max_megabytes * 1e6)
        model = build(read.train, config, vocabulary, limit, log)
        info["sentences"] = str(len(read.train))
        if len(read.dev):
            dev = read.dev.sample(_MEASURED, seed=1)
            found = measure(model, dev)
            log(f"{len(dev):,} held-out sentences: {found}")
            info["dev_perplexity_per_word"] = f"{found.per_word:.2f}"
    model.save_pretrained(output, info)
    with replacing(output / "train.log") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    log(f"model: {output}")
