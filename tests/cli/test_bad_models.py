"""Damaged and foreign model folders: one line, and nothing is unpickled."""

import pickle
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from speech import (
    error_line,
)

from tests.cli.files import recording


class Evil:
    def __reduce__(self):
        return (open, ("evil-was-here", "w"))


def _random_bytes(folder):
    (folder / "model.safetensors").write_bytes(np.random.default_rng(0).bytes(5000))


def _pickle(folder):
    (folder / "model.safetensors").write_bytes(pickle.dumps(Evil()))


def _torch_pickle(folder):
    torch.save({"weights": Evil()}, folder / "model.safetensors")


def _foreign_names(folder):
    safetensors.torch.save_file({"x": torch.zeros(2)}, folder / "model.safetensors")


def _cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def _other_sizes(folder):
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("width: 48", "width: 40"))


def _config_with_unknown_key(folder):
    with (folder / "config.yaml").open("a") as file:
        file.write("lisener: {}\n")


def _no_config(folder):
    (folder / "config.yaml").unlink()


def _config_of_bytes(folder):
    (folder / "config.yaml").write_bytes(b"\xff\xfe\0\0")


def _gone(folder):
    shutil.rmtree(folder)


DAMAGE = [_random_bytes, _pickle, _torch_pickle, _foreign_names, _cut, _other_sizes]
DAMAGE += [_config_with_unknown_key, _no_config, _config_of_bytes, _gone]


@pytest.mark.parametrize("damage", DAMAGE)
def test_corrupt_and_foreign_checkpoints(las, model, manifest, tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    damage(folder)
    audio = recording(tmp_path / "a.wav")
    for arguments in (
        ("transcribe", "--model", folder, audio),
        ("evaluate", folder, manifest),
        ("info", folder),
    ):
        status, out, err = las(*arguments)
        assert status == 1 and out == ""
        assert str(folder) in error_line(err)
    assert not (tmp_path / "evil-was-here").exists()
