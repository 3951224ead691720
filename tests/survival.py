"""Work that is killed, and what is left of it: for the tests, and for the long runs of tests/soak.

``python tests/survival.py FOLDER`` kills each of the quick kinds twice, in forks of a process that
has done nothing else: a fork of a test's process would inherit threads and locks of other tests.

Four kinds of work: a training, the preparation of a corpus, the transcription of files, and that of
many by workers. Each is a command that goes on where it was killed.
"""

import gzip
import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import yaml
from speech import RANDOM, RATE, log_rows, run_config, sentences, small_model, whistle, write_folder

from las.storage import checkpoint
from las.storage.weights import read_weights

KINDS = ("train", "prepare", "transcribe")
SLOW_KINDS = ("transcribe-bulk",)  # start processes, which takes seconds
_CHANGES = ("os.rename", "os.remove", "os.link", "os.mkdir")  # events besides opening to write


@dataclass(frozen=True)
class Work:
    """A command, and what its results are.

    Attributes:
        arguments: Of the command, which writes to ``output``.
        again: Further arguments, with which it goes on.
        output: Folder of the results.
        results: What is in the folder, without what depends on the clock.
    """

    arguments: list[str]
    again: list[str]
    output: Path
    results: Callable[[Path], object]


def work(kind: str, given: Path, output: Path, size: int = 1) -> Work:
    """A kind of work.

    Args:
        kind: one of :data:`KINDS` or :data:`SLOW_KINDS`.
        given: folder for what is read; made at the first time.
        output: folder for the results.
        size: the length of the work, 1 for a second.
    """
    kinds = {
        "train": _training,
        "prepare": _preparation,
        "transcribe": _transcription,
        "transcribe-bulk": _bulk,
    }
    return kinds[kind](given, output, size)


def _training(given: Path, output: Path, size: int) -> Work:
    from las.data import corpora
    from las.storage.settings import save_settings

    if not given.exists():
        texts = [" ".join(text.split()[:2]) for text in sentences(18, seed=5)]
        for part, chosen in (("train", texts[:14]), ("dev", texts[14:])):
            (items,) = corpora.folder(write_folder(given / part, chosen)).values()
            corpora.prepare(part, items, given)
    settings = run_config(
        given / "train.jsonl.gz",
        output,
        given / "dev.jsonl.gz",
        **RANDOM,
        training__epochs=2 * size,
        training__average=2,
        training__checkpoint_minutes=1e-6 if size == 1 else 0.02,
    )
    path = output.with_suffix(".yaml")
    save_settings(settings, path)
    return Work(["train", str(path)], [], output, _trained)


def _trained(output: Path) -> object:
    state = checkpoint.load(output / checkpoint.STATE)
    kept = [output / "model", output / "best", *sorted((output / "epochs").glob("*"))]
    files = [path / "model.safetensors" if path.is_dir() else path for path in kept]
    tensors = {
        f"{file.relative_to(output)} {name}": value
        for file in files
        for name, value in read_weights(file).items()
    }
    tensors |= {f"state {name}": value for name, value in state["model"].items()}
    for index, moments in state["optimizer"]["state"].items():
        tensors |= {f"optimizer {index} {name}": value for name, value in moments.items()}
    # NaN, as that of a WER of nothing, is not equal to itself.
    return {
        "log": repr(log_rows(output)),
        "position": repr(state["position"]),
        "settings": yaml.safe_load((output / "model/config.yaml").read_text()),
        "tensors": {name: value.numpy().tobytes() for name, value in tensors.items()},
    }


def _preparation(given: Path, output: Path, size: int) -> Work:
    if not given.exists():
        write_folder(given, sentences(6 + 300 * (size - 1)))
        (given / "s0" / "bad.wav").write_bytes(b"no audio")
        (given / "s0" / "bad.txt").write_text("ABE")
    arguments = ["prepare", "folder", str(given), str(output), "--dev-speakers", "1"]
    return Work(arguments, [], output, _files)


