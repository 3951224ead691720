"""Compile-time arguments and warps of every kernel: safe defaults, and what was measured.

The ``*_config`` functions give the defaults, chosen so that nothing spills; they are not tuned.
Where ``python -m benchmarks.kernels.tuning`` has measured something quicker, it is a line of
``tuned/sm_<capability>.json`` and replaces them, for those sizes alone.
"""

import contextlib
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl

from las_kernels.triton.utils import INTERPRETED

Config = dict[str, Any]
Location = tuple[int, int] | None  # channels C and taps W

FRAMES = 16  # memory frames in a tile of the forward: the least that a tensor core takes
TILE = 32  # memory frames in a tile of the backward
MAX_BEAMS = 8  # queries in one program
MAX_SPLITS = 256
# The most splits or tiles that one program joins; for more another kernel is quicker.
JOINED_SPLITS = JOINED_TILES = 16
FILL = 2  # programs a multiprocessor that splits are made for
FILTER_PROGRAMS = 128  # programs that share the gradient of the filters
LSTM_BLOCK = 256  # units in a program of the LSTM cell

FOLDER = Path(__file__).parent / "tuned"
SIZES = ("H", "AH", "DH", "NB", "C", "W")  # compile-time arguments that make another problem
_trial: dict[str, Config] = {}


def key(kernel: str, config: Config, dtype: torch.dtype) -> str:
    """A kernel and its sizes in the files: ``attention_fwd_split_kernel float32 H1 AH512 ...``."""
    located = config.get("LOCATION", False)
    sizes = [f"{k}{config[k]}" for k in SIZES if k in config and (located or k not in ("C", "W"))]
    return " ".join([kernel, str(dtype).removeprefix("torch."), *sizes])


@functools.cache
def choices(capability: tuple[int, int]) -> dict[str, Config]:
    """What is shipped for GPUs of a compute capability, by :func:`key`."""
    path = FOLDER / f"sm_{capability[0]}{capability[1]}.json"
    if not path.is_file():
        return {}
    found: dict[str, Config] = json.loads(path.read_text("utf-8"))["choices"]
    return found


def choose(kernel: Any, config: Config, dtype: torch.dtype, device: torch.device) -> Config:
    """The config of a kernel with what was measured on such a GPU in place of the defaults."""
    name = kernel.__name__
    if name in _trial:
        return {**config, **_trial[name]}
    if device.type != "cuda":
        return config
    return {**config, **choices(_capability(device.index)).get(key(name, config, dtype), {})}


