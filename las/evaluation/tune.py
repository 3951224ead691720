"""Tune the settings of a search on a dev set.

A coordinate search over :data:`GRID`: one setting at a time takes the best of its values, until
none changes, with a small beam for speed. The best few are measured again with the largest beam.
Then settings that save too few errors go back to their defaults, and what is left must beat greedy
search. If the model has stored settings, a second search starts there, and they are kept unless
better ones are found. Nothing is random.
"""

from collections.abc import Callable
from dataclasses import dataclass

from las.config import SearchConfig
from las.evaluation.trials import Trial
from las.scoring.significance import Comparison, compare

# Values of each setting, in the order of the search. The first is the default (a language model of
# weight 0 is not used), the next ones are ever further from it.
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
_START = {"ctc": 0.3, "lm_weight": 0.3}  # near the best values of published systems
_SMALL_BEAM = 4  # of the coordinate search
_ROUNDS = 4  # of the coordinate search, at most
_CONFIRMED = 3  # settings of the coordinate search that are measured with the largest beam
_REQUIRED = 0.02  # share of the fewest word errors that a setting must save


@dataclass(frozen=True, eq=False)
class Tuning:
    """What was tried and what was chosen.

    Attributes:
        greedy: Greedy search.
        best: The best settings, without those that save too few errors.
        beats_greedy: Whether they save the required number of errors.
        required: Word errors that settings must save to be chosen over simpler ones.
        stored: The settings in the model's folder, if any.
        comparison: The best settings (B) against greedy search (A).
        trials: All trials, in order.
    """

    greedy: Trial
    best: Trial
    beats_greedy: bool
    required: int
    stored: Trial | None
    comparison: Comparison
    trials: list[Trial]

    @property
    def chosen(self) -> Trial:
        """The best settings, or greedy search, or the stored settings if they are as good."""
        found = self.best if self.beats_greedy else self.greedy
        return self.stored if self.keeps_stored and self.stored is not None else found

    @property
    def keeps_stored(self) -> bool:
        """Whether the stored settings are kept: those found make no fewer errors."""
        found = self.best if self.beats_greedy else self.greedy
        return self.stored is not None and _errors(self.stored) <= _errors(found)


def tune(
    measure: Callable[[SearchConfig], Trial],
    *,
    beam: int = 8,
    lm: bool = False,
    words: bool = False,
    stored: Trial | None = None,
) -> Tuning:
    """Find the settings with the fewest errors.

    Fewer word errors are better, then fewer character errors, then simpler settings. A setting
    must save 2 % of the fewest word errors found, and at least one: a smaller gain is chance, or
    not worth its time. (Not of those of greedy search: where it loops they are of no account.)

    Args:
        measure: gives the errors of settings; deterministic.
        beam: the largest beam.
        lm: whether there is a language model.
        words: whether there is a word model.
        stored: the settings in the model's folder, measured with its own language models.
    """
    return _Tuner(measure, beam, lm, words, stored).run()


def simplicity(config: SearchConfig) -> tuple[int, float, int]:
    """Distance of settings from the defaults; smaller is simpler.

    Returns:
        number of settings that differ, steps in :data:`GRID` between, and the beam.
    """
    steps = []
    for name, values in GRID.items():
        value = getattr(config, name)
        # A value set by hand may lie between two of the grid.
        near = [step for step, v in enumerate(values) if (v or 0.0) <= (value or 0.0)]
        steps.append(values.index(value) if value in values else near[-1] + 1)
    return sum(step > 0 for step in steps), sum(steps), config.beam


class _Tuner:
    def __init__(
        self,
        measure: Callable[[SearchConfig], Trial],
        beam: int,
        lm: bool,
        words: bool,
        stored: Trial | None,
    ) -> None:
        self.measure = measure
        self.beam = beam
        self.stored = stored
        absent = {"lm_weight": not lm, "word_weight": not words}
        self.names = [name for name in GRID if not absent.get(name)]
        self.trials: dict[SearchConfig, Trial] = {}

    def run(self) -> Tuning:
        greedy = self._try(GREEDY)
        starts = [{name: _START[name] for name in self.names if name in _START}]
        if self.stored is not None and self.stored.config != GREEDY:
            # Not these alone: settings found without a language model may be a local optimum with
            # one, as where a search without CTC can only lose by any weight of the model.
            starts += [{name: getattr(self.stored.config, name) for name in self.names}]
        small = GREEDY.model_copy(update={"beam": min(_SMALL_BEAM, self.beam)})
        for start in starts:
            self._coordinates(small.model_copy(update=start))
        fewest = self._confirm(small.beam)
        required = max(1, round(_REQUIRED * fewest.word_errors))
        best = self._simplify(fewest, required)
        comparison = compare(greedy.errors, best.errors, greedy.words)
        beats_greedy = greedy.word_errors - best.word_errors >= required
        trials = list(self.trials.values())
        return Tuning(greedy, best, beats_greedy, required, self.stored, comparison, trials)

    def _try(self, config: SearchConfig, **changes: float | None) -> Trial:
        config = config.model_copy(update=changes)
        if config not in self.trials:
            self.trials[config] = self.measure(config)
        return self.trials[config]

    def _coordinates(self, config: SearchConfig) -> None:
        """Optimise one setting at a time until none changes."""
        for _ in range(_ROUNDS):
            before = config
            for name in self.names:
                values = dict.fromkeys((*GRID[name], getattr(config, name)))
                config = min((self._try(config, **{name: v}) for v in values), key=_rank).config
            if config == before:
                break

    def _confirm(self, small: int) -> Trial:
        """Measure the best few of beam `small` with the largest, and the best with smaller ones."""
        measured = [trial for trial in self.trials.values() if trial.config.beam == small]
        few = sorted(measured, key=_rank)[:_CONFIRMED]
        best = min((self._try(trial.config, beam=self.beam) for trial in few), key=_rank)
        beams = [beam for beam in BEAMS if beam < self.beam]
        return min([best, *(self._try(best.config, beam=beam) for beam in beams)], key=_rank)

    def _simplify(self, best: Trial, required: int) -> Trial:
        """Reset settings to their defaults, one by one, while few errors are lost in total."""
        most = best.word_errors + required - 1
        while True:
            config = best.config
            simpler = [
                self._try(config, **{name: GRID[name][0]})
                for name in self.names
                if getattr(config, name) != GRID[name][0]
            ]
            simpler += [self._try(config, beam=b) for b in BEAMS if b < config.beam]
            simpler = [trial for trial in simpler if trial.word_errors <= most]
            if not simpler:
                return best
            best = min(simpler, key=_rank)


def _errors(trial: Trial) -> tuple[int, int]:
    return trial.word_errors, trial.character_errors


def _rank(trial: Trial) -> tuple[int, int, tuple[int, float, int]]:
    return *_errors(trial), simplicity(trial.config)
