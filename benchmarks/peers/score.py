"""Word error rates of recognisers on the same recordings: ``python -m benchmarks.peers.score``.

    python -m benchmarks.peers.score MANIFEST... --peers VENV_DIR [--systems las,pocketsphinx,...]

Each recogniser is a program in an environment of its own (``setup.sh`` makes it) that gets the
samples of one utterance at a time, so that all hear the same, and answers with a text. Texts of all
are normalised alike (``spoken.py``) and scored by `las.scoring.wer`. What others recognised is kept
in ``--work`` until it is asked for again: a run that was stopped goes on, and one of every third
utterance may be followed by one of all.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import common
from benchmarks.peers.hearing import RATE
from benchmarks.peers.recogniser import Recogniser
from benchmarks.peers.spoken import spoken
from las.audio import reader
from las.data import corpora, recordings
from las.data.manifests import check_alphabet, read_manifest
from las.errors import LASError
from las.model.folder import bundled
from las.scoring import wer
from las.storage.atomic import replacing
from las.text.characters import Characters

SYSTEMS = ("las", "pocketsphinx", "whisper")
WORK = Path("build/peers")


class Spoken(NamedTuple):
    """An utterance, whose audio is read when it is needed."""

    id: str
    text: str
    read: Callable[[], np.ndarray]  # float32 [S] at RATE


def utterances(source: Path) -> list[Spoken]:
    """Utterances of a manifest of ``las prepare``, or of a list or folder that it would take.

    Raises:
        LASError: there are none, or the source is damaged.
    """
    if source.name.endswith(".jsonl.gz"):
        cuts = read_manifest(source)
        check_alphabet(cuts, Characters(), str(source))  # and that each is an utterance
        return [
            Spoken(c.id, c.supervisions[0].text, partial(recordings.waveform, c, RATE))
            for c in cuts
        ]
    (items,) = corpora.folder(source).values()
    items = [item for item in items if not item.beside]
    for item in items:
        if item.flaw is not None:
            raise LASError(f"{item.path}: {': '.join(item.flaw)}")
    return [Spoken(i.id, i.text, partial(reader.load, i.path, RATE)) for i in items]


def pcm(samples: np.ndarray) -> bytes:
    """Float samples [S] as int16, little endian."""
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2").tobytes()


class Kept:
    """What a recogniser answered, a line an utterance, written as it comes.

    Args:
        path: of the file; lines that a kill cut off are recognised anew.
        about: what the recogniser says of itself; answers of another one are left out.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        lines = list(_parsed(path))
        rows = lines[1:] if lines[:1] == [about] else []
        self.found: dict[str, dict[str, Any]] = {row["id"]: row for row in rows}
        common.write(path, "".join(json.dumps(row) + "\n" for row in (about, *rows)))

    def add(self, row: dict[str, Any]) -> None:
        """Note an answer."""
        self.found[row["id"]] = row
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _parsed(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:
            return


def recognise(recogniser: Recogniser, spoken: Sequence[Spoken], kept: Kept) -> None:
    """Ask for every utterance that is not known yet."""
    for number, utterance in enumerate(spoken, 1):
        if utterance.id not in kept.found:
            samples = utterance.read()
            answer = recogniser.hear(pcm(samples))
            kept.add({"id": utterance.id, "seconds": len(samples) / RATE, **answer})
        if number % 20 == 0:
            print(f"{recogniser.name}: {number} of {len(spoken)}", flush=True)


def report(chosen: Sequence[Spoken], kept: Kept, **extra: object) -> dict[str, Any]:
    """Score, seconds and counts of each utterance; no word of what was said."""
    texts = [wer.Utterance(u.id, spoken(u.text), spoken(kept.found[u.id]["text"])) for u in chosen]
    rows = [kept.found[u.id] for u in chosen]
    seconds = sum(row["seconds"] for row in rows)
    cpu_s = sum(row["cpu_s"] for row in rows)
    clock = {"speech_s": seconds, "cpu_s": cpu_s, "cpu_s_per_s": cpu_s / seconds}
    found = wer.report_json(texts, wer.score(texts), texts=False, **clock, **extra)
    return {key: value for key, value in found.items() if not key.startswith("top_")}


def write_report(path: Path, found: dict[str, Any]) -> None:
    """Write JSON with a line an utterance."""
    rows = ",\n  ".join(json.dumps(row) for row in found["utterances"])
    rest = json.dumps({k: v for k, v in found.items() if k != "utterances"}, indent=1)
    with replacing(path) as temporary:
        temporary.write_text(f'{rest[:-2]},\n "utterances": [\n  {rows}\n ]\n}}\n')


def table(folder: Path) -> str:
    """All reports of a folder as Markdown."""
    lines = ["# benchmarks.peers.score", "", "CPU is seconds of the processor a second of speech."]
    lines += ["", "| set | system | utterances | WER % (95 % interval) | CPU | device | date |"]
    lines.append("|" + "---|" * 7)
    for path in sorted(folder.glob("*.json"), key=lambda p: p.stem.partition("-")[::-1]):
        found = json.loads(path.read_text())
        low, high = found["wer_interval"]
        cells = [found["set"], found["name"], f"{len(found['utterances'])} of {found['of']}"]
        cells += [f"{found['wer']:.2f} ({low:.2f} to {high:.2f})", f"{found['cpu_s_per_s']:.3f}"]
        lines.append(f"| {' | '.join([*cells, found['device'], found['date'][:10]])} |")
    return "\n".join(lines) + "\n"


def commands(chosen: argparse.Namespace) -> dict[str, list[str]]:
    """How to start each system that was asked for and is there; says why one is not."""
    here, found = Path(__file__).parent, {}
    for name in chosen.systems.split(","):
        if name not in SYSTEMS:
            raise LASError(f"no system {name!r}; there are: {', '.join(SYSTEMS)}")
        if name == "las":
            found[name] = [sys.executable, "-m", "benchmarks.peers.las_transcribe"]
            found[name].append(str(chosen.model.absolute()))
            continue
        python = (chosen.peers or Path()) / name / "bin" / "python"
        if chosen.peers is None or not python.exists():
            print(f"{name}: skipped: no environment (benchmarks/peers/setup.sh makes it)")
        elif name == "whisper" and not (chosen.whisper and (chosen.whisper / "model.bin").exists()):
            print(f"{name}: skipped: no model folder with a model.bin (--whisper FOLDER)")
        else:
            found[name] = [str(python.absolute()), str(here / f"{name}_transcribe.py")]
            found[name] += [str(chosen.whisper.absolute())] if name == "whisper" else []
    return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.score")
    parser.add_argument("manifests", nargs="+", type=Path, metavar="MANIFEST")
    parser.add_argument("--peers", type=Path, default=os.environ.get("LAS_PEERS"))
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="default: all that are there")
    parser.add_argument("--model", type=Path, default=bundled(), help="of las")
    parser.add_argument("--whisper", type=Path, help="model folder for faster-whisper")
    parser.add_argument("--every", type=int, default=1, help="score every so many utterances")
    parser.add_argument("--output", type=Path, default=common.RESULTS / "peers")
    parser.add_argument("--work", type=Path, default=WORK, help="where answers are kept")
    chosen = parser.parse_args(arguments)
    if chosen.every < 1:
        raise LASError(f"--every is {chosen.every}; give 1 or more")
    chosen.peers = Path(chosen.peers) if chosen.peers else None
    # Names instead of folders: whoever reads the results has others.
    told = [*parser.prog.split(), *(f"{path.parent.name}/{path.name}" for path in chosen.manifests)]
    told += ["--peers", "VENV_DIR"] if chosen.peers else []
    told += ["--systems", chosen.systems] if chosen.systems != ",".join(SYSTEMS) else []
    told += ["--whisper", chosen.whisper.name] if chosen.whisper else []
    told += ["--every", str(chosen.every)] if chosen.every > 1 else []
    chosen.command = shlex.join(told)
    return chosen


