"""A driver and workers that need no model: what Ray does to them is the same, and they start soon.

A worker dies at a file whose name says so.
"""

import os
import signal
import sys
import time
from pathlib import Path

from las.bulk.blocks import Block, of_files
from las.bulk.output import BulkOutput, BulkSettings
from las.bulk.results import Result
from las.bulk.run import run
from las.bulk.workers import Pool, ray_running

DEADLY = "deadly"


class Light:
    """Takes a moment for each file."""

    def __init__(self, device: str) -> None:
        assert device == "cpu"

    def __call__(self, block: Block) -> Result:
        result = Result()
        for item in block.items():
            if DEADLY in item.path:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.05)
            result.rows.append({"path": item.path, "text": "A"})
        return result


def transcribe(folder: Path, count: int, workers: int, address: str | None = None) -> None:
    blocks = of_files([Path(f"{index}.wav") for index in range(count)], 1)
    output = BulkOutput(folder, BulkSettings(), blocks)
    with output.reserved(), ray_running(address):
        for _ in run(output, Light, Pool(workers, 0, "cpu")):
            pass


if __name__ == "__main__":
    from tests.bulk import light  # workers import what a driver names, and `__main__` is no name

    light.transcribe(Path(sys.argv[1]), int(sys.argv[2]), 1, sys.argv[3])