def _transcription(given: Path, output: Path, size: int) -> Work:
    if not given.exists():
        small_model().save_pretrained(given / "model")
        for index, text in enumerate(sentences(3 + 60 * (size - 1))):
            path = given / "in" / f"s{index % 2}" / f"{index:03d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.tile(whistle(text, index), size), RATE)
    arguments = ["transcribe", "--model", str(given / "model"), str(given / "in")]
    arguments += ["-o", str(output), "--batch-size", "1", "--threads", "1"]
    return Work(arguments, ["--resume"], output, _files)


def _bulk(given: Path, output: Path, size: int) -> Work:
    arguments = _transcription(given, output, size).arguments[1:-4]
    arguments += ["--workers", "2", "--block-files", "4"]
    return Work(["transcribe-bulk", *arguments], [], output, _rows)


def _rows(output: Path) -> object:
    return {
        path.name: [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for path in sorted(output.glob("*.jsonl"))
    }


def _files(output: Path) -> object:
    found = {}
    for path in sorted(output.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            name = str(path.relative_to(output))
            found[name] = gzip.decompress(data) if path.suffix == ".gz" else data
    return found


def whole(output: Path) -> None:
    """Fail if a file with a name of a result is half-written."""
    for path in output.rglob("*"):
        if path.name.startswith(".") or not path.is_file() or "tensorboard" in path.parts:
            continue
        if path.suffix == ".gz":
            for line in gzip.decompress(path.read_bytes()).splitlines():
                json.loads(line)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl" and path.name.startswith(("part-", "errors-")):
            for line in path.read_text().splitlines():
                json.loads(line)
        elif path.suffix == ".safetensors":
            read_weights(path)
        elif path.suffix == ".pt":
            checkpoint.load(path)
        elif path.suffix == ".yaml":
            assert yaml.safe_load(path.read_text())


def leftovers(output: Path) -> list[Path]:
    """Temporary files and locks."""
    return [path for path in output.rglob(".*") if path.name.startswith((".partial", ".lock"))]


def imported() -> None:
    """Import once what every fork would import: TensorBoard, and what draws pictures."""
    import torch
    from torch.utils import tensorboard  # noqa: F401

    from las.config import FrontendConfig
    from las.evaluation import plots

    plots.attention(whistle("ABE"), torch.rand(3, 20).numpy(), "ABE", FrontendConfig())


def forked(arguments: list[str], kill_at: int | None = None) -> tuple[int, int]:
    """Run the command in a fork of this process, which has imported everything.

    Args:
        arguments: of the command.
        kill_at: the change to a file before which the process kills itself: opening to write,
            renaming, removing, linking.

    Returns:
        the exit status, negative after a signal; and how many changes to files there were, or 0.
    """
    read, write = os.pipe()
    child = os.fork()
    if not child:
        _command(arguments, kill_at, write)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        counted = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(counted or 0)


def _command(arguments: list[str], kill_at: int | None, report: int) -> None:
    from las.cli import main

    changes = 0

    def count(event: str, values: tuple) -> None:
        nonlocal changes
        # 'open' has path, mode and flags.
        if event in _CHANGES or (event == "open" and values[2] & (os.O_WRONLY | os.O_RDWR)):
            changes += 1
            if changes == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    sys.argv = ["las", *arguments]
    status = 1
    try:
        main.main()
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(report, str(changes).encode())
        os._exit(status)


def killed_twice(kind: str, folder: Path) -> None:
    """Kill a kind of work twice before changes to files; fail if it ends with other results."""
    folder.mkdir()
    undisturbed = work(kind, folder / "given", folder / "whole")
    status, changes = forked(undisturbed.arguments)
    assert status == 0 and changes > 5, (status, changes)
    killed = work(kind, folder / "given", folder / "killed")
    for moment in random.Random(kind).sample(range(2, changes), 2):
        status, _ = forked([*killed.arguments, *killed.again], kill_at=moment)
        # What is done needs no second time: the next run may be over before the moment comes.
        assert status in (-signal.SIGKILL, 0), status
        whole(killed.output)
    status, _ = forked([*killed.arguments, *killed.again])
    assert status == 0, status
    assert killed.results(killed.output) == undisturbed.results(undisturbed.output)
    assert leftovers(killed.output) == []
    print(f"{kind}: killed twice, and the same", flush=True)


if __name__ == "__main__":
    imported()
    for one in KINDS:
        killed_twice(one, Path(sys.argv[1]) / one)
