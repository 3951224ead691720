"""The command ``las calibrate``. It parses and prints; the work is done elsewhere."""

from pathlib import Path
from typing import Annotated, Any

import typer

from las.cli.options import Device, DeviceOption, ThreadsOption
from las.imports import lasting


def calibrate(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    manifests: Annotated[
        list[Path], typer.Argument(help="Manifests of speakers it was not trained on; no test set.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="File of the report; default: MODEL/calibration.json.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw of the speakers.")] = 0,
    device: DeviceOption = Device.AUTO,
    threads: ThreadsOption = 0,
    batch_seconds: Annotated[float, typer.Option(min=0.1, help="Audio in a batch.")] = 60.0,
) -> None:
    """Have words' probabilities say how often such words are right (MODEL/confidence.yaml).

    Words are recognised with the search that the folder keeps. The errors that are reported are of
    speakers whose words took no part: a map fitted on half of the speakers is measured on the other
    half. What is kept is fitted on all.
    """
    import json

    with lasting():
        from las.decoding.presets import stored_search
        from las.evaluation import calibrate as calibration
        from las.evaluation import evaluate
        from las.model.folder import read_info
        from las.model.las import LAS
        from las.runtime import choose_device, choose_threads
        from las.storage.atomic import check_file, replacing
        from las.storage.settings import save_settings
        from las.transcription import confidence

    choose_threads(threads)
    place = choose_device(device.value)
    las = LAS.from_pretrained(model, place)
    path = output or model / "calibration.json"
    for file in (path, model / confidence.CONFIDENCE):
        check_file(file)
    config, lm = stored_search(model, place)
    heard = calibration.listen(las, manifests, place, config, lm, batch_seconds)
    after = calibration.held_out(heard, seed)
    everyone = calibration.together(heard.values())
    chosen = calibration.fit(*everyone)
    report: dict[str, Any] = {
        "manifests": ["/".join(path.parts[-2:]) for path in manifests],
        "speakers": len(heard),
        "words": len(everyone.right),
        "right": float(everyone.right.mean()),
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
        **evaluate.provenance(place),
    }
    save_settings(chosen, model / confidence.CONFIDENCE)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(
        f"{report['words']} words of {report['speakers']} speakers, {report['right']:.1%} right\n"
        f"expected calibration error: {report['before']['expected_calibration_error']:.3f} as the "
        f"model says, {report['held_out']['expected_calibration_error']:.3f} calibrated, of "
        f"speakers held out\nconfidence: {model / confidence.CONFIDENCE}, report: {path}"
    )
