"""Errors of libraries that concern one file stay with it: it has a failure, the others go on."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from las.errors import shown
from las.memory import out_of_memory
from las.transcription.recording import Ready
from las.transcription.transcript import Failure, Reading, Transcript

if TYPE_CHECKING:
    from las.transcription.transcriber import Transcriber

FILE_ERRORS = (RuntimeError, MemoryError, OSError, ValueError)
"""What libraries raise for a file. Others are errors of the program, and end it."""

_RETRY_SINGLY = 32  # files that are decoded one by one after a batch has failed


def decoding_failed(path: Path, error: Exception) -> str:
    """Why a file was not decoded, and what to try."""
    message = " ".join(str(error).split())
    short = message[:200] + "..." * (len(message) > 200)
    if out_of_memory(error):
        what = f"not enough memory to decode it ({short or type(error).__name__})"
        return f"{shown(path)}: {what}; free some, or cut the file into shorter ones"
    return (
        f"{shown(path)}: decoding failed ({type(error).__name__}: {short}); try it alone with "
        "--device cpu, or convert it to wav"
    )


def transcribe_with_isolation(
    transcriber: "Transcriber",
    paths: Sequence[Path | Reading],
    batch_size: int | None = None,
    progress: Callable[[float], None] | None = None,
    ready: Ready | None = None,
) -> Iterator[Transcript | Failure]:
    """Transcribe files, in their order; what decoding raises becomes the failure of one file.

    Memory that runs out, or an error in a library, ends a batch without saying which file is to
    blame: the next files are then decoded one by one until it is found.

    Args:
        transcriber: the model and its search.
        paths: the files, or what is read otherwise.
        batch_size: chunks of audio to decode at once, at most; None leaves it to the transcriber.
        progress: called with the seconds of audio done so far, of all files together.
        ready: called with every chunk as soon as it is final, see ``Transcriber.files``.
    """
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
                name = part[0].path if isinstance(part[0], Reading) else part[0]
                yield Failure(name, decoding_failed(name, error))
                start += 1
                singly = 0
            else:
                singly = _RETRY_SINGLY
        earlier = total
