"""The LibriSpeech recipe on a slice: its download, its stages, and every configuration."""

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
import torch

from las import config as configuration
from las import resume
from las.config import RunConfig
from las.data import evaluation_batches, read_manifest
from las.model import LAS
from las.search import search
from las.training import InterruptedTrainingError, Trainer

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "librispeech"
DEMO = ROOT / "recipes" / "demo" / "corpus"


def load_download() -> ModuleType:
    spec = importlib.util.spec_from_file_location("download", RECIPE / "download.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


download = load_download()


# --- download -------------------------------------------------------------------------------


class Server:
    """One archive behind HTTP, with or without ranges."""

    def __init__(self, data: bytes, ranges: bool = True):
        self.asked: list[str | None] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                begin = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
                start = int(begin[1]) if begin and ranges else 0
                asked.append(self.path)
                if start and start >= len(data):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                    self.end_headers()
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(data) - start))
                self.end_headers()
                self.wfile.write(data[start:])

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def archive(tmp_path, monkeypatch):
    folder = tmp_path / "made" / "LibriSpeech" / "dev-clean" / "1" / "2"
    folder.mkdir(parents=True)
    (folder / "1-2.trans.txt").write_text("1-2-0000 HELLO\n" * 3000)
    path = tmp_path / "dev-clean.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tmp_path / "made" / "LibriSpeech", "LibriSpeech")
    data = path.read_bytes()
    sums = {"dev-clean": ("12", hashlib.sha256(data).hexdigest())}
    monkeypatch.setattr(download, "ARCHIVES", sums)
    return data


