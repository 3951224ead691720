"""The manifest of an exported model: what is in the folder, and how to run it; imports no torch.

It is a JSON file, so that programs in any language can read it.
"""

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from las.config import ModelConfig, Settings
from las.config_errors import explain
from las.errors import LASError
from las.storage.atomic import replacing

MANIFEST = "export.json"
FORMAT: Literal["listen-attend-spell/onnx-1"] = "listen-attend-spell/onnx-1"
GRAPHS = ("frontend", "listener", "ctc", "speller")
_CURE = "export the model again"


class Value(Settings):
    """An input or output of a graph."""

    name: str
    dtype: str  # of numpy
    shape: list[int | str]  # a name is a size that differs from call to call


class GraphFile(Settings):
    """A file of the folder that holds a graph."""

    file: str
    bytes: int
    sha256: str
    inputs: list[Value]
    outputs: list[Value]


class ExportManifest(Settings):
    """What ``export.json`` holds."""

    format: Literal["listen-attend-spell/onnx-1"] = FORMAT
    dtype: Literal["float32", "int8"]  # of the stored weights; all else is float32
    blank: int  # id of the blank of CTC, which the speller must not emit
    end: int  # id that ends a sentence, and the first input of the speller
    extra_steps: int  # the speller may take so many steps more than CTC has frames
    reduction: int  # frames of the frontend for each frame of the speller's memory
    ctc_reduction: float  # the same for each frame of CTC
    versions: dict[str, str]  # of the packages that wrote it, and of the operators
    model: ModelConfig  # alphabet, subwords, frontend, sizes
    graphs: dict[str, GraphFile]


def is_exported(folder: Path) -> bool:
    """Whether a folder holds an exported model, be it incomplete."""
    return (folder / MANIFEST).is_file() or _is_incomplete(folder)


def _is_incomplete(folder: Path) -> bool:
    """Whether there are graphs without the manifest, which is written last; no model folder is."""
    graphs = any((folder / f"{name}.onnx").is_file() for name in GRAPHS)
    return graphs and not any(folder.glob("*.safetensors"))


def describe(path: Path, inputs: list[Value], outputs: list[Value]) -> GraphFile:
    """The entry of a graph that has been written."""
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return GraphFile(file=path.name, bytes=len(data), sha256=digest, inputs=inputs, outputs=outputs)


def write_manifest(manifest: ExportManifest, folder: Path) -> None:
    """Write ``export.json``, atomically."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> ExportManifest:
    """Read ``export.json``.

    Raises:
        LASError: the folder or the file is missing, damaged or of a newer version.
    """
    path = folder / MANIFEST
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError("no object")
    except FileNotFoundError:
        if _is_incomplete(folder):
            raise LASError(
                f"{folder}: this export is incomplete: it has no {MANIFEST}; {_CURE}"
            ) from None
        raise LASError(
            f"{folder}: not an exported model: it has no {MANIFEST}; `las export` writes one"
        ) from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise LASError(f"{path}: damaged ({reason}); {_CURE}") from None
    form = data.get("format")
    if form != FORMAT and str(form).startswith(FORMAT[:-1]):
        raise LASError(
            f"{path}: its format {form} is newer than this version; update listen-attend-spell"
        )
    try:
        return ExportManifest.model_validate(data)
    except ValidationError as error:
        reason = " ".join(explain(ExportManifest, error).split())
        raise LASError(f"{path}: damaged ({reason}); {_CURE}") from None


def read_graph(folder: Path, graph: GraphFile) -> bytes:
    """Read the file of a graph.

    Raises:
        LASError: it is missing, or not the file that was exported.
    """
    path = folder / graph.file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LASError(f"{path}: cannot be read ({error.strerror}); {_CURE}") from None
    if hashlib.sha256(data).hexdigest() != graph.sha256:
        raise LASError(
            f"{path}: damaged or of another export: its checksum is not that of {MANIFEST}; {_CURE}"
        )
    return data
