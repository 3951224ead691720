"""What a run comes to: few lines at its end; the reports and the README's table, anywhere."""

import json
import tarfile
from pathlib import Path

from benchmarks.gpu import store

TIMED = ("sequence", "attention", "decoder", "greedy")  # whose rows benchmarks.common writes


def _whole(folder: Path, plots: bool) -> None:
    """Make the tables of what was cut off, and plots if they are wanted."""
    from benchmarks import common

    for lines in sorted(folder.glob("*.jsonl")):
        common.render(lines.stem, folder, plots=False)
    for name in TIMED if plots else ():
        header, rows = common.read(name, folder)
        if rows:
            common.plot(name, folder, header, rows)


def lines(folder: Path) -> list[str]:
    """Every measured row of a device's folder by what it compares, and the table of targets."""
    from benchmarks import common, targets

    _whole(folder, plots=False)
    found = []
    for name in TIMED:
        for key, methods in common.grouped(common.read(name, folder)[1]).items():
            what = " ".join(str(x) for x in (name, *key) if x is not None)
            took = (
                f"{m.replace(' graphed', '*')} {row['median_us']:.1f}" for m, row in methods.items()
            )
            found.append(f"{what}: {', '.join(took)}")
    return [*found, "(us; * in a CUDA graph)", *targets.table(targets.read(folder))]


def summary(folder: Path) -> int:
    """Print :func:`lines` of every device that a run has measured."""
    for device in sorted(path for path in folder.glob("results/*") if path.is_dir()):
        for line in lines(device):
            print(f"summary: {line}")
    return 0


def show(archive: Path, into: Path, log: bool = True) -> int:
    """Put an archive's results where the benchmarks keep theirs, and make all that is made of them.

    Args:
        archive: of a run, from this machine or another.
        into: folder of the results; the README's table is made anew if it is the repository's.
        log: whether to print what the run has printed.
    """
    from benchmarks import common, targets

    try:
        found = store.unpack(archive, lambda path: path.parts[0] in ("results", "console.txt"))
    except (OSError, EOFError, tarfile.TarError) as error:
        raise SystemExit(f"error: {archive}: {str(error).splitlines()[0]}") from error
    console = found.pop(Path("console.txt"), b"").decode()
    print(console if log else "", end="")
    folders = set()
    for path, data in found.items():
        target = into / path.relative_to("results")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        folders.add(target.parent)
    for folder in sorted(folders):
        _whole(folder, plots=True)
        devices = [json.loads(path.read_text()).get("device") for path in folder.glob("*.json")]
        print(f"wrote {folder}: {devices[0] if devices else 'nothing was measured'}")
    if into.resolve() == common.RESULTS.resolve():
        targets.rewrite()
    return 0
