"""Choose the settings of a search on a dev set, without listening to it more than once.

A coordinate search over :data:`GRID`: one setting at a time takes the best of its values, again
and again until none moves, with a small beam because it is fast. The best few are measured again
with the final beam. Then every setting that does not earn its place goes back to its default, and
what is left must beat greedy search. Settings that a model keeps already are where the search
begins, and they stay unless it finds some that make fewer errors. Nothing is drawn at random.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet

from las.config import SearchConfig
from las.data.dataset import evaluation_batches
from las.data.manifests import check_alphabet, read_manifest
from las.decoding.hypothesis import LanguageModel
from las.decoding.search import describe, search
from las.errors import LASError
from las.model.las import LAS, Encoded
from las.scoring import wer as scoring
from las.scoring.significance import Comparison, compare
from las.scoring.wer import Utterance

# Settings that are tried, in this order; the first value of each is simplest, and the next ones
# are ever further from it. A model of weight 0 is none.
GRID: dict[str, tuple[float | None, ...]] = {
    "ctc": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8),
    "lm_weight": (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0),
    "word_weight": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
    "word_penalty": (0.0, 0.5, 1.0, 1.5, 2.0, 3.0),
    "length_bonus": (0.0, 0.2, 0.5, 1.0, 1.5),
    "length_power": (0.0, 0.5, 1.0),
    "coverage": (0.0, 0.02, 0.05, 0.1, 0.2),
    "end_threshold": (None, 1.2, 1.5, 2.0),
}
BEAMS = (1, 2, 4, 8, 16, 32, 64)
GREEDY = SearchConfig(lm_weight=0.0)
_START = {"ctc": 0.3, "lm_weight": 0.3}  # where others found their best values near
_SMALL = 4  # beam of the coordinate search
_ROUNDS = 4  # of the coordinate search, at most
_CONFIRMED = 3  # settings of the coordinate search that are measured with the final beam
_LEAST = 0.02  # share of greedy's word errors that a setting must save


@dataclass(frozen=True, eq=False)
class Batch:
    """Utterances that have been listened to; tensors are on the CPU."""

    ids: list[str]
    texts: list[str]
    encoded: Encoded


@dataclass(frozen=True, eq=False)
class Trial:
    """Settings, and what came of them."""

    config: SearchConfig
    wer: float  # percent
    cer: float  # percent
    errors: np.ndarray  # of words, by utterance [N]
    words: np.ndarray  # of the references [N]
    character_errors: int
    seconds: float  # of search, without listening

    @property
    def word_errors(self) -> int:
        """Over all utterances."""
        return int(self.errors.sum())


@dataclass(frozen=True, eq=False)
class Tuning:
    """What was tried and what was chosen.

    Attributes:
        greedy: Greedy search.
        best: The best settings, without those that did not earn their place.
        better: Whether they save enough errors to be chosen rather than greedy search.
        least: Word errors that are enough.
        stored: The settings that the model keeps, if it does.
        comparison: The best settings (B) against greedy search (A).
        trials: Everything that was tried, in that order.
    """

    greedy: Trial
    best: Trial
    better: bool
    least: int
    stored: Trial | None
    comparison: Comparison
    trials: list[Trial]

    @property
    def chosen(self) -> Trial:
        """The best settings or greedy search; what is stored if that makes fewer errors."""
        found = self.best if self.better else self.greedy
        return self.stored if self.kept and self.stored is not None else found

    @property
    def kept(self) -> bool:
        """Whether the stored settings stay: those that were found make no fewer errors."""
        found = self.best if self.better else self.greedy
        return self.stored is not None and _errors(self.stored) <= _errors(found)


@torch.inference_mode()
def listen(
    model: LAS,
    manifest: Path,
    device: torch.device,
    *,
    batch_seconds: float = 60.0,
    batch_utterances: int = 32,
    utterances: int | None = None,
    seed: int = 0,
) -> list[Batch]:
    """Encode a manifest, once for all searches; a minute of speech takes 5 to 10 MB.

    Args:
        model: in evaluation mode.
        manifest: of ``las prepare``.
        device: where the model is.
        batch_seconds: audio in a batch.
        batch_utterances: utterances in a batch, at most.
        utterances: draw so many; None takes all.
        seed: of the draw.

    Raises:
        LASError: the manifest or one of its files is not usable.
    """
    cuts = read_manifest(manifest)
    check_alphabet(cuts, model.text, str(manifest))
    if utterances is not None:
        whole = list(cuts)
        count = min(utterances, len(whole))
        drawn = np.random.default_rng(seed).choice(len(whole), count, replace=False)
        cuts = CutSet.from_cuts(whole[i] for i in sorted(drawn.tolist()))
    scoring.check(((cut.id, cut.supervisions[0].text) for cut in cuts), manifest)
    batches = []
    for batch in evaluation_batches(
        cuts,
        model.text,
        sample_rate=model.config.frontend.sample_rate,
        batch_seconds=batch_seconds,
        batch_utterances=batch_utterances,
    ):
        if isinstance(batch, LASError):
            raise batch
        encoded = model.encode(batch.waveforms.to(device), batch.samples)
        batches.append(Batch(batch.ids, batch.texts, _move(encoded, torch.device("cpu"))))
    return batches


def measure(
    model: LAS,
    batches: Iterable[Batch],
    config: SearchConfig,
    lm: LanguageModel | None = None,
) -> Trial:
    """Search with these settings, and score.

    Args:
        model: in evaluation mode.
        batches: of :func:`listen`.
        config: settings.
        lm: a language model, used if its weight is above 0, and its words if theirs is.

    Raises:
        LASError: no reference holds a word.
    """
    device = next(model.parameters()).device
    weighed = config.lm_weight > 0 or config.word_weight > 0
    found: list[Utterance] = []
    start = time.perf_counter()
    for batch in batches:
        hypotheses = search(model, _move(batch.encoded, device), config, lm if weighed else None)
        for id, text, best in zip(batch.ids, batch.texts, hypotheses, strict=True):
            found.append(Utterance(id, text, best[0].text))
    seconds = time.perf_counter() - start
    score = scoring.score(found, bootstrap=1)  # its intervals are not looked at
    rows: Any = scoring.report_json(found, score, texts=False)["utterances"]
    errors = [row["substitutions"] + row["deletions"] + row["insertions"] for row in rows]
    return Trial(
        config=config,
        wer=score.wer,
        cer=score.cer,
        errors=np.array(errors, np.int64),
        words=np.array([row["words"] for row in rows], np.int64),
        character_errors=round(score.cer * score.characters / 100),
        seconds=seconds,
    )


def tune(
    measured: Callable[[SearchConfig], Trial],
    *,
    beam: int = 8,
    lm: bool = False,
    words: bool = False,
    stored: Trial | None = None,
) -> Tuning:
    """Search for the settings with the fewest errors.

    Fewer word errors are better, then fewer character errors, then simpler settings. A setting
    must save one in fifty of greedy's word errors, and one at least: a smaller gain is chance, or
    not worth its time.

    Args:
        measured: measures settings; deterministic.
        beam: the largest beam.
        lm: whether there is a language model.
        words: whether there is a word model.
        stored: the settings that the model keeps, measured with its own language models.
    """
    return _Tuner(measured, beam, lm, words, stored).run()


def simplicity(config: SearchConfig) -> tuple[int, float, int]:
    """How far settings are from the defaults; smaller is simpler.

    Returns:
        settings that differ, steps in :data:`GRID` between, and the beam.
    """
    steps = []
    for name, values in GRID.items():
        value = getattr(config, name)
        # What a person chose may lie between two values.
        near = [step for step, v in enumerate(values) if (v or 0.0) <= (value or 0.0)]
        steps.append(values.index(value) if value in values else near[-1] + 1)
    return sum(step > 0 for step in steps), sum(steps), config.beam


HEADER = " WER %   CER %  seconds  search"


def line(trial: Trial, lm: str | None = None) -> str:
    """A trial as a row below :data:`HEADER`; ``lm`` is the name of the language model."""
    return f"{trial.wer:6.2f}  {trial.cer:6.2f}  {trial.seconds:7.1f}  {title(trial.config, lm)}"


def title(config: SearchConfig, lm: str | None = None) -> str:
    """Settings in a line, as reports of `las evaluate` have them."""
    return describe(config, lm if config.lm_weight > 0 else None)


def summary(tuning: Tuning, lm: str | None = None) -> str:
    """What was chosen and why, in a few lines."""
    greedy, best, result = tuning.greedy, tuning.best, tuning.comparison
    if tuning.kept and tuning.stored is not None:
        return (
            f"the stored settings stay: {tuning.stored.wer:.2f} % ({greedy.wer:.2f} % greedy, "
            f"{best.wer:.2f} % by the best that were found)"
        )
    if not tuning.better:
        return (
            f"no settings save the {tuning.least} word errors over greedy search ({greedy.wer:.2f} "
            "%) that they must on this set: greedy search is chosen"
        )
    lines = [
        f"chosen: {title(best.config, lm)}",
        f"WER {greedy.wer:.2f} % greedy, {best.wer:.2f} % so: {result.difference:+.2f} % absolute, "
        f"{100 * result.interval:g} % interval {result.low:+.2f} to {result.high:+.2f}, "
        f"p = {result.p:.4g}; better in {result.better} utterances, worse in {result.worse}",
    ]
    if result.low <= 0 <= result.high:
        lines += ["the interval holds 0: chance may explain the difference"]
    lines += ["settings were chosen on this set, which flatters them: report another set"]
    return "\n".join(lines)


def to_json(tuning: Tuning, lm: str | None = None) -> dict[str, Any]:
    """Everything for programs, without any text of the set."""

    def row(trial: Trial) -> dict[str, Any]:
        return {
            "search": title(trial.config, lm),
            "wer": trial.wer,
            "cer": trial.cer,
            "word_errors": trial.word_errors,
            "character_errors": trial.character_errors,
            "seconds": round(trial.seconds, 3),
        }

    return {
        "utterances": len(tuning.greedy.words),
        "words": int(tuning.greedy.words.sum()),
        "greedy": row(tuning.greedy),
        "best": row(tuning.best),
        "stored": None if tuning.stored is None else row(tuning.stored),
        "better_than_greedy": tuning.better,
        "chosen": row(tuning.chosen) | {"settings": tuning.chosen.config.model_dump()},
        "errors_a_setting_must_save": tuning.least,
        "comparison": {"a": "greedy", "b": "best", **asdict(tuning.comparison)},
        "trials": [row(trial) for trial in tuning.trials],
    }


class _Tuner:
    def __init__(
        self,
        measured: Callable[[SearchConfig], Trial],
        beam: int,
        lm: bool,
        words: bool,
        stored: Trial | None,
    ) -> None:
        self.measured = measured
        self.beam = beam
        self.stored = stored
        absent = {"lm_weight": not lm, "word_weight": not words}
        self.names = [name for name in GRID if not absent.get(name)]
        self.trials: dict[SearchConfig, Trial] = {}

    def run(self) -> Tuning:
        greedy = self._try(GREEDY)
        least = max(1, round(_LEAST * greedy.word_errors))
        start = {name: _START[name] for name in self.names if name in _START}
        if self.stored is not None and self.stored.config != GREEDY:
            start = {name: getattr(self.stored.config, name) for name in self.names}
        small = GREEDY.model_copy(update={**start, "beam": min(_SMALL, self.beam)})
        first = self._coordinates(small)
        best = self._simplify(self._confirm(first), least)
        comparison = compare(greedy.errors, best.errors, greedy.words)
        better = greedy.word_errors - best.word_errors >= least
        trials = list(self.trials.values())
        return Tuning(greedy, best, better, least, self.stored, comparison, trials)

    def _try(self, config: SearchConfig, **changes: float | None) -> Trial:
        config = config.model_copy(update=changes)
        if config not in self.trials:
            self.trials[config] = self.measured(config)
        return self.trials[config]

    def _coordinates(self, config: SearchConfig) -> SearchConfig:
        """Move one setting at a time until none moves."""
        for _ in range(_ROUNDS):
            before = config
            for name in self.names:
                values = dict.fromkeys((*GRID[name], getattr(config, name)))
                config = min((self._try(config, **{name: v}) for v in values), key=_rank).config
            if config == before:
                break
        return config

    def _confirm(self, small: SearchConfig) -> Trial:
        """The best few with the final beam, and the best of them with other beams."""
        alike = [trial for trial in self.trials.values() if trial.config.beam == small.beam]
        few = sorted(alike, key=_rank)[:_CONFIRMED]
        best = min((self._try(trial.config, beam=self.beam) for trial in few), key=_rank)
        beams = [beam for beam in BEAMS if beam < self.beam]
        return min([best, *(self._try(best.config, beam=beam) for beam in beams)], key=_rank)

    def _simplify(self, best: Trial, least: int) -> Trial:
        """Put back to their defaults, one by one, settings that altogether save too little."""
        enough = best.word_errors + least - 1
        while True:
            config = best.config
            simpler = [
                self._try(config, **{name: GRID[name][0]})
                for name in self.names
                if getattr(config, name) != GRID[name][0]
            ]
            simpler += [self._try(config, beam=b) for b in BEAMS if b < config.beam]
            simpler = [trial for trial in simpler if trial.word_errors <= enough]
            if not simpler:
                return best
            best = min(simpler, key=_rank)


def _errors(trial: Trial) -> tuple[int, int]:
    return trial.word_errors, trial.character_errors


def _rank(trial: Trial) -> tuple[int, int, tuple[int, float, int]]:
    return *_errors(trial), simplicity(trial.config)


def _move(encoded: Encoded, device: torch.device) -> Encoded:
    return Encoded(
        type(encoded.memory)(*(x.to(device) for x in encoded.memory)),
        encoded.ctc.to(device),
        encoded.ctc_lengths.to(device),
    )
