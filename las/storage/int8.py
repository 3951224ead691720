"""Weights as int8 with a scale for each row, and back.

Symmetric "absmax" quantisation to the nearest integer, without offsets: for a row w the scale is
max |w| / 127 and the integers are round(w / scale), so that no weight changes by more than half a
scale. This is a storage format: weights are float32 again before anything is computed.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = ".scale"  # suffix of the name of the scales [R] of a matrix [R, ...]
_SHORTEST = 32  # minimum length of a row; shorter ones are float16
_LARGEST = 127


def quantised(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Quantise matrices to int8 with float32 scales; vectors and short rows become float16.

    Args:
        weights: by name; the first dimension is the rows. Integers are not changed.

    Raises:
        ValueError: a weight is not finite, or a name ends in the suffix of scales.
    """
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if name.endswith(SCALE):
            raise ValueError(f"{name}: the name of a scale is reserved")
        if not weight.is_floating_point():
            found[name] = weight
            continue
        if not weight.isfinite().all():
            raise ValueError(f"{name}: a weight is not finite")
        rows = weight.float().flatten(1) if weight.ndim > 1 else None
        if rows is None or rows.shape[1] < _SHORTEST:
            found[name] = weight.half()
            continue
        scale = rows.abs().amax(1) / _LARGEST
        # A row of zeros, or too small for a scale: any scale makes it zero.
        scale = scale.masked_fill(scale < torch.finfo(torch.float32).tiny, 1.0)
        integers = (rows / scale[:, None]).round().clamp(-_LARGEST, _LARGEST)
        found[name] = integers.to(torch.int8).view(weight.shape)
        found[name + SCALE] = scale
    return found


def dequantised(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Invert :func:`quantised`; what was int8 becomes float32.

    Raises:
        ValueError: integers and scales do not match.
    """
    found = {name: tensor for name, tensor in stored.items() if not name.endswith(SCALE)}
    for name, scale in stored.items():
        if not name.endswith(SCALE):
            continue
        name = name.removesuffix(SCALE)
        integers = found.get(name)
        if integers is None or integers.dtype != torch.int8 or integers.ndim < 2:
            raise ValueError(f"{name}{SCALE} has no int8 matrix {name}")
        if scale.dtype != torch.float32 or scale.shape != integers.shape[:1]:
            raise ValueError(f"{name}{SCALE} is not one float32 number for each row of {name}")
        if not (scale.isfinite().all() and (scale > 0).all()):
            raise ValueError(f"{name}{SCALE} is not positive")
        rows = integers.flatten(1).float() * scale[:, None]
        found[name] = rows.view(integers.shape)
    unscaled = [name for name, tensor in found.items() if tensor.dtype == torch.int8]
    if unscaled:
        raise ValueError(f"{unscaled[0]} is int8 and has no scales")
    return found
