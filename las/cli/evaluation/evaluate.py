"""The command ``las evaluate``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from las.cli.loading import load_model, search_settings
from las.cli.options import (
    BeamOption,
    CTCOption,
    Device,
    DeviceOption,
    GreedyOption,
    LMOption,
    LMWeightOption,
    Precision,
    PrecisionOption,
    SearchOption,
    ThreadsOption,
    WordsOption,
)
from las.imports import frozen_imports


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    manifest: Annotated[Path, typer.Argument(help="Manifest (`las prepare`).")],
    output: Annotated[
        Path | None,
        typer.Option(help="Prefix of the reports. Default: MODEL/evaluation-MANIFEST."),
    ] = None,
    device: DeviceOption = Device.AUTO,
    threads: ThreadsOption = 0,
    precision: PrecisionOption = Precision.AUTO,
    batch_seconds: Annotated[
        float, typer.Option(min=0.1, help="Seconds of audio in a batch.")
    ] = 60.0,
    texts: Annotated[
        bool,
        typer.Option(
            help="Include references and hypotheses in the JSON report; use --no-texts if the "
            "corpus may not be redistributed. The text report always has them."
        ),
    ] = True,
    check_batching: Annotated[
        bool, typer.Option("--check-batching", help="Also compare batched with single decoding.")
    ] = False,
    beam: BeamOption = None,
    ctc: CTCOption = None,
    lm: LMOption = None,
    lm_weight: LMWeightOption = None,
    words: WordsOption = None,
    search: SearchOption = None,
    greedy: GreedyOption = False,
) -> None:
    """Score a model on a manifest: WER with confidence interval, CER, and an aligned report."""
    with frozen_imports():
        from las.decoding.presets import LM, WORDS, model_names
        from las.decoding.search import describe
        from las.evaluation import evaluate as evaluation
        from las.model.folder import read_info
        from las.scoring import wer
        from las.storage.atomic import check_file

    prefix = output or model / f"evaluation-{manifest.name.split('.')[0]}"
    las, torch_device = load_model(model, device, threads, precision)
    for path in wer.report_paths(prefix):
        check_file(path)
    config, language_model = search_settings(
        las,
        torch_device,
        model,
        lm,
        search,
        words=words,
        greedy=greedy,
        beam=beam,
        ctc=ctc,
        lm_weight=lm_weight,
    )
    names = model_names(language_model, lm or model / LM, words or model / WORDS)
    utterances = evaluation.transcribe_manifest(
        las, manifest, torch_device, batch_seconds=batch_seconds, config=config, lm=language_model
    )
    result = wer.score(utterances)
    extra: dict[str, Any] = {
        "manifest": manifest.name,
        "search": describe(config, *names),
        "precision": str(las.precision).removeprefix("torch."),
        "parameters": sum(p.numel() for p in las.parameters()),
        "model_info": read_info(model),
        **evaluation.provenance(torch_device),
    }
    print(wer.summary(result))
    if check_batching:
        count, differ, largest = evaluation.check_batching(
            las, manifest, torch_device, config, language_model
        )
        extra["batching"] = {"utterances": count, "differ": differ, "largest": largest}
        print(
            f"batched and single: {count - len(differ)} of {count} texts equal, largest "
            f"difference of the listener's output {largest:.1e}"
        )
    text, report = wer.write_reports(prefix, utterances, result, texts=texts, **extra)
    print(f"reports: {text} {report}")
