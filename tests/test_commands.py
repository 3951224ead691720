"""Every command of README, docs/ and the recipes' READMEs, run in a shell from the text itself.

They run one after another in a folder that looks like the repository, where the files that they
name are there, small. What is put in their place is in :data:`CHANGES`, what is not run in
:data:`EXCEPTIONS`. `benchmarks/README.md`, most of which needs a GPU, is not among them.
"""

import gzip
import lzma
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import yaml
from recipe import DEMO, ROOT, TINY, copy_recipe, librispeech_part, summary_names, write_an4

import las
from las.data import corpora
from las.model.folder import bundled
from las.scoring import wer
from las.scoring.alignment import Utterance

DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
    *(f"recipes/{path.parent.name}/README.md" for path in sorted(ROOT.glob("recipes/*/README.md"))),
]

# Commands that no test runs, and why.
EXCEPTIONS = {
    "make demo": "makes an environment from PyPI",
    "make test": "is what runs this",
    "make lint": "CI runs it",
    "make docs": "is part of make lint",
    ".venv/bin/pre-commit install": "changes the repository's hooks",
    "benchmarks/gpu.sh": "needs a GPU; tests/benchmarks/test_gpu_run.py rehearses it",
    "python recipes/demo/synthesise.py OUT": "needs espeak-ng, flite and opus-tools",
    "recipes/librispeech/download.py corpora train-clean-5 dev-clean": "downloads",
    "python tests/fuzz_audio.py --cases 10000 --seed 0 --share 0.1": "takes hours",
}

# What is changed in a command before it runs, all that matches: sizes, and for recipes that take
# all else from another the last stage.
CHANGES = [
    # A model that is given has its own sizes.
    (r"las train recipes/finetune/.*", r"\g<0> training.epochs=1 data.workers=0"),
    (
        r"(recipes/(an4|demo|librispeech)/run\.sh|las train (?!recipes/finetune)"
        r"|python -m benchmarks\.system\.training) ?.*",
        r"\g<0> TINY",
    ),
    (r"recipes/general/run\.sh .*", r"\g<0> --to prepare"),
    # Ray is started by tests/bulk/test_workers.py; here the options are checked.
    (r"las transcribe-bulk .*", r"\g<0> --help"),
    (r"recipes/librispeech/run\.sh 100 .*", r"\g<0> --to train"),
    (r"--(bpe|size) 500", r"--\1 12"),
    (
        r"python -m benchmarks\.kernels\.attention",
        r"\g<0> --smallest --no-plot --output bench",
    ),
]


# Reports that the last table of a recipe lists, which it ends with.
TABLES = {
    "recipes/an4/run.sh path/to/an4": ["dev", "test-tuned-lm", "test-tuned", "test"],
    "recipes/demo/run.sh": ["dev", "test"],
    "recipes/librispeech/run.sh mini path/to/LibriSpeech": ["dev-clean-greedy", "dev-clean"],
    "recipes/librispeech/run.sh mini path/to/LibriSpeech --text books.txt.xz": [
        "dev-clean-greedy",
        "dev-clean",
    ],
}

_RUN: set[str] = set()


def _one_line(loop: re.Match[str]) -> str:
    return re.sub(r"(?<=do)\n", " ", loop[0]).replace("\n", "; ")


