"""The model: frontend, listener, speller and CTC head; saved to and loaded from model folders."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from las.config import ModelConfig
from las.errors import LASError
from las.model.features import Frontend
from las.model.folder import CONFIG, bundled, check_model, model_settings
from las.model.listener import Listener
from las.model.speller import Speller, teacher_inputs
from las.storage.atomic import make_folder
from las.storage.int8 import quantised
from las.storage.settings import save_settings
from las.storage.weights import (
    FORMAT,
    INT8_FORMAT,
    WEIGHTS,
    fit_weights,
    read_weights,
    write_weights,
)
from las.text.characters import BLANK, EOS
from las.text.subwords import tokenizer
from las_kernels import Memory, padding_mask


class Encoded(NamedTuple):
    """A batch as the listener encodes it."""

    memory: Memory
    ctc: Tensor  # [B, T', V] log-probabilities of the CTC head
    ctc_lengths: Tensor  # [B]


class Losses(NamedTuple):
    """Teacher-forced losses: sums over the batch in nats, and the counts to divide them by."""

    attention: Tensor  # label-smoothed cross-entropy of characters and ends of sentence
    ctc: Tensor
    tokens: Tensor  # characters and ends of sentence
    characters: Tensor
    alignments: Tensor  # [B, U+1, H, T], without gradient


class LAS(nn.Module):
    """Listen, Attend and Spell (Chan et al. 2016) with a CTC head (Kim et al. 2017).

    Args:
        config: architecture, alphabet and frontend.

    Attributes:
        precision: dtype of the listener in evaluation mode, see
            :func:`las.runtime.inference_precision`; None leaves it to autocast. Frontend, CTC
            head, keys and speller keep the dtype of the weights.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.precision: torch.dtype | None = None
        self.text = tokenizer(config.alphabet, config.pieces, config.text.normalizer)
        self.frontend = Frontend(config.frontend)
        self.listener = Listener(config.frontend.n_mels, config.listener)
        self.speller = Speller(
            len(self.text), self.listener.width, config.speller, config.attention
        )
        # CTC needs a frame for each character and one between equal ones. Fast speech has more of
        # them than the listener has frames, so a frame can become several of CTC.
        self.ctc = nn.Linear(self.listener.width, len(self.text) * config.listener.ctc_frames)

    def encode(self, waveforms: Tensor, samples: Tensor) -> Encoded:
        """Encode waveforms [B, S] of these lengths in samples [B], which may be on the CPU."""
        samples = samples.to(waveforms.device, non_blocking=True)
        kind = waveforms.device.type
        precision = None if self.training else self.precision
        if precision is None and kind == "cpu" and torch.is_autocast_enabled(kind):
            # On a CPU bfloat16 is for the listener alone; the rest is small, and slow without AMX.
            precision = torch.get_autocast_dtype(kind)
        if precision is None:
            return self._encode(waveforms, samples, contextlib.nullcontext())
        listener_autocast = torch.autocast(kind, torch.bfloat16, precision == torch.bfloat16)
        with torch.autocast(kind, enabled=False):
            return self._encode(waveforms, samples, listener_autocast, self.ctc.weight.dtype)

    def _encode(
        self,
        waveforms: Tensor,
        samples: Tensor,
        listener_autocast: contextlib.AbstractContextManager[object],
        after: torch.dtype | None = None,
    ) -> Encoded:
        """Encode with the listener in an autocast context, and what follows in dtype ``after``."""
        features, frames = self.frontend(waveforms, samples)
        with listener_autocast:
            encoded, lengths, ctc, ctc_lengths = self.listener(features, frames)
        if after is not None:
            encoded, ctc = encoded.to(after), ctc.to(after)
        scores = self.ctc(ctc).float().reshape(ctc.shape[0], -1, len(self.text))
        ctc_lengths = ctc_lengths * self.config.listener.ctc_frames
        memory = self.speller.attend.project(encoded, lengths)
        return Encoded(memory, scores.log_softmax(-1), ctc_lengths)

    def ctc_frames(self, samples: Tensor) -> Tensor:
        """Frames of the CTC head for these numbers of samples."""
        return self.listener.frames(self.frontend.frames(samples))[1]

    def forward(
        self,
        waveforms: Tensor,
        samples: Tensor,
        tokens: Tensor,
        token_lengths: Tensor,
        label_smoothing: float = 0.0,
        sampling: float = 0.0,
        use_speller: bool = True,
    ) -> Losses:
        """Teacher-forced losses of a batch.

        With lengths on the CPU, where CTC needs them, no GPU has to be waited for.

        Args:
            waveforms: [B, S], zero beyond the valid samples.
            samples: [B], on the device of the waveforms or on the CPU.
            tokens: transcripts [B, U]; values beyond their lengths are ignored.
            token_lengths: [B], on the device of ``samples``.
            label_smoothing: of the speller's targets.
            sampling: probability that an input is the model's own prediction (scheduled sampling).
            use_speller: False skips the speller; its loss and alignments are zero.
        """
        encoded = self.encode(waveforms, samples)
        ctc_lengths, target_lengths = self.ctc_frames(samples), token_lengths
        characters = token_lengths.sum()
        token_lengths = token_lengths.to(waveforms.device, non_blocking=True)
        valid = padding_mask(token_lengths, tokens.shape[1])
        with torch.autocast(waveforms.device.type, enabled=False):
            ctc = nn.functional.ctc_loss(
                encoded.ctc.transpose(0, 1),
                tokens.masked_fill(~valid, BLANK),
                ctc_lengths,
                target_lengths,
                blank=BLANK,
                reduction="sum",
                zero_infinity=True,
            )
        if not use_speller:
            B, T, _ = encoded.memory.keys.shape
            zero = ctc.new_zeros(())
            return Losses(zero, ctc, characters, characters, ctc.new_zeros(B, 0, 1, T))
        inputs = teacher_inputs(tokens.masked_fill(~valid, EOS))
        memory = encoded.memory
        # On a CPU bfloat16 halves the time of the listener's large products and doubles that of the
        # speller's small steps (docs/decisions.md).
        cpu = waveforms.device.type == "cpu"
        half_precision = torch.is_autocast_enabled(waveforms.device.type)
        with torch.autocast(waveforms.device.type, enabled=half_precision and not cpu):
            if cpu:
                full = self.speller.embedding_weight.dtype
                memory = memory._replace(keys=memory.keys.to(full), values=memory.values.to(full))
            logits, alignments = self.speller(memory, inputs, sampling)
        targets = nn.functional.pad(tokens.masked_fill(~valid, -100), (0, 1), value=-100)
        targets = targets.scatter(1, token_lengths[:, None], EOS)
        attention = nn.functional.cross_entropy(
            logits.flatten(0, 1).float(),
            targets.flatten(),
            ignore_index=-100,
            label_smoothing=label_smoothing,
            reduction="sum",
        )
        count = characters + token_lengths.numel()
        return Losses(attention, ctc, count, characters, alignments.detach())

    def save_pretrained(
        self,
        folder: str | Path,
        info: Mapping[str, str] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Write ``model.safetensors`` and ``config.yaml``, each atomically.

        Args:
            folder: made if it is missing.
            info: metadata to store with the weights: training data, steps, licence.
            dtype: of the stored weights. float16 halves the file; int8 quarters it, with a scale
                for each row of a matrix (:mod:`las.storage.int8`) and vectors as float16.

        Raises:
            LASError: weights that are not finite cannot be stored as int8.
        """
        folder = Path(folder)
        make_folder(folder)
        save_settings(self.config, folder / CONFIG)
        int8 = dtype == torch.int8
        weights = {
            name: tensor.detach().to(
                "cpu", dtype if tensor.is_floating_point() and not int8 else None
            )
            for name, tensor in self.state_dict().items()
        }
        if int8:
            try:
                weights = quantised(weights)
            except ValueError as error:
                raise LASError(f"{folder}: not written as int8: {error}") from None
        write_weights(weights, folder / WEIGHTS, info, INT8_FORMAT if int8 else FORMAT)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path | None = None, device: str | torch.device = "cpu"
    ) -> "LAS":
        """Load a model folder. Nothing is unpickled, so a file cannot run code.

        Args:
            folder: the model folder; None loads the model that ships with the package.
            device: of the model.

        Raises:
            LASError: a file is missing, corrupt, or not of a model of this project.
        """
        folder = bundled() if folder is None else Path(folder)
        check_model(folder)
        model = cls(model_settings(folder))
        model.load_weights(read_weights(folder / WEIGHTS), folder / WEIGHTS)
        return model.to(device).eval()

    def load_weights(self, weights: Mapping[str, Tensor], origin: Path) -> None:
        """Load weights that were read from ``origin``; names and shapes must match."""
        fit_weights(self, weights, origin, CONFIG)
