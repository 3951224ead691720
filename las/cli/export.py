"""The command ``las export``: options and output; `las.export` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from las.cli.options import choices, one_of
from las.imports import frozen_imports

_FORMATS = ("onnx",)
_DTYPES = ("float32", "int8")


def export(
    model: Annotated[
        Path, typer.Argument(help="Model folder; bundled is the model of the package.")
    ],
    output: Annotated[Path, typer.Argument(help="Folder for the export, made if it is missing.")],
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar=choices(_FORMATS),
            callback=one_of(_FORMATS),
            help="Format of the graphs.",
        ),
    ] = "onnx",
    dtype: Annotated[
        str,
        typer.Option(
            metavar=choices(_DTYPES),
            callback=one_of(_DTYPES),
            help="Of the stored weights; int8 has a scale for each row. What is computed is "
            "float32.",
        ),
    ] = "float32",
) -> None:
    """Export a model to run without torch: ONNX graphs and a manifest.

    `las transcribe --model OUTPUT` takes the folder, and so does Python without
    torch (docs/export.md). Search is greedy: a stored search and language
    models stay with the model folder.
    """
    with frozen_imports():
        from las.export import folder as exported
        from las.model.folder import bundled
        from las.model.las import LAS
        from las.storage.atomic import check_folder

    source = bundled() if str(model) == "bundled" else model
    exported.check_target(output)
    check_folder(output)
    las = LAS.from_pretrained(source)
    manifest = exported.export(las, output, "int8" if dtype == "int8" else "float32")
    exported.copy_calibration(source, output)
    size = sum(graph.bytes for graph in manifest.graphs.values())
    print(f"{output}: {len(manifest.graphs)} {kind.upper()} graphs, {size / 1e6:.1f} MB, {dtype}")
