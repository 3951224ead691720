"""Recipes as a user runs them: the script itself, on tiny corpora, with sizes that take seconds."""

import shutil
import subprocess
import sys
from pathlib import Path

import soundfile

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "recipes/demo/corpus"

# A model and a training that take seconds, by the settings that the scripts pass on.
TINY = [
    "frontend.n_mels=20",
    "listener.layers=2",
    "listener.width=16",
    "listener.stack=2",
    "listener.reduction=2",
    "listener.convolutions=[4]",
    "attention.width=16",
    "attention.channels=2",
    "attention.taps=5",
    "speller.width=16",
    "speller.embedding=8",
    "data.speeds=[1.0]",
    "data.batch_utterances=4",
    "data.buckets=1",
    "data.workers=0",
    "training.epochs=2",
    "training.ctc_only=1",
    "training.evaluate_every=1",
    "training.average=0",
    "training.device=cpu",
]


def copy_recipe(root: Path, name: str) -> None:
    """The recipe in a folder of its own, where it may write, with what it shares with others."""
    ignored = shutil.ignore_patterns("corpus", "data", "runs", "results")
    shutil.copytree(ROOT / "recipes" / name, root / "recipes" / name, ignore=ignored)
    shutil.copy(ROOT / "recipes/summary.py", root / "recipes")


def run_recipe(root: Path, name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``recipes/NAME/run.sh`` below a folder, by the Python of the tests."""
    return subprocess.run(
        ["bash", root / "recipes" / name / "run.sh", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHON": sys.executable,
            "PYTHONPATH": ":".join(sys.path),
            "PYTHONWARNINGS": "error::RuntimeWarning",
        },
        check=False,
    )


def librispeech_part(folder: Path, part: str, speakers: int, utterances: int) -> None:
    """A part in LibriSpeech's layout: the first of some speakers of the demo corpus.

    Args:
        folder: LibriSpeech.
        part: the folder in it.
        speakers: how many.
        utterances: of each.
    """
    chosen = sorted(p for p in (DEMO / part.split("-")[0]).iterdir() if p.is_dir())[:speakers]
    for speaker in chosen:
        for texts in sorted(speaker.rglob("*.trans.txt")):
            chapter = folder / part / texts.parent.relative_to(DEMO / part.split("-")[0])
            chapter.mkdir(parents=True)
            lines = texts.read_text().splitlines(keepends=True)[:utterances]
            (chapter / texts.name).write_text("".join(lines))
            for line in lines:
                shutil.copy(texts.with_name(f"{line.split()[0]}.opus"), chapter)


def write_an4(root: Path) -> None:
    """CMU's layout: nine speakers to train on, of whom eight are carved out, and one to test on."""
    for part, count in (("train", 9), ("test", 1)):
        speakers = sorted(p for p in (DEMO / part).iterdir() if p.is_dir())[:count]
        names, lines = [], []
        for speaker in speakers:
            (texts,) = speaker.rglob("*.trans.txt")
            for line in texts.read_text().splitlines()[:2]:
                id, _, text = line.partition(" ")
                samples, rate = soundfile.read(texts.with_name(f"{id}.opus"))
                name = f"{part}/{speaker.name}/an{len(names)}-{speaker.name}-b"
                path = root / "wav" / f"{name}.sph"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, samples, rate, format="NIST", subtype="PCM_16")
                names.append(name)
                lines.append(f"<s> {text} </s> ({path.stem})")
        (root / "etc").mkdir(parents=True, exist_ok=True)
        (root / f"etc/an4_{part}.fileids").write_text("".join(f"{n}\n" for n in names))
        (root / f"etc/an4_{part}.transcription").write_text("".join(f"{n}\n" for n in lines))


def summary_names(output: str) -> list[str]:
    """Names of the reports that a recipe's last table lists."""
    _, found, table = output.rpartition(": word error rates\n")
    assert found, output[-2000:]
    return [line.split()[0] for line in table.splitlines()]
