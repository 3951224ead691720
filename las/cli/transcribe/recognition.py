"""Files -> one transcript or one failure each: an error stays with the file that caused it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from las.cli.transcribe.inputs import Source

if TYPE_CHECKING:
    from las.transcription.recording import Ready
    from las.transcription.transcriber import Transcriber
    from las.transcription.transcript import Failure, Transcript


def recognise(
    transcriber: "Transcriber",
    sources: Sequence[Source],
    paths: Sequence[Path],
    batch_size: int | None = None,
    progress: Callable[[float], None] | None = None,
    ready: "Ready | None" = None,
) -> "Iterator[tuple[Source, Transcript | Failure]]":
    """Transcribe files, in their order.

    Args:
        transcriber: the model and its search.
        sources: the files.
        paths: where each can be read, see :func:`las.cli.transcribe.inputs.readable`.
        batch_size: chunks of audio to decode at once, at most; None leaves it to the transcriber.
        progress: called with the seconds of audio done so far, of all files together.
        ready: called with every chunk that is final; again, if its file is decoded again.

    Yields:
        each file with its transcript, or with the reason why there is none.
    """
    from las.transcription.isolation import transcribe_with_isolation
    from las.transcription.transcript import Failure

    results = transcribe_with_isolation(transcriber, paths, batch_size, progress, ready)
    for source, path, result in zip(sources, paths, results, strict=True):
        if isinstance(result, Failure):  # standard input is read from a temporary file
            yield source, Failure(source.path, result.reason.replace(str(path), source.shown))
        else:
            yield source, result
