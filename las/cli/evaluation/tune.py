"""The command ``las tune``: options and output; `las.evaluation.tune` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from las.cli.loading import load_model
from las.cli.options import Device, DeviceOption, ThreadsOption
from las.imports import frozen_imports


def tune(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    dev: Annotated[Path, typer.Argument(help="Dev set to tune on; not the test set.")],
    lm: Annotated[
        Path | None,
        typer.Option(
            help="Language model folder, used if it helps. Default: MODEL/lm, if it exists."
        ),
    ] = None,
    words: Annotated[
        Path | None,
        typer.Option(
            help="Word model folder, used if it helps. Default: MODEL/words, if it exists."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Prefix of the reports. Default: MODEL/tuning.")
    ] = None,
    beam: Annotated[int, typer.Option(min=1, help="Largest beam size to try.")] = 8,
    utterances: Annotated[
        int | None, typer.Option(min=1, help="Tune on a random sample of so many utterances.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the sample.")] = 0,
    device: DeviceOption = Device.AUTO,
    threads: ThreadsOption = 0,
    batch_seconds: Annotated[
        float, typer.Option(min=0.1, help="Seconds of audio in a batch.")
    ] = 60.0,
) -> None:
    """Tune the search settings of a model, and store them in its folder.

    They become the default of `las transcribe` and `las evaluate` (MODEL/search.yaml, MODEL/lm,
    MODEL/words). Tuning starts from stored settings, which are replaced only by better ones. If
    nothing beats greedy search, greedy search is stored.
    """
    import json

    with frozen_imports():
        from las.config import SearchConfig
        from las.decoding.presets import (
            LM,
            SETTINGS,
            WORDS,
            lm_name,
            load_both,
            store_search,
            stored_search,
            stored_settings,
        )
        from las.evaluation import evaluate, tuning_report
        from las.evaluation.trials import Trial, encode_manifest, measure
        from las.evaluation.tune import tune as tune_search
        from las.model.folder import read_info
        from las.storage.atomic import check_folder, replacing

    las, torch_device = load_model(model, device, threads)
    prefix = output or model / "tuning"
    if prefix.is_dir():
        prefix = prefix / "tuning"
    for folder in (model, prefix.parent):
        check_folder(folder)
    kept_search = stored_search(model, torch_device) if stored_settings(model) is not None else None
    lm = lm or (model / LM if (model / LM).is_dir() else None)
    words = words or (model / WORDS if (model / WORDS).is_dir() else None)
    language_model = load_both(lm, words, las.text, torch_device)
    name = None if lm is None else lm_name(lm)
    lines: list[str] = []

    def log(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    batches = encode_manifest(
        las, dev, torch_device, batch_seconds=batch_seconds, utterances=utterances, seed=seed
    )
    log(f"{dev.name}: {sum(len(batch.ids) for batch in batches)} utterances")
    log(tuning_report.HEADER)

    def measured(config: SearchConfig) -> Trial:
        trial = measure(las, batches, config, language_model)
        log(tuning_report.trial_line(trial, name))
        return trial

    stored = None
    if kept_search is not None:
        stored = measure(las, batches, *kept_search)
        log(f"{tuning_report.trial_line(stored, LM)}  (stored)")
    result = tune_search(
        measured, beam=beam, lm=lm is not None, words=words is not None, stored=stored
    )
    log(tuning_report.summary(result, name))
    report = {
        "manifest": dev.name,
        **({"drawn": {"utterances": utterances, "seed": seed}} if utterances else {}),
        **({} if words is None else {"word_model": lm_name(words)}),
        **tuning_report.to_json(result, name),
        "model_info": read_info(model),
        **evaluate.provenance(torch_device),
    }
    chosen = result.chosen.config
    kept = model / SETTINGS
    if not result.keeps_stored:
        kept = store_search(
            model,
            chosen,
            lm if chosen.lm_weight > 0 else None,
            words if chosen.word_weight > 0 else None,
        )
    with replacing(prefix.with_name(f"{prefix.name}.json")) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    with replacing(prefix.with_name(f"{prefix.name}.txt")) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"settings: {kept}, reports: {prefix}.json {prefix}.txt")
