"""`las serve` under load: latency, and hours of audio an hour, by the number of clients.

A server of its own on a free port gets the shipped samples, joined to recordings of a few seconds,
from so many clients at once; each client sends the next request when it has its answer. One client
is one request at a time: every other number of clients is beside it, and has to get its texts.

    python -m benchmarks.system.serving
    python -m benchmarks.system.serving --render      # only the table of docs/serving.md
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import soundfile

from benchmarks import common, module
from las.audio import reader
from las.model.folder import bundled

NAME = "serving"
PAGE = Path(__file__).parents[2] / "docs/serving.md"
SAMPLES = bundled().parent / "samples"
PARTS = (1, 3)  # samples in a recording
MODEL = "served"
_BLOCK = re.compile(r"(<!-- serving -->\n).*?(<!-- end -->)", re.DOTALL)


def write_recordings(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Recordings of 1 to 3 samples each, in a seeded order."""
    samples = [reader.load(path) for path in sorted(SAMPLES.glob("*-*.*"))]
    random = np.random.default_rng(seed)
    paths = []
    for index in range(count):
        chosen = random.integers(len(samples), size=random.integers(*PARTS, endpoint=True))
        paths.append(folder / f"{index:03d}.flac")
        joined = np.concatenate([samples[sample] for sample in chosen])
        soundfile.write(paths[-1], joined, reader.SAMPLE_RATE)
    return paths


@contextmanager
def served(options: Sequence[str]) -> Iterator[str]:
    """A server in a process of its own; its URL."""
    command = [sys.executable, "-m", "las", "serve", "--port", "0", "--name", MODEL, *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"http://\S+(?=/v1$)", line.strip())
        if found is None:
            raise SystemExit(f"the server did not start: {line}{process.stderr.read()}")
        yield found[0]
    finally:
        process.terminate()
        process.communicate()


def load(url: str, paths: Sequence[Path], clients: int) -> tuple[list[float], list[str], float]:
    """Send every recording once, from so many clients.

    Returns:
        seconds of each request, its text, and seconds of all together.
    """
    latencies, texts = [0.0] * len(paths), [""] * len(paths)
    left, lock = iter(range(len(paths))), threading.Lock()
    failures: list[Exception] = []
    contents = [path.read_bytes() for path in paths]

    def client() -> None:
        with httpx.Client(timeout=None) as session:
            while True:
                with lock:
                    index = next(left, None)
                if index is None:
                    return
                start = time.perf_counter()
                answer = session.post(
                    f"{url}/v1/audio/transcriptions",
                    files={"file": (paths[index].name, contents[index])},
                    data={"model": MODEL},
                )
                latencies[index] = time.perf_counter() - start
                answer.raise_for_status()
                texts[index] = answer.json()["text"]

    def guarded() -> None:
        try:
            client()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"a request failed: {common.reason(failures[0])}")
    return latencies, texts, time.perf_counter() - start


def batch_files(url: str) -> tuple[float, float]:
    """Files in all batches so far, and batches."""
    text = httpx.get(f"{url}/metrics").text
    found = dict(re.findall(r"^las_batch_files_(sum|count) (\S+)$", text, re.MULTILINE))
    return float(found["sum"]), float(found["count"])


def measure(url: str, paths: Sequence[Path], clients: int, texts: Sequence[str]) -> common.Row:
    """One number of clients; ``texts`` are those of one client, empty in its own row."""
    files, batches = batch_files(url)
    latencies, found, passed = load(url, paths, clients)
    more_files, more_batches = batch_files(url)
    seconds = sum(soundfile.info(path).duration for path in paths)
    cuts = statistics.quantiles(latencies, n=20, method="inclusive")
    return {
        "clients": clients,
        "requests": len(paths),
        "p50_s": round(statistics.median(latencies), 4),
        "p95_s": round(cuts[-1], 4),
        "wall_seconds": round(passed, 3),
        "audio_seconds": round(seconds, 2),
        "audio_hours_per_hour": round(seconds / passed, 2),
        "files_per_batch": round((more_files - files) / max(1, more_batches - batches), 2),
        "other_texts": sum(a != b for a, b in zip(found, texts or found, strict=True)),
        "texts": found,
    }