@functools.cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; some where there is none."""
    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count


@functools.cache
def _capability(index: int | None) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


@contextlib.contextmanager
def trying(**kernels: Config) -> Iterator[None]:
    """These choices whatever was measured, to measure or to test them."""
    _trial.update(kernels)
    try:
        yield
    finally:
        for kernel in kernels:
            del _trial[kernel]


def numerics(dtype: torch.dtype) -> Config:
    """How to compute for inputs of this dtype: a tanh, and a form of products on tensor cores.

    float32 keeps its accuracy (three TF32 products make one); for the half-precision types the
    errors of the short forms are below those of rounding the inputs.
    """
    half = dtype.itemsize < 4
    return {
        "APPROXIMATE": half and not INTERPRETED.value,  # the interpreter has no inline assembly
        "PRECISION": "tf32" if half else "tf32x3",
    }


def power(n: int, least: int = 1) -> int:
    """The power of two that holds n."""
    return max(least, triton.next_power_of_2(n))


def conv_config(channels: int, taps: int) -> dict[str, int]:
    """Sizes that a location convolution needs."""
    return {"C": channels, "W": taps, "BC": power(channels, 16), "BW": min(power(taps, 16), 32)}


def location_config(location: Location) -> Config:
    """The same for a kernel that does without them, too, for location (C, W) or None."""
    if location is None:
        return {"LOCATION": False, "C": 1, "W": 1, "BC": 16, "BW": 16}
    return {"LOCATION": True, **conv_config(*location)}


def attention_fwd_split_config(
    beams: int,
    heads: int,
    widths: tuple[int, int],
    location: Location,
    dtype: torch.dtype,
) -> Config:
    """Of ``attention_fwd_split_kernel`` for widths (A/H, D/H) and location (C, W).

    ``fill``: how many of its programs a multiprocessor holds at once.
    """
    AH, DH = widths
    NB = min(power(beams), MAX_BEAMS)
    half = dtype.itemsize < 4
    BD = min(power(DH, 16), 2048 if NB == 1 else 1024 if half else 512)  # what registers hold
    # As many columns at once as keep memory busy; many location features take the registers.
    columns = 64 if location is None else 32
    if half and (location is None or location[0] <= 16):
        columns = 128
    product = tl.float32
    if half and not INTERPRETED.value:  # whose bfloat16 products are wrong
        product = tl.bfloat16 if dtype == torch.bfloat16 else tl.float16
    return {
        "H": heads,
        "AH": AH,
        "DH": DH,
        **location_config(location),
        "NB": NB,
        "ROWS": 1 if NB == 1 else 16,
        "BT": FRAMES,
        "BA": min(power(AH, 16), columns),
        "BD": BD,
        **numerics(dtype),
        "PRODUCT": product,
        # Of the loop over tiles of frames: one is fetched ahead, if shared memory holds it.
        "STAGES": 2 if dtype.itemsize * FRAMES * (power(AH) + BD) <= 72 * 1024 else 1,
        "fill": FILL if NB == 1 and location is None else 1,
        "num_warps": 4 if BD <= 256 else 8 if BD <= 1024 else 16,
    }


def attention_fwd_combine_config(heads: int, width: int) -> Config:
    """Of ``attention_fwd_combine_kernel`` for width D/H; one code for any number of splits."""
    return {
        "H": heads,
        "DH": width,
        "SPLITS": MAX_SPLITS,
        "BS": 16,
        "BD": min(power(width, 16), 128),
        "BT": 128,
        "num_warps": 4,
    }


def splits_for(
    frames: int, programs: int, processors: int, fill: int = FILL, tile: int = FRAMES
) -> tuple[int, int]:
    """How many splits of how many frames, given the other programs.

    As many as run at once, ``fill`` programs a multiprocessor: one more would wait for a second
    round.
    """
    tiles = triton.cdiv(frames, tile)
    wanted = min(max(1, fill * processors // programs), tiles, MAX_SPLITS)
    split_len = triton.cdiv(tiles, wanted) * tile
    return triton.cdiv(frames, split_len), split_len


def location_conv_config(heads: int, location: tuple[int, int], dtype: torch.dtype) -> Config:
    """Of ``location_conv_kernel`` for location (C, W)."""
    tiles = {"BT": TILE, "PRECISION": numerics(dtype)["PRECISION"], "num_warps": 4}
    return {"H": heads, **conv_config(*location), **tiles}


def _narrow_step(location: Location, dtype: torch.dtype) -> bool:
    """Three TF32 products for one take registers: smaller tiles, lest they spill."""
    return location is not None and dtype.itemsize >= 4


def attention_bwd_dq_config(
    heads: int, widths: tuple[int, int], location: Location, dtype: torch.dtype
) -> Config:
    """Of ``attention_bwd_dq_kernel`` for widths (A/H, D/H)."""
    AH, DH = widths
    tiles = location_config(location)
    columns = 32 if _narrow_step(location, dtype) else 64
    if location is None and dtype.itemsize < 4:
        columns = 128
    return {
        "H": heads,
        "AH": AH,
        "DH": DH,
        **{k: tiles[k] for k in ("LOCATION", "C", "BC")},
        "BT": 16 if _narrow_step(location, dtype) else TILE,
        "BD": min(power(DH, 16), 128),
        "BA": min(power(AH, 16), columns),
        **numerics(dtype),
        "STAGES": 3,  # of the loops over columns
        "num_warps": 4,
    }


def attention_bwd_dq_reduce_config(heads: int, width: int, location: Location) -> Config:
    """Of ``attention_bwd_dq_reduce_kernel`` for width A/H."""
    tiles = location_config(location)
    return {
        "H": heads,
        "AH": width,
        **{k: tiles[k] for k in ("LOCATION", "C", "W", "BW")},
        "BS": 16,
        "BA": min(power(width, 16), 64),
        "BT": TILE,
        "num_warps": 4,
    }


def attention_bwd_dk_config(
    heads: int, width: int, location: Location, dtype: torch.dtype
) -> Config:
    """Of ``attention_bwd_dk_kernel`` for width A/H."""
    tiles = location_config(location)
    return {
        "H": heads,
        "AH": width,
        **{k: tiles[k] for k in ("LOCATION", "C", "BC")},
        "BT": TILE,
        "BA": min(power(width, 16), 64 if location is None else 32),
        **numerics(dtype),
        "num_warps": 4,
    }


def attention_bwd_dfilters_config(location: tuple[int, int], dtype: torch.dtype) -> Config:
    """Of ``attention_bwd_dfilters_kernel`` for location (C, W)."""
    tiles = {"BT": TILE, "PRECISION": numerics(dtype)["PRECISION"], "num_warps": 4}
    return {**conv_config(*location), **tiles}
