"""Significance of the difference between two recognisers: paired bootstrap over utterances.

M. Bisani and H. Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation",
ICASSP 2004. Pairing cancels the difficulty of the utterances, so that differences much smaller
than the confidence interval of each system can be significant.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from las.errors import LASError

_DRAWN_AT_ONCE = 1 << 20  # utterances drawn at once, which limits the memory


@dataclass(frozen=True)
class Comparison:
    """System B against system A; rates in percent, differences in percent absolute.

    Attributes:
        wer_a: WER of A.
        wer_b: WER of B.
        difference: `wer_b` - `wer_a`; below zero B is better.
        low: Lower end of the bootstrap interval of the difference.
        high: Upper end.
        interval: Confidence level, such as 0.95.
        improvement: Share of the bootstrap samples in which B makes fewer errors than A; ties
            count half.
        p: Two-sided bootstrap p-value of the difference.
        better: Utterances in which B makes fewer errors.
        worse: Utterances in which B makes more.
        utterances: Utterances compared.
        words: Their reference words.
        samples: Bootstrap samples.
        seed: Seed of the bootstrap.
    """

    wer_a: float
    wer_b: float
    difference: float
    low: float
    high: float
    interval: float
    improvement: float
    p: float
    better: int
    worse: int
    utterances: int
    words: int
    samples: int
    seed: int


def compare(
    errors_a: np.ndarray,
    errors_b: np.ndarray,
    words: np.ndarray,
    *,
    samples: int = 10000,
    seed: int = 0,
    interval: float = 0.95,
) -> Comparison:
    """Compare two systems' word errors on the same utterances.

    Args:
        errors_a: Word errors of A, integers [N].
        errors_b: Word errors of B, integers [N].
        words: Reference words, integers [N].
        samples: Bootstrap samples.
        seed: Seed of the bootstrap; the same seed gives the same result.
        interval: Confidence level, between 0 and 1.

    Raises:
        LASError: There is no reference word, or a setting is out of range.
    """
    if samples < 1:
        raise LASError(f"samples is {samples}; draw at least 1 (10000 is usual)")
    if not 0 < interval < 1:
        raise LASError(f"interval is {interval:g}; give a level between 0 and 1, such as 0.95")
    if words.sum() == 0:
        raise LASError("the references have no word; an error rate needs at least one")
    count = len(words)
    change = errors_b - errors_a
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWN_AT_ONCE // count)
    draws = []
    for start in range(0, samples, at_once):
        drawn = generator.integers(count, size=(min(at_once, samples - start), count))
        total = words[drawn].sum(axis=1)
        some = total > 0  # a sample without a reference word has no rate
        draws.append(100.0 * change[drawn].sum(axis=1)[some] / total[some])
    differences = np.concatenate(draws)
    if len(differences) == 0:
        raise LASError(f"no reference word in {samples} bootstrap samples; draw more of them")
    low, high = np.quantile(differences, [(1 - interval) / 2, (1 + interval) / 2])
    below, above = float(np.mean(differences < 0)), float(np.mean(differences > 0))
    return Comparison(
        wer_a=100.0 * int(errors_a.sum()) / int(words.sum()),
        wer_b=100.0 * int(errors_b.sum()) / int(words.sum()),
        difference=100.0 * int(change.sum()) / int(words.sum()),
        low=float(low),
        high=float(high),
        interval=interval,
        improvement=below + 0.5 * (1.0 - below - above),
        p=min(1.0, 2.0 * (1.0 - max(below, above))),
        better=int((change < 0).sum()),
        worse=int((change > 0).sum()),
        utterances=count,
        words=int(words.sum()),
        samples=len(differences),
        seed=seed,
    )


def compare_reports(a: Path, b: Path, **settings: Any) -> Comparison:
    """Compare two JSON reports of ``las evaluate`` on the same utterances.

    Args:
        a: Report of system A.
        b: Report of system B.
        settings: See :func:`compare`.

    Raises:
        LASError: A file is not such a report, or they differ in utterances or references.
    """
    first, second = _read(a), _read(b)
    if first.keys() != second.keys():
        unmatched = sorted(first.keys() ^ second.keys())
        raise LASError(
            f"{b}: not the utterances of {a} ({len(unmatched)} are in only one of the two, "
            f"the first is {unmatched[0]!r}); evaluate both systems on one manifest"
        )
    for id, (count, _) in first.items():
        if second[id][0] != count:
            raise LASError(
                f"{b}: utterance {id!r} has {second[id][0]} reference words, and {count} in {a}; "
                "evaluate both systems on one manifest"
            )
    order = sorted(first)
    words = np.array([first[id][0] for id in order], np.int64)
    errors = [np.array([report[id][1] for id in order], np.int64) for report in (first, second)]
    return compare(errors[0], errors[1], words, **settings)


def _read(path: Path) -> dict[str, tuple[int, int]]:
    """Reference words and word errors of each utterance of a report."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        rows = {
            row["id"]: (
                int(row["words"]),
                int(row["substitutions"]) + int(row["deletions"]) + int(row["insertions"]),
            )
            for row in report["utterances"]
        }
    except OSError as error:
        raise LASError(f"{path}: cannot read the report ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise LASError(
            f"{path}: not a report of `las evaluate`, or of an old version; give the .json it wrote"
        ) from None
    if not rows:
        raise LASError(f"{path}: the report has no utterance")
    return rows


def summary(result: Comparison, a: str, b: str) -> str:
    """The comparison in a few lines.

    Args:
        result: What :func:`compare` returned.
        a: Name of system A.
        b: Name of system B.
    """
    level = f"{100 * result.interval:g} %"
    if result.low <= 0 <= result.high:
        verdict = f"no significant difference (the {level} interval contains 0)"
    else:
        verdict = f"{b if result.difference < 0 else a} is better"
    return "\n".join(
        [
            f"A  {result.wer_a:6.2f} %  {a}",
            f"B  {result.wer_b:6.2f} %  {b}",
            f"B - A  {result.difference:+.2f} % absolute, {level} interval {result.low:+.2f} to "
            f"{result.high:+.2f}, p = {result.p:.4g}",
            f"B makes fewer errors in {100 * result.improvement:.1f} % of {result.samples} paired "
            f"bootstrap samples (seed {result.seed})",
            f"{result.utterances} utterances, {result.words} words: B better in {result.better}, "
            f"worse in {result.worse}",
            verdict,
        ]
    )


def to_json(result: Comparison, a: str, b: str) -> dict[str, Any]:
    """The comparison as JSON, with the names of the systems."""
    return {"a": a, "b": b, **asdict(result)}