def table(rows: Sequence[common.Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| clients | p50, s | p95, s | hours of audio an hour | files in a batch | other texts |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['clients']} | {row['p50_s']:.2f} | {row['p95_s']:.2f} "
        f"| {row['audio_hours_per_hour']:.1f} | {row['files_per_batch']:.1f} "
        f"| {row['other_texts']} of {row['requests']} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def report(found: common.Row) -> str:
    """The results as Markdown."""
    lines = [f"# {module(NAME)}: {found['device']}", ""]
    lines += [f"- {key}: {value}" for key, value in found.items() if key not in ("device", "rows")]
    return "\n".join(lines) + "\n\n" + table(found["rows"])


def documented(results: Path) -> str:
    """What docs/serving.md says of the results."""
    paths = sorted(results.glob(f"*/{NAME}.json"))
    if not paths:
        return f"Not measured yet. `python -m {module(NAME)}` does it and writes the table here.\n"
    parts = []
    for path in paths:
        found = json.loads(path.read_text("utf-8"))
        seconds = found["rows"][0]["audio_seconds"] / found["rows"][0]["requests"]
        said = (
            f"{found['device']}, {found['date'][:10]}: recordings of {seconds:.1f} s on average, "
            f"model {found['model']}, {found['options'] or 'default options'}, load of the machine "
            f"{found['load']} before, clients on the same cores; `{path.parent.name}/{path.name}`."
            "\n\n"
        )
        parts.append(said + table(found["rows"]))
    return "\n".join(parts)


def render(results: Path, page: Path = PAGE) -> None:
    """Write the tables into the page."""
    text = documented(results)
    new, count = _BLOCK.subn(lambda block: block[1] + text + block[2], page.read_text("utf-8"))
    assert count == 1, page
    common.write(page, new)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write JSON and tables; exit status 1 if a text depends on the clients."""
    parser = argparse.ArgumentParser(prog=f"python -m {module(NAME)}", description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cpu")
    parser.add_argument("--model", type=Path, help="model folder; default: the bundled model")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--requests", type=int, default=96, help="for each number of clients")
    parser.add_argument("--options", default="", help="of `las serve`: --options='--greedy'")
    parser.add_argument("--output", type=Path, default=common.RESULTS, help="folder of the results")
    parser.add_argument("--render", action="store_true", help="only write docs/serving.md")
    chosen = parser.parse_args(arguments)
    if chosen.render:
        render(chosen.output)
        return
    given = sys.argv[1:] if arguments is None else arguments
    chosen.command = " ".join([parser.prog, *given])
    found: common.Row = {**common.environment(chosen), "options": chosen.options}
    found.pop("note", None)
    found |= {"model": chosen.model.name if chosen.model else "bundled", "rows": []}
    options = ["--device", chosen.device, "--max-queue", str(max(chosen.clients))]
    options += ["--model", str(chosen.model)] if chosen.model else []
    with tempfile.TemporaryDirectory() as folder:
        paths = write_recordings(Path(folder), chosen.requests)
        with served([*options, *chosen.options.split()]) as url:
            load(url, paths[:2], 1)  # what is built or read once
            texts: list[str] = []
            for clients in dict.fromkeys([1, *chosen.clients]):
                row = measure(url, paths, clients, texts)
                heard = row.pop("texts")
                texts = texts or heard
                found["rows"].append(row)
                print(row, flush=True)
    target = chosen.output / common.slug(found["device"])
    target.mkdir(parents=True, exist_ok=True)
    common.write(target / f"{NAME}.json", json.dumps(found, indent=1) + "\n")
    common.write(target / f"{NAME}.md", report(found))
    if chosen.output == common.RESULTS:
        render(chosen.output)
    print(f"wrote {target / NAME}.json")
    if other := sum(row["other_texts"] for row in found["rows"]):
        raise SystemExit(f"error: {other} texts are not those of one request at a time")


if __name__ == "__main__":
    main()
