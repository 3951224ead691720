"""Settings written as a YAML file."""

from pathlib import Path

from las.config import Settings
from las.config_files import to_yaml
from las.storage.atomic import replacing


def save_settings(settings: Settings, path: Path) -> None:
    """Write settings as YAML, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(to_yaml(settings), encoding="utf-8")
