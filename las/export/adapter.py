"""An exported model in the place of a :class:`las.model.las.LAS`, for greedy search.

Chunks of long audio, output formats and times of words are then those of any model: the network is
all that differs.
"""

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from las.export.runtime import Encoded as Arrays
from las.export.runtime import ExportedModel, load
from las.model.las import LAS, Encoded
from las_kernels import Memory


class _Recogniser:
    """What :class:`las.transcription.transcriber.Transcriber` and greedy search use of a model."""

    def __init__(self, model: ExportedModel) -> None:
        self.model = model
        self.config, self.text = model.config, model.text
        self.speller = self

    def eval(self) -> "_Recogniser":
        """As ``nn.Module.eval``."""
        return self

    def encode(self, waveforms: Tensor, samples: Tensor) -> Encoded:
        """As :meth:`las.model.las.LAS.encode`; the memory is split into heads."""
        found = self.model.encode(waveforms.numpy(), samples.numpy())
        keys, values, lengths, _, ctc_lengths = (torch.from_numpy(array) for array in found)
        ctc = torch.from_numpy(self.model.ctc(found))
        return Encoded(Memory(keys, values, lengths), ctc, ctc_lengths)

    def greedy(self, memory: Memory, limits: Tensor) -> tuple[Tensor, ...]:
        """As :meth:`las.model.speller.Speller.greedy`."""
        keys, values, lengths = (tensor.numpy() for tensor in memory)
        nothing = np.empty(0, np.float32)  # the CTC head has been asked
        encoded = Arrays(keys, values, lengths, nothing, nothing)
        found = self.model.greedy(encoded, limits.numpy())
        return tuple(torch.from_numpy(array) for array in found)


def load_as_las(folder: Path, threads: int) -> LAS:
    """Load an exported model for a :class:`las.transcription.transcriber.Transcriber`.

    Args:
        folder: of the export.
        threads: CPU threads; 0 as for :func:`las.export.runtime.load`.

    Returns:
        an object for greedy search alone: it has no weights, and no steps for a beam.

    Raises:
        LASError: as :func:`las.export.runtime.load`.
    """
    return cast(LAS, _Recogniser(load(folder, threads=threads)))
