"""The command ``las compare``."""

import json
from pathlib import Path
from typing import Annotated

import typer


def compare(
    a: Annotated[Path, typer.Argument(help="JSON report of system A (`las evaluate`).")],
    b: Annotated[Path, typer.Argument(help="JSON report of system B on the same manifest.")],
    samples: Annotated[int, typer.Option(min=1, help="Bootstrap samples.")] = 10000,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="Also write the result to this JSON file.")
    ] = None,
) -> None:
    """Test whether system B is better than A: paired bootstrap of the WER difference."""
    from las.scoring import significance
    from las.storage.atomic import check_file, replacing

    if output is not None:
        check_file(output)
    result = significance.compare_reports(a, b, samples=samples, seed=seed)
    print(significance.summary(result, str(a), str(b)))
    if output is not None:
        data = json.dumps(significance.to_json(result, str(a), str(b)), indent=2)
        with replacing(output) as temporary:
            temporary.write_text(data + "\n", encoding="utf-8")