def test_a_part_is_fetched_checked_and_unpacked_once(tmp_path, archive):
    server = Server(archive)
    folder = tmp_path / "corpora"
    part = download.fetch("dev-clean", folder, server.base)
    assert (part / "1/2/1-2.trans.txt").read_text().startswith("1-2-0000 HELLO")
    assert server.asked == ["/12/dev-clean.tar.gz"]
    assert not (folder / "dev-clean.tar.gz").exists()
    assert download.fetch("dev-clean", folder, server.base) == part
    assert len(server.asked) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_was_cut_off_goes_on(tmp_path, archive, ranges):
    server = Server(archive, ranges)
    folder = tmp_path / "corpora"
    folder.mkdir()
    (folder / "dev-clean.tar.gz").write_bytes(archive[: len(archive) // 2])
    assert (download.fetch("dev-clean", folder, server.base) / "1/2/1-2.trans.txt").is_file()
    assert len(server.asked) == (1 if ranges else 2)  # without ranges once more from nothing


def test_another_archive_is_refused_and_not_kept(tmp_path, archive, monkeypatch, capsys):
    server = Server(archive[:-1] + b"x")
    folder = tmp_path / "corpora"
    monkeypatch.setattr(
        sys, "argv", ["download.py", str(folder), "dev-clean", "--base", server.base]
    )
    with pytest.raises(SystemExit) as exit:
        download.main()
    assert exit.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "published sha256 sum" in lines[0]
    assert list(folder.iterdir()) == []


def test_a_server_that_is_not_there_is_one_line(tmp_path, archive):
    with pytest.raises(download.DownloadError, match="the same command goes on"):
        download.fetch("dev-clean", tmp_path, "http://127.0.0.1:9")


# --- stages ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """LibriSpeech's layout with three speakers to train on and one to test on."""
    folder = tmp_path_factory.mktemp("corpora") / "LibriSpeech"
    speakers = sorted(p for p in (DEMO / "train").iterdir() if p.is_dir())[:3]
    for speaker in speakers:
        shutil.copytree(speaker, folder / "train-clean-5" / speaker.name)
    speaker = next(p for p in sorted((DEMO / "dev").iterdir()) if p.is_dir())
    shutil.copytree(speaker, folder / "dev-clean" / speaker.name)
    return folder


def run_recipe(root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", root / "recipes/librispeech/run.sh", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "PYTHONPATH": ":".join(sys.path)},
        check=False,
    )


def test_the_stages_that_prepare(tmp_path, corpus):
    shutil.copytree(RECIPE, tmp_path / "recipes/librispeech")
    done = run_recipe(tmp_path, "mini", corpus, "--to", "prepare")
    assert done.returncode == 0, done.stderr
    data = tmp_path / "recipes/librispeech/data/mini"
    train, dev = (read_manifest(data / f"{n}.jsonl.gz") for n in ("train", "train-clean-5-dev"))
    speakers = [{cut.supervisions[0].speaker for cut in cuts} for cuts in (train, dev)]
    assert [len(s) for s in speakers] == [1, 2] and not speakers[0] & speakers[1]
    assert len(read_manifest(data / "dev-clean.jsonl.gz")) > 0


# A model and a training that take seconds, by the settings that the script passes on.
TINY = [
    "frontend.n_mels=20",
    "listener.layers=2",
    "listener.width=16",
    "listener.stack=2",
    "listener.reduction=2",
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


def test_mini_runs_from_its_first_stage_to_its_last(tmp_path, corpus):
    """By the words of the README, with two processes as it has them."""
    shutil.copytree(RECIPE, tmp_path / "recipes/librispeech")
    few = tmp_path / "LibriSpeech"  # three utterances a speaker
    shutil.copytree(corpus, few)
    for texts in few.rglob("*.trans.txt"):
        lines = texts.read_text().splitlines(keepends=True)
        texts.write_text("".join(lines[:3]))
        for line in lines[3:]:
            texts.with_name(f"{line.split()[0]}.opus").unlink()
    done = run_recipe(tmp_path, "mini", few, *TINY)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = tmp_path / "recipes/librispeech/runs"
    assert (runs / "mini/model/model.safetensors").is_file()
    for name in ("dev-clean", "dev-clean-greedy"):
        report = json.loads((runs / "mini" / name).with_suffix(".json").read_text())
        assert report["wer"] > 0
    assert (runs / "mini/model/search.yaml").is_file()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["huge", "LibriSpeech"], "no configuration 'huge'"),
        (["mini"], "usage:"),
        (["mini", "corpora"], "name the folder LibriSpeech itself"),
        (["mini", "LibriSpeech", "--from", "start"], "no stage 'start'"),
        (["mini", "LibriSpeech", "--text", "none.txt"], "--text: no such file"),
        (["mini", "LibriSpeech", "--bpe", "many"], "'many' is no number"),
        (["mini", "LibriSpeech", "--bpe"], "--bpe: how many pieces?"),
        (["mini", "LibriSpeech", "--bpe", "9", "--text", __file__], "leave --bpe out"),
        (
            ["mini-mp3", "LibriSpeech", "--from", "train", "training.init=none"],
            "none: no such model; train it by",
        ),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, arguments, reason):
    if len(arguments) > 1:
        arguments[1] = tmp_path / arguments[1]
    done = run_recipe(ROOT, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert reason in done.stderr


# --- configurations -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest(tmp_path_factory, corpus) -> Path:
    from las import corpora

    parts = corpora.librispeech(corpus, ["dev-clean"])
    return corpora.prepare("dev-clean", parts["dev-clean"], tmp_path_factory.mktemp("m")).manifest


def test_the_second_training_goes_on_from_the_first():
    first, second = (
        configuration.load(RunConfig, RECIPE / f"conf/{name}.yaml") for name in ("mini", "mini-mp3")
    )
    assert first.model_settings() == second.model_settings()


@pytest.mark.parametrize("name", ["mini", "mini-mp3", "100", "960"])
def test_a_configuration_trains_a_step_and_decodes(name, manifest, tmp_path, monkeypatch):
    # All is as configured but what a slice of data asks for; nothing of 2 GB is written.
    changes = [
        f"data.train={manifest}",
        "data.workers=0",
        f"data.batch_utterances={4 if 'mini' in name else 2}",
        f"training.output={tmp_path}",
        "training.epochs=1",
        "training.ctc_only=0",
        "training.device=cpu",
    ]
    settings = configuration.load(RunConfig, RECIPE / "conf" / f"{name}.yaml", changes)
    monkeypatch.setattr(resume, "save", lambda *_: None)
    monkeypatch.setattr(LAS, "save_pretrained", lambda *_: None)
    steps: list[int] = []
    trainer = Trainer(settings)

    def one_step(*_: bool) -> list[bool]:
        steps.append(trainer.step)
        return [True, False]  # asked to stop; no checkpoint is due

    monkeypatch.setattr(trainer.processes, "any", one_step)
    before = trainer.model.ctc.weight.detach().clone()
    with pytest.raises(InterruptedTrainingError):
        trainer.run()
    assert steps == [1] and trainer.skipped == 0
    assert not torch.equal(before, trainer.model.ctc.weight)
    model = trainer.model.eval()
    batch = next(iter(evaluation_batches(read_manifest(manifest), model.text, sample_rate=16000)))
    with torch.inference_mode():
        encoded = model.encode(batch.waveforms[:1], batch.samples[:1])
        assert len(search(model, encoded)) == 1
