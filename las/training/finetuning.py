"""Fine-tuning: the run gets the architecture and the search settings of the initial model.

A setting is explicit if the YAML or the command line has it, even with its default value.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from las import config_files as configuration
from las.config import ModelConfig, RunConfig, Settings, TrainingConfig
from las.decoding.presets import carry_over
from las.errors import LASError
from las.model.folder import CONFIG, bundled, check_model, model_settings
from las.storage import checkpoint, settings_diff
from las.storage.checkpoint import STATE
from las.storage.settings_diff import Change
from las.transcription.confidence import CONFIDENCE

BUNDLED = "bundled"
# Settings that may differ from those of the initial model, as no weight depends on them.
_INDEPENDENT_OF_WEIGHTS = (
    "frontend.specaugment",
    "listener.dropout",
    "speller.dropout",
    "longest_seconds",
    "text.language",
)


def model_folder(name: str | Path) -> Path:
    """The folder of a model; ``bundled`` is the model that ships with the package."""
    return bundled() if str(name) == BUNDLED else Path(name)


def load(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the settings of a run, as :func:`las.config_files.load` does.

    The explicit settings may be valid only with those of the initial model; they are then checked
    together.

    Raises:
        LASError: see :func:`las.config_files.load` and :func:`resolved`.
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
        filled = _completed(data, base.model_dump(exclude={"longest_seconds"}))
        try:
            return configuration.parse(RunConfig, filled, str(path), overrides)
        except LASError:
            raise (
                _mismatch(origin, refused) if (refused := _differences(data, base)) else error
            ) from None


def resolved(config: RunConfig, state: Path | None = None) -> RunConfig:
    """The settings of a run with the architecture of its initial model.

    Dropout, SpecAugment and the longest audio are also that model's unless they are explicit.

    Args:
        config: as the user gave it; returned unchanged without ``training.init``.
        state: checkpoint of the training. If it exists, the architecture is that of the settings
            beside it, as the initial model may have changed or been deleted since.

    Raises:
        LASError: there is no such model, or explicit settings contradict it; the message names all
            of them.
    """
    if not config.training.init:
        return config
    base, origin = _model(config.training.init, state)
    data = base.model_dump()
    if refused := list(_merge_explicit(data, config)):
        raise _mismatch(origin, refused)
    return RunConfig(**data, data=config.data, training=config.training)


def text_settings(path: Path) -> ModelConfig:
    """The settings of a model folder, or of the model in a training's YAML.

    Raises:
        LASError: the file is missing, or a setting is not valid.
    """
    if model_folder(path).is_dir():
        return model_settings(model_folder(path))
    return resolved(load(path)).model_settings()


def copy_search_settings(init: str, final: Path) -> list[str]:
    """Copy search settings and language models from the initial model to the trained one.

    Args:
        init: ``training.init``.
        final: folder of the trained model.

    Returns:
        lines that report what was copied, and what was not and why.
    """
    folder = model_folder(init)
    if not folder.is_dir():
        return [f"{init} was deleted: nothing but its weights was used; `las tune` sets the search"]
    lines = []
    try:
        names = carry_over(folder, final)
    except LASError as error:
        lines.append(f"the search settings were not copied: {error}")
    else:
        if names:
            lines.append(
                f"{', '.join(names)}: copied from {init}; `las tune` fits the search to this model"
            )
    if (folder / CONFIDENCE).exists():
        lines.append(
            f"{CONFIDENCE}: not copied from {init}, as it depends on the weights; `las calibrate` "
            "makes a new one"
        )
    return lines


def _model(init: str, state: Path | None) -> tuple[ModelConfig, Path]:
    """The settings of the model of a checkpoint or of the initial model, and where they are."""
    if state is not None and checkpoint.exists(state):
        try:
            return configuration.load(RunConfig, state.with_name(CONFIG)).model_settings(), state
        except LASError:  # missing, or of an older version
            pass
    folder = model_folder(init)
    check_model(folder)
    return model_settings(folder), folder


def _mismatch(origin: Path, refused: list[Change]) -> LASError:
    if not origin.is_dir():
        return settings_diff.refusal(origin, refused)
    return LASError(
        f"{origin}: a model of another architecture than the settings say "
        f"({settings_diff.shown(refused)}); leave these settings out, or train without "
        "training.init"
    )


def _merge_explicit(data: dict[str, Any], settings: Settings, prefix: str = "") -> Iterator[Change]:
    """Merge explicit settings into a model's; yields those that contradict it."""
    for key in [key for key in data if key in settings.model_fields_set]:
        name, value = prefix + key, getattr(settings, key)
        if isinstance(value, Settings):
            if data[key] is None:  # it was off
                data[key] = value.model_dump()
            else:
                yield from _merge_explicit(data[key], value, f"{name}.")
        elif name == "longest_seconds" and value is None:  # unknown: not explicit
            continue
        elif value != data[key]:
            if name.startswith(_INDEPENDENT_OF_WEIGHTS):
                data[key] = value
            else:
                yield name, data[key], value


def _completed(data: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """The explicit settings, and the model's for all others."""
    filled = {**base, **data}
    for key, value in filled.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            filled[key] = _completed(value, base[key])
    return filled


def _differences(data: dict[str, Any], base: ModelConfig) -> list[Change]:
    """Explicit settings that differ from the model's, each compared on its own.

    For settings that are not valid together; empty if one is not valid alone.
    """
    found = []
    explicit = {key: value for key, value in data.items() if key in ModelConfig.model_fields}
    for names, value in _leaves(explicit):
        name = ".".join(names)
        if name.startswith(_INDEPENDENT_OF_WEIGHTS):
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
