"""Several processes that train together, started and watched by torch's own launcher.

``torchrun`` does the same and ends a mistake in a setting with forty lines of its own traceback.
"""

import logging
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def run_together(count: int, arguments: Sequence[str]) -> int:
    """Run ``python -m las ARGUMENTS`` in processes that know of each other.

    What they write to standard error is printed when they have ended, each line once: the
    processes mostly say the same.

    Args:
        count: how many processes.
        arguments: of each.

    Returns:
        the exit status: of the process that failed first; 130 or 143 after a signal, which is
        passed on to the processes.
    """
    # What the launcher says of processes that ended helps nobody; each logger has its own level.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="las-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            monitor_interval=0.2,
            logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=Std.ERR),
        )
        try:
            elastic_launch(config, sys.executable)("-u", "-m", "las", *arguments)
            status = 0
        except ChildFailedError as error:
            _, failure = error.get_first_failure()
            status = failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
        except SignalException as error:
            status = 128 + int(error.sigval)
        logs = sorted(Path(folder).rglob("stderr.log"))
        written = [log.read_text("utf-8", errors="replace") for log in logs]
    lines = dict.fromkeys(line for text in written for line in text.splitlines())
    for line in lines:
        print(line, file=sys.stderr)
    return status
