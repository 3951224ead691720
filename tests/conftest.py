"""Shared by the tests: repeatable randomness, one thread, and a model small enough for a loop."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

# Triton reads it when it is imported, which torch may do at any time.
if os.environ.get("LAS_KERNELS_TEST_DEVICE", "cpu") == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"

import imageio_ffmpeg
import pytest
import torch
from hypothesis import settings
from torch import Tensor

from las.config import AttentionConfig, FrontendConfig, ListenerConfig, ModelConfig, SpellerConfig

settings.register_profile("las", deadline=None, derandomize=True)
settings.load_profile("las")


@pytest.fixture(scope="session", autouse=True)
def ffmpeg_installed(tmp_path_factory):
    """The program ffmpeg, of the version that the tests know, whatever else is installed."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "ffmpeg").symlink_to(Path(imageio_ffmpeg.get_ffmpeg_exe()))
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    """Every part of the default model, at widths that take milliseconds."""
    return ModelConfig(
        alphabet=" 'ABC",
        frontend=FrontendConfig(n_mels=8, specaugment=None),
        listener=ListenerConfig(layers=3, width=6, reduction=4),
        attention=AttentionConfig(kind="location", width=8, heads=2, channels=3, taps=5),
        speller=SpellerConfig(layers=2, width=10, embedding=4),
    )


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """The manifest of a small training set; not to be changed."""
    from speech import write_pairs

    return write_pairs(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="session")
def dev(tmp_path_factory) -> Path:
    """The manifest of a small dev set; not to be changed."""
    from speech import write_manifest

    return write_manifest(tmp_path_factory.mktemp("dev"), ["ABE CAB", "FADE", "DAB ACE"], seed=6)


@pytest.fixture(scope="session")
def noise() -> Callable[[Sequence[int], int], tuple[Tensor, Tensor]]:
    """A maker of batches of noise: lengths in samples -> waveforms [B, S], samples [B]."""

    def make(lengths: Sequence[int], extra: int = 0) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(7)
        waveforms = torch.zeros(len(lengths), max(lengths) + extra)
        for row, length in enumerate(lengths):
            waveforms[row, :length] = 0.1 * torch.randn(length, generator=generator)
        return waveforms, torch.tensor(lengths)

    return make
