"""Normalised log-mel features of waveforms, with SpecAugment in training.

The features do not depend on the batch: frames are padded by zeros, as the batch is, and statistics
are of each utterance's valid frames.
"""

import torch
import torchaudio
from torch import Tensor, nn

from las.config import FrontendConfig, SpecAugmentConfig
from las_kernels import padding_mask


class Frontend(nn.Module):
    """Log-mel energies, normalised per utterance and band to mean 0 and variance 1.

    Args:
        config: sizes, and the masks of SpecAugment.
    """

    def __init__(self, config: FrontendConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = torchaudio.transforms.MelSpectrogram(
            sample_rate=config.sample_rate,
            n_fft=config.n_fft,
            win_length=config.win_length,
            hop_length=config.hop_length,
            n_mels=config.n_mels,
            center=True,
            pad_mode="constant",  # with "reflect" the batch would change the last frame
        )
        # Window and filters follow from the configuration and are not saved.
        for module in self.mel.modules():
            module._non_persistent_buffers_set.update(module._buffers)

    def frames(self, samples: Tensor) -> Tensor:
        """Number of frames for these numbers of samples."""
        return samples // self.config.hop_length + 1

    def forward(self, waveforms: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Extract features; SpecAugment is applied in training mode.

        Args:
            waveforms: [B, S], zero beyond each utterance's samples.
            samples: valid samples [B].

        Returns:
            features [B, T, n_mels], zero on padding, and valid frames [B].
        """
        with torch.autocast(waveforms.device.type, enabled=False):
            energies = self.mel(waveforms.float()).transpose(1, 2)
            lengths = self.frames(samples)
            features = torch.log(energies.clamp_min(self.config.floor))
            features = normalise(features, lengths)
            if self.training and self.config.specaugment is not None:
                features = specaugment(features, lengths, self.config.specaugment)
        return features, lengths


def normalise(features: Tensor, lengths: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the valid frames of each utterance and band; 0 on padding.

    A band that hardly varies (a clip of one frame, digital silence) is only centred.
    """
    mask = padding_mask(lengths, features.shape[1])[:, :, None]
    count = lengths[:, None, None].to(features)
    mean = features.masked_fill(~mask, 0).sum(1, keepdim=True) / count
    centred = (features - mean).masked_fill(~mask, 0)
    # Remove the rounding error of the first mean, which depends on padding.
    centred = (centred - centred.sum(1, keepdim=True) / count).masked_fill(~mask, 0)
    variance = centred.square().sum(1, keepdim=True) / count
    return centred / variance.sqrt().clamp_min(0.1)


def specaugment(features: Tensor, lengths: Tensor, config: SpecAugmentConfig) -> Tensor:
    """Set bands and spans of frames (Park et al. 2019) to 0, the mean after normalisation.

    Each utterance has its own masks within its own length. They are those of
    ``torchaudio.functional.mask_along_axis`` for one utterance after another, in a few kernels for
    the whole batch and without synchronising a GPU. They are drawn from torch's global generator
    on the CPU, so that they are the same on every device.

    Args:
        features: [B, T, F].
        lengths: valid frames [B], on the device of the features.
        config: number and size of the masks.
    """
    B, T, F = features.shape
    masks = config.frequency_masks + config.time_masks
    drawn = torch.rand(B, masks, 2).to(features.device, non_blocking=True)
    size = lengths[:, None]
    limit = (size.double() * config.time_share).long().clamp_max(config.time_width)
    bands = _masked(drawn[:, : config.frequency_masks], F, min(config.frequency_width, F), F)
    spans = _masked(drawn[:, config.frequency_masks :], size, limit, T)
    valid = padding_mask(lengths, T)
    return features.masked_fill((spans[:, :, None] | bands[:, None, :]) & valid[:, :, None], 0.0)


def _masked(drawn: Tensor, size: Tensor | int, limit: Tensor | int, count: int) -> Tensor:
    """Positions [B, count] that M masks cover, from random numbers [B, M, 2] between 0 and 1.

    A mask is shorter than ``limit``, and lies within the first ``size`` positions.
    """
    width = drawn[..., 0] * limit
    start = (drawn[..., 1] * (size - width)).long()[..., None]
    at = torch.arange(count, device=drawn.device)
    return ((at >= start) & (at < start + width.long()[..., None])).any(1)
