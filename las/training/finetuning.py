"""Training on from a model: its architecture is taken over, and what its folder keeps beside it.

Settings count as stated if the YAML or the command line has them, not by their defaults.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from las import config as configuration
from las.config import ModelConfig, RunConfig, Settings, TrainingConfig
from las.decoding.presets import carry_over
from las.errors import LASError
from las.model.folder import CONFIG, bundled, check_model, model_settings
from las.storage import settings_diff
from las.storage.checkpoint import STATE
from las.storage.settings_diff import Change
from las.transcription.confidence import CONFIDENCE

BUNDLED = "bundled"
# What a model may have otherwise than the one that it starts from: no weight depends on it.
_FREE = (
    "frontend.specaugment",
    "listener.dropout",
    "speller.dropout",
    "longest_seconds",
    "text.language",
)


def folder_of(name: str | Path) -> Path:
    """A model folder by its name; ``bundled`` is the model that ships with the package."""
    return bundled() if str(name) == BUNDLED else Path(name)


def load(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the settings of a run, as :func:`las.config.load` does.

    Settings that fit each other only beside the rest of the model that the training starts from
    are taken with that rest.

    Raises:
        LASError: see :func:`las.config.load` and :func:`resolved`.
    """
    data = configuration.read(path)
    try:
        return configuration.parse(RunConfig, data, str(path), overrides)
    except LASError as error:
        training = data.get("training")
        if not isinstance(training, dict) or not training.get("init"):
            raise
        output = str(training.get("output") or TrainingConfig().output)
        base, origin = _model(str(training["init"]), Path(output) / STATE)
        filled = _filled(data, base.model_dump(exclude={"longest_seconds"}))
        try:
            return configuration.parse(RunConfig, filled, str(path), overrides)
        except LASError:
            raise _refusal(origin, refused) if (refused := _unlike(data, base)) else error from None


def resolved(config: RunConfig, state: Path | None = None) -> RunConfig:
    """The settings of a run with the architecture of the model that it starts from.

    Dropout, SpecAugment and the longest audio are that model's, too, unless they are stated.

    Args:
        config: as it was stated; without ``training.init`` it comes back as it is.
        state: of the training. If it is there, the architecture is that of the settings beside
            it: the model that was started from may be gone meanwhile, or another.

    Raises:
        LASError: there is no such model, or a setting is stated that does not fit it; the message
            names all of these.
    """
    if not config.training.init:
        return config
    base, origin = _model(config.training.init, state)
    data = base.model_dump()
    if refused := list(_stated(data, config)):
        raise _refusal(origin, refused)
    return RunConfig(**data, data=config.data, training=config.training)


def text_settings(path: Path) -> ModelConfig:
    """The settings of a model folder, or of the model in a training's YAML.

    Raises:
        LASError: there are none, or one is not right.
    """
    if folder_of(path).is_dir():
        return model_settings(folder_of(path))
    return resolved(load(path)).model_settings()


def copy_search_settings(init: str, final: Path) -> list[str]:
    """Give a trained model what the folder it started from keeps for search.

    Args:
        init: ``training.init``.
        final: folder of the trained model.

    Returns:
        lines that say what was copied, and what was not and why.
    """
    folder = folder_of(init)
    if not folder.is_dir():
        return [f"{init} is gone: nothing but its weights was taken; `las tune` sets the search"]
    lines = []
    try:
        names = carry_over(folder, final)
    except LASError as error:
        lines.append(f"the settings of the search were not taken over: {error}")
    else:
        if names:
            lines.append(
                f"{', '.join(names)}: taken over from {init}; `las tune` fits the search anew"
            )
    if (folder / CONFIDENCE).exists():
        lines.append(
            f"{CONFIDENCE}: not taken over from {init}, as it holds for those weights alone; "
            "`las calibrate` makes a new one"
        )
    return lines


def _model(init: str, state: Path | None) -> tuple[ModelConfig, Path]:
    """The settings of the model that a training has or starts from, and whose they are."""
    if state is not None and state.is_file():
        try:
            return configuration.load(RunConfig, state.with_name(CONFIG)).model_settings(), state
        except LASError:  # gone, or of before some change of the settings
            pass
    folder = folder_of(init)
    check_model(folder)
    return model_settings(folder), folder


def _refusal(origin: Path, refused: list[Change]) -> LASError:
    if not origin.is_dir():
        return settings_diff.refusal(origin, refused)
    return LASError(
        f"{origin}: a model of another architecture than the settings say "
        f"({settings_diff.shown(refused)}); leave these settings out, or train without "
        "training.init"
    )


def _stated(data: dict[str, Any], settings: Settings, prefix: str = "") -> Iterator[Change]:
    """Put into a model's settings what is stated and may be; the rest is what comes out."""
    for key in [key for key in data if key in settings.model_fields_set]:
        name, value = prefix + key, getattr(settings, key)
        if isinstance(value, Settings):
            if data[key] is None:  # it was off
                data[key] = value.model_dump()
            else:
                yield from _stated(data[key], value, f"{name}.")
        elif name == "longest_seconds" and value is None:  # unknown: as if it were not stated
            continue
        elif value != data[key]:
            if name.startswith(_FREE):
                data[key] = value
            else:
                yield name, data[key], value


def _filled(data: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """What is written, and for what is not what the model has."""
    filled = {**base, **data}
    for key, value in filled.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            filled[key] = _filled(value, base[key])
    return filled


def _unlike(data: dict[str, Any], base: ModelConfig) -> list[Change]:
    """What is written of a model and is not its, each by itself; none if something is no setting.

    For settings that no model could have together.
    """
    found = []
    written = {key: value for key, value in data.items() if key in ModelConfig.model_fields}
    for names, value in _leaves(written):
        name = ".".join(names)
        if name.startswith(_FREE):
            continue
        one = section = base.model_dump()
        try:
            for part in names[:-1]:
                section = section[part]
            old, section[names[-1]] = section[names[-1]], value
            new = reduce(getattr, names, ModelConfig.model_validate(one))
        except (KeyError, TypeError):
            return []
        except ValidationError as error:
            if any(e["type"] != "value_error" for e in error.errors()):
                return []
            new = value
        if new != old:
            found.append((name, old, new))
    return found


def _leaves(
    data: dict[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*above, str(key)))
        else:
            yield (*above, str(key)), value
