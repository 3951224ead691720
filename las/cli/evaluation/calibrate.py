"""The command ``las calibrate``: options and output; `las.evaluation.calibrate` does the work."""

from pathlib import Path
from typing import Annotated, Any

import typer

from las.cli.loading import load_model
from las.cli.options import Device, DeviceOption, ThreadsOption
from las.imports import frozen_imports


def calibrate(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    manifests: Annotated[
        list[Path],
        typer.Argument(help="Manifests of speakers that it was not trained on; not the test set."),
    ],
    output: Annotated[
        Path | None, typer.Option(help="File for the report. Default: MODEL/calibration.json.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the split of speakers.")] = 0,
    device: DeviceOption = Device.AUTO,
    threads: ThreadsOption = 0,
    batch_seconds: Annotated[
        float, typer.Option(min=0.1, help="Seconds of audio in a batch.")
    ] = 60.0,
) -> None:
    """Calibrate word probabilities: make them the share of such words that are correct.

    The calibration is stored in MODEL/confidence.yaml. Words are recognised with the stored search
    of the model. The reported error is that of held-out speakers: a calibration of half of the
    speakers is measured on the other half. The stored calibration is fitted to all speakers.
    """
    import json

    with frozen_imports():
        from las.decoding.presets import stored_search
        from las.evaluation import calibrate as calibration
        from las.evaluation import evaluate
        from las.model.folder import read_info
        from las.storage.atomic import check_file, replacing
        from las.storage.settings import save_settings
        from las.transcription import confidence

    las, torch_device = load_model(model, device, threads)
    path = output or model / "calibration.json"
    for file in (path, model / confidence.CONFIDENCE):
        check_file(file)
    config, lm = stored_search(model, torch_device)
    words_of = calibration.score_words(las, manifests, torch_device, config, lm, batch_seconds)
    after = calibration.held_out(words_of, seed)
    everyone = calibration.concatenate(words_of.values())
    chosen = calibration.fit(*everyone)
    report: dict[str, Any] = {
        "manifests": ["/".join(path.parts[-2:]) for path in manifests],
        "speakers": len(words_of),
        "words": len(everyone.correct),
        "right": float(everyone.correct.mean()),
        "bins": calibration.BINS,
        "before": {
            "mean": float(everyone.probabilities.mean()),
            "expected_calibration_error": calibration.expected_error(*everyone),
        },
        "held_out": {
            "mean": float(after.probabilities.mean()),
            "expected_calibration_error": calibration.expected_error(*after),
            "seed": seed,
        },
        "chosen": chosen.model_dump(),
        "model_info": read_info(model),
        **evaluate.provenance(torch_device),
    }
    save_settings(chosen, model / confidence.CONFIDENCE)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(
        f"{report['words']} words of {report['speakers']} speakers, {report['right']:.1%} correct\n"
        f"expected calibration error: {report['before']['expected_calibration_error']:.3f} before "
        f"calibration, {report['held_out']['expected_calibration_error']:.3f} after it, on "
        f"held-out speakers\nconfidence: {model / confidence.CONFIDENCE}, report: {path}"
    )
