"""Device, precision and seeds of a process."""

import random

import numpy as np
import torch

from las.config import TrainingConfig
from las.errors import LASError


def choose_device(name: str) -> torch.device:
    """``auto`` is the GPU of this process if there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise LASError("training.device=cuda: torch sees no GPU here; use auto or cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def precision(settings: TrainingConfig, device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 where asked for; by default on GPUs alone."""
    wanted = settings.precision
    enabled = wanted == "bfloat16" or (wanted == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
