"""Files -> one transcript or one failure each: an error stays with the file that caused it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from las.cli.transcribe.failures import FILE_ERRORS, decoding_failed
from las.cli.transcribe.inputs import Source

if TYPE_CHECKING:
    from las.transcription.recording import Ready
    from las.transcription.transcriber import Transcriber
    from las.transcription.transcript import Failure, Transcript

_RETRY_SINGLY = 32  # files that are decoded one by one after a batch has failed


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
    from las.transcription.transcript import Failure

    results = transcribe_with_isolation(transcriber, paths, batch_size, progress, ready)
    for source, path, result in zip(sources, paths, results, strict=True):
        if isinstance(result, Failure):  # standard input is read from a temporary file
            yield source, Failure(source.path, result.reason.replace(str(path), source.shown))
        else:
            yield source, result


def transcribe_with_isolation(
    transcriber: "Transcriber",
    paths: Sequence[Path],
    batch_size: int | None = None,
    progress: Callable[[float], None] | None = None,
    ready: "Ready | None" = None,
) -> "Iterator[Transcript | Failure]":
    """Transcribe files, in their order; what decoding raises becomes the failure of one file.

    Memory that runs out, or an error in a library, ends a batch without saying which file is to
    blame: the next files are then decoded one by one until it is found. The arguments are those
    of :func:`recognise`.
    """
    from las.transcription.transcript import Failure

    earlier = total = 0.0  # seconds of audio before this call of the transcriber, and by now

    def add(seconds: float) -> None:
        nonlocal total
        total = earlier + seconds
        if progress is not None:
            progress(total)

    start = singly = 0
    while start < len(paths):
        part = paths[start : start + 1] if singly else paths[start:]
        try:
            results = transcriber.files(part, batch_size=batch_size, progress=add, ready=ready)
            for result in results:
                start += 1
                yield result
            singly = max(0, singly - 1)
        except FILE_ERRORS as error:
            if len(part) == 1:
                yield Failure(part[0], decoding_failed(part[0], error))
                start += 1
                singly = 0
            else:
                singly = _RETRY_SINGLY
        earlier = total
