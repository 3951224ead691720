"""Weights as int8 with a scale a row, and back; knows nothing of models or files.

Symmetric, to the nearest (as in "absmax" quantisation: zero stays zero, no offsets): of a row w,
scale = max |w| / 127 and the integers round(w / scale), so that no weight moves by more than half
a scale. Only what is stored is small: weights are float32 again before anything is computed.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = ".scale"  # ends the name of the scales [R] of a matrix [R, ...]
_SHORTEST = 32  # row that is worth a scale; shorter ones stay as exact as float16
_LARGEST = 127


def rounded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as int8 with their scales in float32, vectors and short rows as float16.

    Args:
        weights: by name; rows are the first dimension, whatever else there is. Integers stay.

    Raises:
        ValueError: a weight is not finite, or a name ends as those of scales do.
    """
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if name.endswith(SCALE):
            raise ValueError(f"{name}: the name of a scale")
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
        # A row of zeros, or of what is too small for a scale: any scale makes it zero.
        scale = scale.masked_fill(scale < torch.finfo(torch.float32).tiny, 1.0)
        integers = (rows / scale[:, None]).round().clamp(-_LARGEST, _LARGEST)
        found[name] = integers.to(torch.int8).view(weight.shape)
        found[name + SCALE] = scale
    return found


def restored(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What :func:`rounded` was given, float32 where it was rounded to int8.

    Raises:
        ValueError: integers and scales do not fit each other.
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
            raise ValueError(f"{name}{SCALE} is not one float32 number a row of {name}")
        if not (scale.isfinite().all() and (scale > 0).all()):
            raise ValueError(f"{name}{SCALE} is not positive throughout")
        rows = integers.flatten(1).float() * scale[:, None]
        found[name] = rows.view(integers.shape)
    bare = [name for name, tensor in found.items() if tensor.dtype == torch.int8]
    if bare:
        raise ValueError(f"{bare[0]} is int8 and has no scales")
    return found
