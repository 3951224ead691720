"""The LibriSpeech recipe on a slice: its download, its stages, and every configuration."""

import hashlib
import importlib.util
import re
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
import torch
from recipe import ROOT, TINY, copy_recipe, librispeech_part, run_recipe, summary_names

from las import config_files as configuration
from las.config import RunConfig
from las.data.dataset import evaluation_batches
from las.data.manifests import read_manifest
from las.decoding.search import search
from las.model.las import LAS
from las.storage import checkpoint
from las.training.trainer import InterruptedTrainingError, Trainer

RECIPE = ROOT / "recipes" / "librispeech"
# Speakers of each part; as many as the recipe carves out, and one.
PARTS = {
    "train-clean-5": 3,
    "train-clean-100": 7,
    "train-clean-360": 1,
    "train-other-500": 1,
    "dev-clean": 1,
    "dev-other": 1,
    "test-clean": 1,
    "test-other": 1,
}


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
    folder = tmp_path / "corpora"
    with pytest.raises(download.DownloadError, match="the same command goes on"):
        download.fetch("dev-clean", folder, "http://127.0.0.1:9")
    assert list(folder.iterdir()) == []


def test_what_an_interrupted_unpacking_left_is_replaced(tmp_path, archive):
    server = Server(archive)
    folder = tmp_path / "corpora"
    half = folder / ".dev-clean.unpacking/LibriSpeech/dev-clean"
    half.mkdir(parents=True)
    (half / "half").touch()
    part = download.fetch("dev-clean", folder, server.base)
    assert [path.name for path in part.iterdir()] == ["1"]
    assert sorted(path.name for path in folder.iterdir()) == ["LibriSpeech"]


# --- stages ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """LibriSpeech's layout: every part that a recipe reads, three utterances a speaker."""
    folder = tmp_path_factory.mktemp("corpora") / "LibriSpeech"
    for part, speakers in PARTS.items():
        librispeech_part(folder, part, speakers, 3)
    return folder


def test_the_stages_that_prepare(tmp_path, corpus):
    copy_recipe(tmp_path, "librispeech")
    done = run_recipe(tmp_path, "librispeech", "mini", corpus, "--to", "prepare")
    assert done.returncode == 0, done.stderr
    data = tmp_path / "recipes/librispeech/data/mini"
    train, dev = (read_manifest(data / f"{n}.jsonl.gz") for n in ("train", "train-clean-5-dev"))
    speakers = [{cut.supervisions[0].speaker for cut in cuts} for cuts in (train, dev)]
    assert [len(s) for s in speakers] == [1, 2] and not speakers[0] & speakers[1]
    assert len(read_manifest(data / "dev-clean.jsonl.gz")) > 0


def test_960_runs_to_its_last_stage(tmp_path, corpus):
    """The others run in `test_commands.py`, by the words of their READMEs."""
    copy_recipe(tmp_path, "librispeech")
    done = run_recipe(tmp_path, "librispeech", "960", corpus, *TINY)
    assert done.returncode == 0, done.stderr[-3000:]
    tests = ("dev-clean", "dev-other", "test-clean", "test-other")
    assert sorted(summary_names(done.stdout)) == sorted(
        [*tests, *(f"{name}-greedy" for name in tests)]
    )
    data = tmp_path / "recipes/librispeech/data/960"
    parts = ("train-clean-100", "train-clean-360", "train-other-500")
    sizes = [len(read_manifest(data / f"{part}.jsonl.gz")) for part in parts]
    assert len(read_manifest(data / "train.jsonl.gz")) == sum(sizes)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["huge", "LibriSpeech"], "no configuration 'huge'"),
        (["mini"], "usage:"),
        (["mini", "corpora"], "name the folder LibriSpeech itself"),
        (["mini", "LibriSpeech", "--from", "start"], "no stage 'start'"),
        (["mini", "LibriSpeech", "--text", "none.txt"], "--text: no such file"),
        (["mini", "LibriSpeech", "--bpe", "many"], "'many' is no number"),
        (["mini", "LibriSpeech", "--bpe"], "--bpe: how many subwords?"),
        (["mini", "LibriSpeech", "--bpe", "9", "--text", __file__], "leave --bpe out"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, arguments, reason):
    if len(arguments) > 1:
        arguments[1] = tmp_path / arguments[1]
    done = run_recipe(ROOT, "librispeech", *arguments)
    assert done.returncode == 2
    assert not any(tmp_path.iterdir())
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert reason in done.stderr


# --- configurations -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest(tmp_path_factory, corpus) -> Path:
    from las.data import corpora

    parts = corpora.librispeech(corpus, ["dev-clean"])
    return corpora.prepare("dev-clean", parts["dev-clean"], tmp_path_factory.mktemp("m")).manifest


@pytest.mark.parametrize("name", ["mini", "100", "960"])
def test_a_configuration_trains_a_step_and_decodes(name, manifest, tmp_path, monkeypatch):
    # All is as configured but what a slice of data asks for; nothing of 2 GB is written.
    changes = [
        f"data.train={manifest}",
        "data.workers=0",
        f"data.batch_utterances={4 if name == 'mini' else 2}",
        f"training.output={tmp_path}",
        "training.epochs=1",
        "training.ctc_only=0",
        "training.device=cpu",
    ]
    settings = configuration.load(RunConfig, RECIPE / "conf" / f"{name}.yaml", changes)
    monkeypatch.setattr(checkpoint, "save", lambda *_: None)
    monkeypatch.setattr(LAS, "save_pretrained", lambda *_: None)
    steps: list[int] = []
    trainer = Trainer(settings)

    def one_step(*flags: bool) -> list[bool]:
        if len(flags) == 1:  # whether another training has the folder
            return [False]
        steps.append(trainer.position.step)
        return [True, False]  # asked to stop; no checkpoint is due

    monkeypatch.setattr(trainer.group, "any", one_step)
    before = trainer.model.ctc.weight.detach().clone()
    with pytest.raises(InterruptedTrainingError):
        trainer.run()
    assert steps == [1] and trainer.position.skipped == 0
    assert not torch.equal(before, trainer.model.ctc.weight)
    model = trainer.model.eval()
    batch = next(iter(evaluation_batches(read_manifest(manifest), model.text, sample_rate=16000)))
    with torch.inference_mode():
        encoded = model.encode(batch.waveforms[:1], batch.samples[:1])
        assert len(search(model, encoded)) == 1
