"""Word and character error rates with confidence intervals, and a report of every error.

Texts are compared as they are, after white space is collapsed. Case and punctuation have been
normalised before, see `las.text.normalizer`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from las.errors import LASError
from las.scoring.alignment import Utterance, align, aligned_lines, character_counts
from las.storage.atomic import replacing

_TOP = 10  # number of most frequent errors
_DRAWN_AT_ONCE = 1 << 20  # utterances drawn at once, which limits the memory of the bootstrap


@dataclass(frozen=True)
class Score:
    """Error rates in percent, and counts.

    Attributes:
        wer: (substitutions + deletions + insertions) / reference words.
        cer: Character error rate; the space between two words is a character.
        sentence_error_rate: Share of utterances with at least one word error.
        wer_interval: Bootstrap interval (low, high) of `wer`.
        cer_interval: Bootstrap interval (low, high) of `cer`.
        interval: Confidence level of both intervals, such as 0.95.
        substitutions: Words recognised as another word.
        deletions: Reference words without a counterpart.
        insertions: Recognised words without a counterpart.
        hits: Words recognised; substitutions + deletions + hits = words.
        words: Reference words.
        characters: Reference characters, spaces included.
        utterances: Number of utterances.
        bootstrap: Number of bootstrap samples.
        seed: Seed of the bootstrap.
        top_substitutions: Up to ten ("reference -> hypothesis", count), most frequent first and
            then in alphabetical order.
        top_deletions: Up to ten (word, count), ordered likewise.
        top_insertions: Up to ten (word, count), ordered likewise.
    """

    wer: float
    cer: float
    sentence_error_rate: float
    wer_interval: tuple[float, float]
    cer_interval: tuple[float, float]
    interval: float
    substitutions: int
    deletions: int
    insertions: int
    hits: int
    words: int
    characters: int
    utterances: int
    bootstrap: int
    seed: int
    top_substitutions: tuple[tuple[str, int], ...]
    top_deletions: tuple[tuple[str, int], ...]
    top_insertions: tuple[tuple[str, int], ...]


def score(
    utterances: Sequence[Utterance],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    interval: float = 0.95,
) -> Score:
    """Score hypotheses against their references.

    An empty hypothesis deletes every reference word. The words of a hypothesis with an empty
    reference are insertions.

    Args:
        utterances: References and hypotheses with unique ids.
        bootstrap: Number of bootstrap samples for the intervals.
        seed: Seed of the bootstrap; the same seed gives the same intervals.
        interval: Confidence level, between 0 and 1.

    Raises:
        LASError: An id occurs twice, no reference has a word, or a setting is out of range.
    """
    if bootstrap < 1:
        raise LASError(f"bootstrap is {bootstrap}; draw at least 1 sample (1000 is usual)")
    if not 0 < interval < 1:
        raise LASError(f"interval is {interval:g}; give a level between 0 and 1, such as 0.95")
    check((u.id, u.reference) for u in utterances)
    aligned = align(utterances)
    words = np.array([a.words for a in aligned], dtype=np.int64)
    errors = np.array([a.errors for a in aligned], dtype=np.int64)
    character_errors, characters = character_counts(utterances)
    marks = Counter(step for a in aligned for step in a.steps if step[0] != " ")
    return Score(
        wer=_percent(errors, words),
        cer=_percent(character_errors, characters),
        sentence_error_rate=100.0 * float(np.mean(errors > 0)),
        wer_interval=bootstrap_interval(errors, words, bootstrap, seed, interval),
        cer_interval=bootstrap_interval(character_errors, characters, bootstrap, seed, interval),
        interval=interval,
        substitutions=sum(a.count("S") for a in aligned),
        deletions=sum(a.count("D") for a in aligned),
        insertions=sum(a.count("I") for a in aligned),
        hits=sum(a.count(" ") for a in aligned),
        words=int(words.sum()),
        characters=int(characters.sum()),
        utterances=len(aligned),
        bootstrap=bootstrap,
        seed=seed,
        top_substitutions=_top((f"{r} -> {h}", n) for (m, r, h), n in marks.items() if m == "S"),
        top_deletions=_top((r, n) for (m, r, _), n in marks.items() if m == "D"),
        top_insertions=_top((h, n) for (m, _, h), n in marks.items() if m == "I"),
    )


def check(references: Iterable[tuple[str, str]], origin: str | Path | None = None) -> None:
    """Check, before recognition, that references can be scored.

    Args:
        references: ids and texts.
        origin: their file, for the message.

    Raises:
        LASError: an id occurs twice, or no text has a word.
    """
    references = list(references)
    place = "" if origin is None else f"{origin}: "
    repeated = [id for id, count in Counter(id for id, _ in references).items() if count > 1]
    if repeated:
        raise LASError(
            f"{place}utterance {repeated[0]!r} occurs more than once ({len(repeated)} such ids);"
            " score each utterance once"
        )
    if not any(text.split() for _, text in references):
        raise LASError(
            f"{place}the references of all {len(references)} utterances are empty;"
            " an error rate needs at least one reference word"
        )


def bootstrap_interval(
    errors: np.ndarray, words: np.ndarray, samples: int, seed: int, interval: float
) -> tuple[float, float]:
    """Percentile interval of an error rate; utterances are drawn with replacement.

    The words of an utterance are not independent, utterances nearly are: M. Bisani and H. Ney,
    "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004.
    Samples without a reference word are ignored.

    Args:
        errors: Errors of each utterance, integers [N].
        words: Reference words of each utterance, integers [N].
        samples: Number of bootstrap samples.
        seed: Seed of the bootstrap.
        interval: Confidence level, between 0 and 1.

    Returns:
        (low, high) in percent.

    Raises:
        LASError: No sample has a reference word.
    """
    generator = np.random.default_rng(seed)
    count = len(words)
    at_once = max(1, _DRAWN_AT_ONCE // count)
    rates = []
    for start in range(0, samples, at_once):
        drawn = generator.integers(count, size=(min(at_once, samples - start), count))
        drawn_words = words[drawn].sum(axis=1)
        some = drawn_words > 0
        rates.append(100.0 * errors[drawn].sum(axis=1)[some] / drawn_words[some])
    known = np.concatenate(rates)
    if len(known) == 0:
        raise LASError(f"no reference word in {samples} bootstrap samples; draw more of them")
    low, high = np.quantile(known, [(1 - interval) / 2, (1 + interval) / 2])
    return float(low), float(high)


def summary(score: Score) -> str:
    """Error rates, intervals and counts in a few lines."""
    level = f"{100 * score.interval:g}%"
    return "\n".join(
        [
            f"WER  {score.wer:6.2f} %  {level} interval {_range(score.wer_interval)}",
            f"CER  {score.cer:6.2f} %  {level} interval {_range(score.cer_interval)}",
            f"SER  {score.sentence_error_rate:6.2f} %  utterances with an error",
            "",
            f"{score.utterances} utterances, {score.words} words, {score.characters} characters",
            f"hits {score.hits}, substitutions {score.substitutions}, "
            f"deletions {score.deletions}, insertions {score.insertions}",
            f"intervals: {score.bootstrap} bootstrap samples of the utterances, seed {score.seed}",
        ]
    )


def report_text(utterances: Sequence[Utterance], score: Score) -> str:
    """The report as text: summary, most frequent errors, and all utterances with errors.

    Utterances are sorted by falling number of errors, then by id. REF and HYP are aligned, with S,
    D or I below each substituted, deleted or inserted word.

    Args:
        utterances: What was scored.
        score: What `score` returned for them.
    """
    lines = [summary(score)]
    for title in ("substitutions", "deletions", "insertions"):
        if top := getattr(score, f"top_{title}"):
            lines += ["", f"Most frequent {title}", *(f"{n:6d}  {item}" for item, n in top)]
    wrong = [(u.id, a) for u, a in zip(utterances, align(utterances), strict=True) if a.errors]
    for id, aligned in sorted(wrong, key=lambda pair: (-pair[1].errors, pair[0])):
        counts = ", ".join(f"{aligned.count(mark)} {mark}" for mark in "SDI")
        lines += ["", f"{id}: {counts} in {aligned.words} reference words"]
        lines += aligned_lines(aligned.steps)
    return "\n".join(lines) + "\n"


def report_json(
    utterances: Sequence[Utterance], score: Score, *, texts: bool = True, **extra: object
) -> dict[str, object]:
    """The report as JSON.

    It has the fields of `score` under their names, except `ser`, the sentence error rate, and
    `utterances`, which lists each utterance with its texts and counts of errors.

    Args:
        utterances: What was scored.
        score: What `score` returned for them.
        texts: Whether to include references and hypotheses.
        extra: Further top-level entries: command, device, versions, date.

    Raises:
        ValueError: An extra entry has the name of another entry.
    """
    report: dict[str, object] = {
        name: [list(entry) if isinstance(entry, tuple) else entry for entry in value]
        if isinstance(value, tuple)
        else value
        for name, value in vars(score).items()
    }
    report["ser"] = report.pop("sentence_error_rate")
    report["utterances"] = [
        {
            **(vars(utterance) if texts else {"id": utterance.id}),
            "words": aligned.words,
            "substitutions": aligned.count("S"),
            "deletions": aligned.count("D"),
            "insertions": aligned.count("I"),
        }
        for utterance, aligned in zip(utterances, align(utterances), strict=True)
    ]
    if taken := sorted(report.keys() & extra.keys()):
        raise ValueError(
            f"the report has its own entries {', '.join(taken)}; rename the extra ones"
        )
    return report | extra


def report_paths(folder_or_prefix: str | Path) -> tuple[Path, Path]:
    """The paths of the text and of the JSON that :func:`write_reports` writes."""
    prefix = Path(folder_or_prefix)
    if prefix.is_dir():
        prefix = prefix / "report"
    return prefix.with_name(f"{prefix.name}.txt"), prefix.with_name(f"{prefix.name}.json")


def write_reports(
    folder_or_prefix: str | Path,
    utterances: Sequence[Utterance],
    score: Score,
    *,
    texts: bool = True,
    **extra: object,
) -> tuple[Path, Path]:
    """Write `<prefix>.txt` and `<prefix>.json`, each atomically.

    Args:
        folder_or_prefix: Path without suffix; an existing folder gets `report.txt` and
            `report.json`. Missing folders are created.
        utterances: What was scored.
        score: What `score` returned for them.
        texts: Whether to include references and hypotheses.
        extra: Further entries of the JSON report.

    Returns:
        The paths of the text and of the JSON.

    Raises:
        LASError: The folder cannot be created or written to.
    """
    report = report_json(utterances, score, texts=texts, **extra)
    data = _report_lines(report)
    text_path, json_path = report_paths(folder_or_prefix)
    try:
        with replacing(text_path) as text, replacing(json_path) as json_file:
            text.write_text(report_text(utterances, score), encoding="utf-8")
            json_file.write_text(data, encoding="utf-8")
    except OSError as problem:
        what = problem.strerror or type(problem).__name__
        raise LASError(
            f"{folder_or_prefix}: cannot write the reports ({what}); choose another place"
        ) from None
    return text_path, json_path


def _report_lines(report: Mapping[str, Any]) -> str:
    """JSON with one line for each entry and each utterance."""
    lines = []
    for name, value in report.items():
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in value]
            text = "[\n  " + ",\n  ".join(rows) + "\n]"
        lines.append(f"{json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _percent(errors: np.ndarray, total: np.ndarray) -> float:
    return 100.0 * int(errors.sum()) / int(total.sum())


def _top(counted: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counted, key=lambda entry: (-entry[1], entry[0]))[:_TOP])


def _range(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}"
