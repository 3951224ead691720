"""Word errors of a model by cause, as a table and as JSON.

    python recipes/general/errors.py MODEL MANIFEST OUTPUT.json [--train MANIFEST]

The search has the settings of the model folder. Every utterance with errors is either a search
error (the reference scores better than the hypothesis: a wider beam might have found it) or a model
error. Words are grouped by their number in the training transcripts and by whether the word model
knows them, utterances by speaker, duration and speaking rate.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import torch

from las.config import SearchConfig
from las.data.manifests import read_manifest
from las.decoding.hypothesis import LanguageModel, split_lm
from las.decoding.presets import stored_search
from las.decoding.search import search
from las.decoding.text_score import score_text
from las.errors import LASError
from las.evaluation.evaluate import provenance
from las.evaluation.trials import encode_manifest
from las.lm.word_ngram import UNKNOWN, WordModel, hash_words
from las.model.las import LAS
from las.scoring.alignment import Utterance, align
from las.scoring.wer import score
from las.storage.atomic import replacing

_SECONDS = (4, 8, 12, 16)
_SPEEDS = (10, 13, 16, 19)  # characters a second
_COUNTS = (1, 2, 5, 20, 100, 500)  # in the training transcripts


def main() -> None:
    """Search, score, group."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("model", "manifest", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--train", type=Path, help="manifest whose transcripts are counted")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        report = analyse(arguments.model, arguments.manifest, arguments.train)
        report["provenance"] = provenance(torch.device("cpu"))
        with replacing(arguments.output) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except LASError as error:
        sys.exit(f"error: {error}")
    for group, rows in report["groups"].items():
        print(group)
        for row in rows:
            print(f"  {row['of']:>18}  {row['words']:6} words  {row['wer']:6.1f} % wrong")
    print(json.dumps(report["utterances"]))


def analyse(folder: Path, manifest: Path, train: Path | None = None) -> dict[str, Any]:
    """Error rates by group, and the number of search errors.

    Args:
        folder: of the model.
        manifest: of ``las prepare``.
        train: manifest of the training.

    Raises:
        LASError: a folder or manifest is not usable.
    """
    model = LAS.from_pretrained(folder)
    config, lm = stored_search(folder)
    recognised, search_errors = _recognise(model, manifest, config, lm)
    total = score(recognised)
    cuts = {cut.id: cut for cut in read_manifest(manifest)}
    aligned = dict(zip((u.id for u in recognised), align(recognised), strict=True))
    errors = [(cuts[id], a) for id, a in aligned.items()]
    groups = {
        "speaker": _table((c.supervisions[0].speaker, a.errors, a.words) for c, a in errors),
        "seconds": _table((_band(c.duration, _SECONDS), a.errors, a.words) for c, a in errors),
        "characters a second": _table(
            (_band(len(c.supervisions[0].text) / c.duration, _SPEEDS), a.errors, a.words)
            for c, a in errors
        ),
    }
    # Insertions have no reference word.
    reference_words = [
        (r, int(m != " ")) for a in aligned.values() for m, r, _ in a.steps if m != "I"
    ]
    if train is not None:
        texts = (cut.supervisions[0].text for cut in read_manifest(train))
        counts = Counter(word for text in texts for word in text.split())
        groups["times in the training"] = _table(
            (_band(counts[word], _COUNTS), wrong, 1) for word, wrong in reference_words
        )
    _, words = split_lm(lm)
    if isinstance(words, WordModel):
        known = {word: _knows(words, word) for word, _ in reference_words}
        groups["word model"] = _table(
            ("knows it" if known[word] else "does not", wrong, 1) for word, wrong in reference_words
        )
    groups["letters"] = _table((len(word), wrong, 1) for word, wrong in reference_words)
    return {
        "wer": total.wer,
        "substitutions": total.substitutions,
        "deletions": total.deletions,
        "insertions": total.insertions,
        "words": total.words,
        "utterances": {
            "all": len(recognised),
            "wrong": sum(a.errors > 0 for a in aligned.values()),
            "search errors": search_errors,
        },
        "groups": groups,
    }


def _recognise(
    model: LAS, manifest: Path, config: SearchConfig, lm: LanguageModel | None
) -> tuple[list[Utterance], int]:
    """References and hypotheses, and the number of utterances whose reference scores better."""
    recognised, search_errors = [], 0
    for batch in encode_manifest(model, manifest, torch.device("cpu"), batch_utterances=1):
        (found,) = search(model, batch.encoded, config, lm)
        (id,), (text,) = batch.ids, batch.texts
        recognised.append(Utterance(id, text, found[0].text))
        if found[0].text != text:
            search_errors += score_text(model, batch.encoded, text, config, lm) > found[0].score
    return recognised, search_errors


def _knows(words: WordModel, word: str) -> bool:
    hashed = torch.from_numpy(hash_words([words.text.encode(word)]))
    return int(words.find(hashed)) != UNKNOWN


def _band(value: float, limits: Iterable[int]) -> str:
    """The last limit that a value reaches, as text that says so."""
    reached = [limit for limit in limits if value >= limit]
    return f"from {reached[-1]}" if reached else f"under {next(iter(limits))}"


def _table(rows: Iterable[tuple[Hashable, int, int]]) -> list[dict[str, Any]]:
    """Error rates of groups, those with most words first."""
    errors: dict[Hashable, int] = defaultdict(int)
    words: dict[Hashable, int] = defaultdict(int)
    for of, wrong, count in rows:
        errors[of] += wrong
        words[of] += count
    ranked = sorted(words, key=lambda of: -words[of])
    return [
        {"of": of, "words": words[of], "wer": 100 * errors[of] / max(1, words[of])} for of in ranked
    ]


if __name__ == "__main__":
    main()
