"""Starts the processes of a data-parallel training with torch's elastic launcher.

``torchrun`` does the same, but prints its own traceback of forty lines after an invalid setting.
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
    """Run ``python -m las ARGUMENTS`` in several processes of one torch.distributed group.

    Their standard error is printed when they have ended, each distinct line once.

    Args:
        count: number of processes.
        arguments: of the command.

    Returns:
        the exit status of the process that failed first; 130 or 143 after a signal, which is
        forwarded to the processes.
    """
    # Silence the launcher's messages; each of its loggers has its own level.
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
