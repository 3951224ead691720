"""Arrays of samples -> mono float32 at a model's rate; imports no torch."""

from numbers import Real

import numpy as np

from las.audio import downmix, reader
from las.errors import LASError

_MAX_LEVEL = 1e10  # the power of higher values overflows
_RATES = (2000, 768000)  # Hz; others are mistakes
_FULL_SCALE = {np.dtype(kind): -float(np.iinfo(kind).min) for kind in (np.int16, np.int32)}


def check_number(name: str, value: object, unit: str) -> None:
    """Check that an argument is a number, or None.

    Raises:
        TypeError: it is not.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
        raise TypeError(f"{name}: give a number of {unit}, not {type(value).__name__}")


def waveform(
    samples: object, rate: int | None, target: int, kinds: str = "a path or an array"
) -> np.ndarray:
    """Convert samples to a model's input: float32 [S] at its rate.

    Args:
        samples: an array [S] or [channels, S]; floats, int16 or int32.
        rate: of the samples in Hz; None is the target.
        target: Hz of the result.
        kinds: what the caller takes, for the message about another type.

    Raises:
        LASError: they are not audio.
        TypeError: they are not an array, or their full scale is not known.
    """
    check_number("sample_rate", rate, "Hz")
    if not isinstance(samples, np.ndarray):
        raise TypeError(f"audio: give {kinds}, not {type(samples).__name__}")
    full_scale = _FULL_SCALE.get(samples.dtype.newbyteorder("="))
    if full_scale is not None:
        floats = samples.astype(np.float32) / np.float32(full_scale)
    elif np.issubdtype(samples.dtype, np.floating):
        with np.errstate(over="ignore"):
            floats = samples.astype(np.float32)
    else:
        raise TypeError(f"audio: samples are {samples.dtype}; give floats, int16 or int32")
    channels = floats if floats.ndim == 2 and 0 < len(floats) <= floats.shape[1] else None
    if channels is None and floats.ndim != 1:
        cure = "give [samples] or [channels, samples]"
        if floats.ndim == 2 and floats.shape[1]:
            cure += ", as audio.T would be"
        raise LASError(f"audio: its shape is {list(samples.shape)}; {cure}")
    rate = target if rate is None else rate
    if not _RATES[0] <= rate <= _RATES[1] or rate != int(rate):
        raise LASError(f"sample_rate {rate}: give whole Hz, {_RATES[0]} to {_RATES[1]}")
    bad = floats.size - int(np.count_nonzero(np.abs(floats) <= _MAX_LEVEL))
    if bad:
        raise LASError(f"audio: {bad} samples are NaN, infinite or beyond {_MAX_LEVEL:g}")
    if channels is not None:
        floats = np.concatenate(list(downmix.mono([channels.T], int(rate))))
    if len(floats) < reader.MIN_SECONDS * rate:
        raise LASError(
            f"audio: {len(floats)} samples last {1000 * len(floats) / rate:.3g} ms; "
            f"give at least {1000 * reader.MIN_SECONDS:g} ms"
        )
    whole = list(reader.resampled([floats], int(rate), target))
    return np.ascontiguousarray(np.concatenate(whole))