def commands(text: str) -> list[str]:
    """Those of blocks of code in their order, then those in the lines between."""
    found = []
    for language, block in re.findall(r"^```(bash|console)\n(.*?)^```", text, re.M | re.S):
        whole = re.sub(r"^for .*?^done$", _one_line, block.replace("\\\n", " "), flags=re.M | re.S)
        lines = whole.splitlines()
        if language == "console":  # the others are what a command prints
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        found += [re.sub(r"\s+", " ", re.sub(r"\s+# .*", "", line)).strip() for line in lines]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for span in re.findall(r"`((?:las|python|torchrun|make) [^`]+)`", prose):
        # With a name in capitals or dots it is a pattern, not a command; so is a bare option.
        if not re.search(r"\.\.\.|\b[A-Z]{2,}\b", span) and len(span.split()) > 3:
            found.append(re.sub(r"\s+", " ", span))
    return [c for c in found if c and not c.startswith((". ", "#"))]


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    """A folder like the repository, with what the commands name."""
    root = tmp_path_factory.mktemp("scene")
    for name in ("las", "kernels"):
        (root / name).symlink_to(ROOT / name)
    # A copy: benchmarks write their results into it, and those in the repository must stay.
    shutil.copytree(
        ROOT / "benchmarks", root / "benchmarks", ignore=shutil.ignore_patterns("*.pyc")
    )
    for name in ("an4", "demo", "finetune", "general", "librispeech"):
        copy_recipe(root, name)
    for part, speakers in (("train", 3), ("dev", 1), ("test", 1)):
        librispeech_part(root / "recipes/demo/corpus", part, speakers, 3)
    lm = root / "recipes/an4/conf/lm.yaml"
    lm.write_text(
        lm.read_text().replace("steps: 500", "steps: 4").replace("dev_every: 10", "dev_every: 3")
    )
    bin = root / ".venv/bin"
    bin.mkdir(parents=True)
    for name, words in (("las", "-m las"), ("python", "")):
        (bin / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (bin / name).chmod(0o755)
    given = root / "path/to"
    for part, speakers in {
        "train-clean-5": 3,
        "train-clean-100": 7,
        "dev-clean": 1,
        "dev-other": 1,
        "test-clean": 1,
        "test-other": 1,
    }.items():
        librispeech_part(given / "LibriSpeech", part, speakers, 3)
    shutil.copytree(given / "LibriSpeech/dev-clean", given / "LibriSpeech/dev-clean-2")
    (root / "LibriSpeech").symlink_to(given / "LibriSpeech")
    write_an4(given / "an4")
    others = {"speechocean762": 1, "commonvoice": 41, "readings": 1, "commonvoice-more": 1}
    for name, speakers in others.items():
        librispeech_part(given / name, "train", speakers, 1)
    texts = [
        line.partition(" ")[2]
        for path in sorted((DEMO / "train").rglob("*.trans.txt"))[:40]
        for line in path.read_text().splitlines()
    ]
    with lzma.open(root / "books.txt.xz", "wt") as file:
        file.writelines(f"{text}\n" for text in texts)
    with gzip.open(root / "model.arpa.gz", "wt") as file:
        file.write(
            "\\data\\\nngram 1=4\n\n\\1-grams:\n-1\t<s>\n-1\t</s>\n-1\t<unk>\n-1\tSTOP\n\n\\end\\\n"
        )
    samples, rate = soundfile.read(Path(las.__file__).parent / "samples/503-1-0004.flac")
    for name in ("talk.wav", "a.mp3", "a.wav", "b.wav", "c.wav"):
        soundfile.write(root / name, samples, rate)
    (root / "recordings.csv").write_text(
        "audio,text,speaker\n" + "".join(f"{n}.wav,what's the weather,{n}\n" for n in "abc")
    )
    settings: dict[str, dict[str, object]] = {}
    for setting in TINY:
        key, _, value = setting.partition("=")
        section, _, name = key.partition(".")
        settings.setdefault(section, {})[name] = yaml.safe_load(value)
    (root / "conf.yaml").write_text(yaml.safe_dump(settings))
    for place in ("runs/mine/model", "runs/general/bundle"):
        shutil.copytree(bundled(), root / place)
    librispeech_part(root / "carved", "dev", 2, 2)
    items = corpora.librispeech(root / "carved", ["dev"])["dev"]
    for name in ("dev", "mine", "mine-dev", "demo/demo-dev"):
        manifest = root / f"data/{name}.jsonl.gz"
        corpora.prepare(manifest.name.split(".")[0], items, manifest.parent)
    for name in "AB":
        pairs = [Utterance(str(n), "STOP HERE", f"STOP {name}"[: 5 + n]) for n in range(3)]
        wer.write_reports(root / name, pairs, wer.score(pairs))
    return root


def run(scene: Path, command: str) -> str:
    """Run it in a shell; what it printed."""
    for pattern, change in CHANGES:
        command = re.sub(pattern, change, command)
    command = command.replace("TINY", " ".join(TINY))
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=scene,
        capture_output=True,
        text=True,
        check=False,
        env={
            "PATH": f"{scene}/.venv/bin:/usr/bin:/bin",
            "PYTHONPATH": ":".join(sys.path),
            "OMP_NUM_THREADS": "1",
            "HOME": os.environ.get("HOME", "/"),
        },
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_a_document_says_runs(scene, name):
    for command in commands((ROOT / name).read_text("utf-8")):
        if command not in EXCEPTIONS and command not in _RUN:
            out = run(scene, command)
            _RUN.add(command)  # two documents may say it
            if command in TABLES:
                assert summary_names(out) == TABLES[command]


def test_what_the_documents_show_is_printed(scene):
    shown = set()
    for name in ("README.md", "docs/transcribe.md"):
        text = (ROOT / name).read_text("utf-8")
        for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S):
            shown |= set(re.findall(r"^\$ (.*)\n((?!\$ ).+)\n", block, re.M))
    assert shown
    for command, printed in shown:
        assert run(scene, command) == printed + "\n"


def test_the_exceptions_are_few_and_needed():
    said = {c for name in DOCUMENTS for c in commands((ROOT / name).read_text("utf-8"))}
    assert len(EXCEPTIONS) <= 10
    assert set(EXCEPTIONS) <= said
    assert len(said) > 20
