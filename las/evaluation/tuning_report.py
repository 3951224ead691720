"""What `las tune` prints and writes of a tuning."""

from dataclasses import asdict
from typing import Any

from las.config import SearchConfig
from las.decoding.search import describe
from las.evaluation.trials import Trial
from las.evaluation.tune import Tuning

HEADER = " WER %   CER %  seconds  search"


def trial_line(trial: Trial, lm: str | None = None) -> str:
    """A trial as a row below :data:`HEADER`; ``lm`` is the name of the language model."""
    return f"{trial.wer:6.2f}  {trial.cer:6.2f}  {trial.seconds:7.1f}  {title(trial.config, lm)}"


def title(config: SearchConfig, lm: str | None = None) -> str:
    """Settings in one line, as in the reports of `las evaluate`."""
    return describe(config, lm if config.lm_weight > 0 else None)


def summary(tuning: Tuning, lm: str | None = None) -> str:
    """What was chosen and why, in a few lines."""
    greedy, best, result = tuning.greedy, tuning.best, tuning.comparison
    if tuning.keeps_stored and tuning.stored is not None:
        return (
            f"the stored settings are kept: {tuning.stored.wer:.2f} % WER ({greedy.wer:.2f} % "
            f"greedy, {best.wer:.2f} % with the best settings found)"
        )
    if not tuning.beats_greedy:
        return (
            f"greedy search is chosen ({greedy.wer:.2f} % WER): no settings save the "
            f"{tuning.required} word errors that they must on this set"
        )
    lines = [
        f"chosen: {title(best.config, lm)}",
        f"WER {greedy.wer:.2f} % greedy, {best.wer:.2f} % chosen: {result.difference:+.2f} % "
        f"absolute, {100 * result.interval:g} % interval {result.low:+.2f} to {result.high:+.2f}, "
        f"p = {result.p:.4g}; better in {result.better} utterances, worse in {result.worse}",
    ]
    if result.low <= 0 <= result.high:
        lines += ["the interval contains 0: the difference may be due to chance"]
    lines += ["the settings were chosen on this set, so its WER is optimistic: report another set"]
    return "\n".join(lines)


def to_json(tuning: Tuning, lm: str | None = None) -> dict[str, Any]:
    """Everything as JSON, without transcripts of the set."""

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
        "better_than_greedy": tuning.beats_greedy,
        "chosen": row(tuning.chosen) | {"settings": tuning.chosen.config.model_dump()},
        "errors_a_setting_must_save": tuning.required,
        "comparison": {"a": "greedy", "b": "best", **asdict(tuning.comparison)},
        "trials": [row(trial) for trial in tuning.trials],
    }
