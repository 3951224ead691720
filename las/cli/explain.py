"""The command ``las explain``: options and output; `las.explain` does the work."""

from pathlib import Path
from typing import Annotated

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
    SearchOption,
    ThreadsOption,
    WordsOption,
)
from las.imports import frozen_imports


def explain(
    file: Annotated[Path, typer.Argument(help="Audio file: wav, flac, ogg, opus, mp3, sph, ...")],
    model: Annotated[
        Path | None, typer.Option(help="Model folder. Default: the bundled model.")
    ] = None,
    output_dir: Annotated[Path, typer.Option(help="Folder for the page and the plot.")] = Path(),
    device: DeviceOption = Device.AUTO,
    threads: ThreadsOption = 0,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, help="Explain at most so many seconds of the file.")
    ] = 300.0,
    beam: BeamOption = None,
    ctc: CTCOption = None,
    lm: LMOption = None,
    lm_weight: LMWeightOption = None,
    words: WordsOption = None,
    search: SearchOption = None,
    greedy: GreedyOption = False,
) -> None:
    """Show how a file was recognised: attention, spectrogram, words, and alternative texts.

    Writes a self-contained page (FILE's name and .explain.html) and a plot (.explain.png).
    """
    with frozen_imports():
        from las.evaluation import plots
        from las.explain import figure
        from las.explain import html as explain_html
        from las.explain.explainer import Explainer
        from las.model.folder import bundled
        from las.storage.atomic import check_folder, replacing
        from las.transcription import confidence

    check_folder(output_dir)
    folder = model or bundled()
    las, torch_device = load_model(folder, device, threads)
    options = {"beam": beam, "ctc": ctc, "lm_weight": lm_weight}
    config, language_model = search_settings(
        las, torch_device, folder, lm, search, words=words, greedy=greedy, **options
    )
    name = "bundled" if model is None else (model.resolve().name or str(model))
    timer = confidence.timer(folder)
    explainer = Explainer(las, torch_device, config, language_model, name, timer)
    found = explainer.file(file, max_seconds)
    stem = output_dir / f"{file.stem}.explain"
    html, picture = (stem.with_name(stem.name + suffix) for suffix in (".html", ".png"))
    with replacing(html) as temporary:
        temporary.write_text(explain_html.page(found), encoding="utf-8")
    plots.save(figure.figure(found, found.sections[0]), picture)
    print(found.text)
    print(f"page: {html}")
    print(f"picture: {picture}")
