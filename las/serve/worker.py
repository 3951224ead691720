"""The thread with the model: decodes chunks of all files that are being transcribed in turn.

A batch holds chunks of as many files as have one. A short file therefore does not wait until a long
one is done, and what arrives while a batch is decoded is in the next. Whatever else needs the model
is called between two batches.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from las import standard_streams
from las.serve.metrics import Metrics
from las.transcription.chunking import Chunk
from las.transcription.recording import Recording
from las.transcription.stitching import DecodedChunk
from las.transcription.transcriber import Transcriber
from las.transcription.transcript import Failure, Transcript

MOST_OPEN = 16
"""Files that are read and decoded in turn; the others wait, in their order."""

_Result: TypeAlias = "Transcript | Failure"
_T = TypeVar("_T")


class Job:
    """One file on its way to a transcript.

    Args:
        recording: of it, not read yet.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.result: Future[_Result] = Future()
        self.abandoned = False  # nobody waits for it any more
        self._next: Chunk | None = None  # read, but did not fit into the last batch

    def take(self) -> Chunk | None:
        """The next chunk; None at the end, or if reading fails."""
        chunk, self._next = self._next, None
        if chunk is not None or self.result.done():
            return chunk
        try:
            return self.recording.next_chunk()
        except Exception as error:
            self.fail(error)
            return None

    def put_back(self, chunk: Chunk) -> None:
        """Keep a chunk for the next batch."""
        self._next = chunk

    def fail(self, error: BaseException) -> None:
        """End with an error that is not the file's fault."""
        self.recording.close()
        if not self.result.done():
            _log(error)
            self.result.set_exception(error)

    def abandon(self) -> None:
        """The client has gone: the rest of the file is left out."""
        self.abandoned = True


class Call(Generic[_T]):
    """A function that needs the model, and its result.

    Args:
        function: of no arguments.
    """

    def __init__(self, function: Callable[[], _T]) -> None:
        self.function = function
        self.result: Future[_T] = Future()

    def run(self) -> None:
        """Call the function, unless nobody waits for it any more."""
        if not self.result.set_running_or_notify_cancel():
            return
        try:
            self.result.set_result(self.function())
        except Exception as error:
            _log(error)
            self.result.set_exception(error)

    def abandon(self) -> None:
        """The client has gone."""
        self.result.cancel()


def _log(error: BaseException) -> None:
    standard_streams.complain(f"error: {type(error).__name__}: {' '.join(str(error).split())}")


class Worker:
    """Transcribes files with one model, in a thread of its own.

    Args:
        transcriber: the model and its search; only functions of :meth:`call` may use it, too.
        metrics: that batches are counted in.
        batch_seconds: of padded audio to decode at once, at most.
        wait: seconds to wait for other files when one arrives and nothing is being decoded.
    """

    def __init__(
        self,
        transcriber: Transcriber,
        metrics: Metrics,
        batch_seconds: float = 60.0,
        wait: float = 0.005,
    ) -> None:
        self.transcriber, self.metrics = transcriber, metrics
        self.batch_seconds, self.wait = batch_seconds, wait
        self._waiting: queue.SimpleQueue[Job | Call[Any] | None] = queue.SimpleQueue()
        self._open: list[Job] = []
        self._calls: deque[Call[Any]] = deque()
        self._ends = False
        self._thread = threading.Thread(target=self._run, name="las-model", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether it takes files."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish all files and calls, then end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def submit(self, path: Path) -> Job:
        """Have a file transcribed, from any thread."""
        job = Job(self.transcriber.open(path))
        self._waiting.put(job)
        return job

    def call(self, function: Callable[[], _T]) -> Call[_T]:
        """Have a function called between two batches, from any thread."""
        call = Call(function)
        self._waiting.put(call)
        return call

    # --- in the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        while self._take():
            try:
                self._decode()
                self._answer()
            except Exception as error:  # of the program: nobody may wait forever
                for job in self._open:
                    job.fail(error)
            if self._calls:
                self._calls.popleft().run()

    def _take(self) -> bool:
        """Open files that wait, if there is nothing else to do wait for one; False at the end."""
        self._open = [job for job in self._open if not job.result.done()]
        patience = 0.0
        if not self._open and not self._calls:
            if self._ends:
                return False
            self._admit(self._waiting.get())
            patience = 0.0 if self._calls else self.wait
        deadline = time.monotonic() + patience
        while len(self._open) < MOST_OPEN and not self._ends:
            left = deadline - time.monotonic()
            try:
                self._admit(self._waiting.get(left > 0, max(left, 0)))
            except queue.Empty:
                break
        return True

    def _admit(self, job: Job | Call[Any] | None) -> None:
        if job is None:
            self._ends = True
        elif isinstance(job, Call):
            self._calls.append(job)
        else:
            self._open.append(job)

    def _decode(self) -> None:
        """Decode one batch."""
        for job in self._open:
            if job.abandoned:
                job.recording.close()
                job.result.cancel()
        batch = self._batch()
        if not batch:
            return
        self.metrics.chunks.observe(len(batch))
        self.metrics.files.observe(len({id(job) for job, _ in batch}))
        found = self._decoded([chunk for _, chunk in batch])
        for (job, chunk), parts in zip(batch, found, strict=True):
            if isinstance(parts, Exception):
                job.fail(parts)
            elif not job.result.done():
                try:
                    self.transcriber.add(job.recording, chunk, parts)
                except Exception as error:
                    job.fail(error)

    def _batch(self) -> list[tuple[Job, Chunk]]:
        """A chunk of each file in turn, again and again, until no other fits.

        Files that are left out are the first of the next batch, so that none waits forever.
        """
        batch: list[tuple[Job, Chunk]] = []
        sizes: list[int] = []
        added = True
        while added:
            added = False
            for job in self._open:
                chunk = job.take()
                if chunk is None:
                    continue
                longer = [*sizes, len(chunk.samples)]
                if sizes and not self.transcriber.fits(longer, None, self.batch_seconds):
                    job.put_back(chunk)
                    continue
                batch.append((job, chunk))
                sizes, added = longer, True
        served = {id(job) for job, _ in batch}
        self._open.sort(key=lambda job: id(job) in served)
        return batch

    def _decoded(self, chunks: list[Chunk]) -> "list[list[DecodedChunk] | Exception]":
        """Each chunk decoded; after an error, which does not tell whose it is, one by one."""
        try:
            return list(self.transcriber.decode(chunks, None, self.batch_seconds))
        except Exception as error:
            if len(chunks) == 1:
                return [error]
        return [self._decoded([chunk])[0] for chunk in chunks]

    def _answer(self) -> None:
        """Give the results of files that are complete."""
        for job in self._open:
            if not job.recording.complete or job.result.done():
                continue
            try:
                result = self.transcriber.result(job.recording)
            except Exception as error:
                job.fail(error)
                continue
            if isinstance(result, Transcript):
                self.metrics.audio.inc(result.seconds)
            job.result.set_result(result)
