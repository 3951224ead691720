"""The command ``las serve``."""

from pathlib import Path
from typing import Annotated

import typer

from las import standard_streams
from las.cli.interrupts import exit_status, sigterm_interrupts
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


def serve(
    model: Annotated[
        Path | None, typer.Option(help="Model folder. Default: the bundled model.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Default: only this machine reaches it.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; 0 takes one that is free.")
    ] = 8000,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of the model in requests, e.g. whisper-1; repeatable. Default: the name of "
            "its folder, or bundled."
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File of API keys, one a line, in addition to the environment variable "
            "LAS_API_KEY. Default: no key is needed."
        ),
    ] = None,
    max_megabytes: Annotated[
        float, typer.Option(min=0.001, help="Size of a file; larger ones get status 413.")
    ] = 100.0,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, help="Duration of a file; longer ones get status 413.")
    ] = 7200.0,
    max_queue: Annotated[
        int,
        typer.Option(min=1, help="Requests that are accepted at once; others get status 429."),
    ] = 64,
    upload_seconds: Annotated[
        float, typer.Option(min=0.1, help="Time for an upload to arrive.")
    ] = 300.0,
    batch_seconds: Annotated[
        float, typer.Option(min=1, help="Seconds of audio to decode at once; more for a GPU.")
    ] = 60.0,
    batch_wait: Annotated[
        float,
        typer.Option(
            min=0, max=1000, help="Milliseconds to wait for other requests when one arrives."
        ),
    ] = 5.0,
    device: DeviceOption = Device.AUTO,
    threads: ThreadsOption = 0,
    precision: PrecisionOption = Precision.AUTO,
    beam: BeamOption = None,
    ctc: CTCOption = None,
    lm: LMOption = None,
    lm_weight: LMWeightOption = None,
    words: WordsOption = None,
    search: SearchOption = None,
    greedy: GreedyOption = False,
) -> None:
    """Serve transcription over HTTP with OpenAI's interface.

    POST /v1/audio/transcriptions, GET /v1/models, /healthz and /metrics;
    at / a page to drop files on or to speak to.
    Requests are decoded together; texts are those of `las transcribe`.
    After SIGINT or SIGTERM what was accepted is finished, and the exit
    status is 0; a second signal ends it at once.
    """
    with frozen_imports():
        from las.model.folder import bundled
        from las.serve import keys, server
        from las.serve.metrics import Metrics
        from las.serve.service import Service
        from las.serve.upload import Limits
        from las.serve.worker import Worker
        from las.transcription import confidence
        from las.transcription.transcriber import Transcriber

    accepted = keys.load(api_key_file)
    folder = model or bundled()
    default = folder.resolve().name if model is not None else "bundled"
    listening = server.bind(host, port)
    with sigterm_interrupts():
        try:
            las, torch_device = load_model(folder, device, threads, precision)
            options = {"beam": beam, "ctc": ctc, "lm_weight": lm_weight}
            config, language_model = search_settings(
                las, torch_device, folder, lm, search, words=words, greedy=greedy, **options
            )
            transcriber = Transcriber(
                las, torch_device, config, language_model, timer=confidence.timer(folder)
            )
            # Kernels are built before the first request, and what is wrong with them is said.
            list(transcriber.files(sorted(bundled().parent.glob("samples/*.flac"))[:1]))
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(exit_status(interrupt)) from None
    metrics = Metrics()
    worker = Worker(transcriber, metrics, batch_seconds, batch_wait / 1000)
    limits = Limits(max_megabytes, max_seconds, max_queue, upload_seconds)
    service = Service(worker, name or [default], metrics, limits, accepted)
    if not accepted and not server.is_loopback(listening):
        standard_streams.complain(f"warning: {host}: whoever reaches it can use it; set an API key")
    where = server.url(listening)
    server.run(
        service,
        listening,
        lambda: standard_streams.complain(f"serving {service.models[0]} on {where}"),
    )
