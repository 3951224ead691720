"""Model -> exported folder: graphs, and the manifest that describes them."""

import shutil
from pathlib import Path
from typing import Literal, TypeAlias

import onnx

from las.decoding.beam_search import EXTRA_STEPS
from las.errors import LASError
from las.export.builder import OPSET, GraphBuilder
from las.export.listener import ctc_graph, frontend_graph, listener_graph
from las.export.speller import speller_graph
from las.model.folder import CONFIG, WEIGHTS
from las.model.las import LAS
from las.storage.atomic import replacing
from las.storage.exported import ExportManifest, describe, is_exported, write_manifest
from las.text.characters import BLANK, EOS
from las.transcription.confidence import CONFIDENCE
from las.version import __version__

Dtype: TypeAlias = Literal["float32", "int8"]


def check_target(folder: Path) -> None:
    """Check, before long work, that a folder may hold an exported model.

    Raises:
        LASError: it is a model folder, which `las transcribe` could then not tell from the export,
            or holds other files, but no export that would be replaced.
    """
    for name in (CONFIG, WEIGHTS):
        if (folder / name).exists():
            raise LASError(f"{folder}: this folder holds a model ({name}); name another to export")
    if folder.is_dir() and not is_exported(folder):
        # Hidden files are not the user's: what a killed export left, or what file managers write.
        others = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
        if others:
            raise LASError(
                f"{folder}: this folder holds other files ({others[0]}); name a new folder, or an "
                "empty one"
            )


def export(model: LAS, folder: Path, dtype: Dtype = "float32") -> ExportManifest:
    """Write a model as ONNX graphs; each file atomically, the manifest last.

    Args:
        model: in evaluation mode, on a CPU.
        folder: made if it is missing; an older export in it is replaced.
        dtype: of the stored weights, ``float32`` or ``int8``; what is computed is float32.

    Raises:
        LASError: the folder holds other files, or weights that are not finite cannot be int8.
    """
    check_target(folder)
    int8 = dtype == "int8"
    try:
        builders = [
            frontend_graph(model.frontend),
            listener_graph(model, int8),
            ctc_graph(model, int8),
            speller_graph(model, int8),
        ]
    except ValueError as error:
        raise LASError(f"{folder}: not written as int8: {error}") from None
    graphs = {}
    for builder in builders:
        path = folder / f"{builder.name}.onnx"
        _write(builder, path)
        graphs[builder.name] = describe(path, builder.inputs, builder.outputs)
    listener = model.config.listener
    manifest = ExportManifest(
        dtype=dtype,
        blank=BLANK,
        end=EOS,
        extra_steps=EXTRA_STEPS,
        reduction=listener.reduction,
        ctc_reduction=listener.ctc_reduction,
        versions={
            "listen-attend-spell": __version__,
            "onnx": onnx.__version__,
            "opset": str(OPSET),
        },
        model=model.config,
        graphs=graphs,
    )
    write_manifest(manifest, folder)
    return manifest


def copy_calibration(source: Path, folder: Path) -> None:
    """Copy the calibration of a model folder, or remove that of an older export."""
    if (source / CONFIDENCE).exists():
        with replacing(folder / CONFIDENCE) as temporary:
            shutil.copyfile(source / CONFIDENCE, temporary)
    else:
        (folder / CONFIDENCE).unlink(missing_ok=True)


def _write(builder: GraphBuilder, path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(builder.model().SerializeToString(deterministic=True))
