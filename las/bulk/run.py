"""A run: the blocks that are not done yet, through the workers, into the output folder."""

from collections.abc import Iterator

from las.bulk import workers
from las.bulk.output import BulkOutput
from las.bulk.results import Result


def run(output: BulkOutput, make: workers.Maker, using: workers.Pool) -> Iterator[Result]:
    """Transcribe and write what is missing; the folder is reserved, and Ray is running.

    Args:
        output: the folder, and the blocks.
        make: see :func:`las.bulk.workers.transcribe`.
        using: the workers.

    Yields:
        what came of each block, once it is written.

    Raises:
        LASError: see :func:`las.bulk.workers.transcribe`.
        OSError: a part cannot be written.
    """
    for index, result in workers.transcribe(output.pending(), make, using):
        output.write(index, result)
        yield result