def run(chosen: argparse.Namespace) -> None:
    """Score all systems on all manifests."""
    sets = {path: utterances(path) for path in chosen.manifests}
    for name, command in commands(chosen).items():
        recogniser = Recogniser(name, command)
        versions = ", ".join(f"{k} {v}" for k, v in recogniser.about["versions"].items())
        for manifest, everyone in sets.items():
            subset = everyone[:: chosen.every]
            what = f"{manifest.resolve().parent.name}-{manifest.name.split('.')[0]}"
            path = chosen.work / f"{name}-{what}.jsonl"
            if name == "las":  # whose code and model change from day to day
                path.unlink(missing_ok=True)
            kept = Kept(path, recogniser.about)
            recognise(recogniser, subset, kept)
            found = report(
                subset,
                kept,
                set=what,
                of=len(everyone),
                every=chosen.every,
                name=name,
                search=recogniser.about["how"],
                command=chosen.command,
                device=common.device_name("cpu"),
                load=round(os.getloadavg()[0], 2),
                date=common.now(),
                versions=versions,
            )
            write_report(chosen.output / f"{name}-{what}.json", found)
            common.write(chosen.output / "README.md", table(chosen.output))
            print(f"{name} {what}: WER {found['wer']:.2f} %, {found['cpu_s_per_s']:.3f} CPU s/s")
        recogniser.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Score; what a user can cure is one line."""
    try:
        run(parse(arguments))
    except LASError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
