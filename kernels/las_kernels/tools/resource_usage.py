"""Compile every Triton kernel for sm_80 and sm_90: ``python -m las_kernels.tools.resource_usage``.

Needs no GPU. Prints a Markdown table of registers, shared memory and spilled bytes, and fails if
any kernel spills. ``TRITON_INTERPRET`` must not be set.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from las_kernels.triton import (
    attention_bwd,
    attention_bwd_dkv,
    attention_fwd,
    configs,
    location_conv,
    lstm_cell,
)

ARCHITECTURES = (80, 90)
TRITON_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
# Pointers: float32 whatever the inputs are, or of the type of the inputs. The rest are integers.
SINGLE = """energy split_max split_sum split_context dalignment denergy gradient sums dquery_parts
    dprevious dv_parts dprojection_parts parts features dfeatures before after dcell dbefore"""
INPUTS = """query queries keys values v previous filters projection context dcontext alignment
    dquery dkeys gates hidden dhidden dgates"""


class Configuration(NamedTuple):
    """One kernel with its compile-time arguments."""

    kernel: Any
    config: dict[str, Any]
    dtype: torch.dtype
    note: str


class Usage(NamedTuple):
    """What a compiled kernel takes of a multiprocessor."""

    registers: int
    shared: int  # bytes
    spilled: int  # bytes of stack


class Model(NamedTuple):
    """Sizes of a decoder whose kernels are compiled; letters as in ``reference``."""

    name: str
    A: int
    D: int
    H: int = 1
    location: tuple[int, int] | None = None


MODELS = (
    Model("A512 D1024", 512, 1024),
    Model("A512 D1024 C10 W201", 512, 1024, location=(10, 201)),
    Model("A320 D320 C10 W101", 320, 320, location=(10, 101)),
    Model("A256 D512 H4 C32 W31", 256, 512, 4, (32, 31)),
)
WIDE = Model("A128 D2048", 128, 2048)  # only its context differs from the others


def configurations(models: tuple[Model, ...] = MODELS) -> Iterator[Configuration]:
    """Every kernel that these decoders launch, each once."""
    for dtype in (torch.bfloat16, torch.float32):
        for model in models:
            for kernel, config, note in _kernels(model, dtype):
                yield Configuration(kernel, config, dtype, f"{model.name}{note}")
        for beams in (1, 8):
            config = configs.attention_fwd_split_config(beams, 1, (WIDE.A, WIDE.D), None, dtype)
            yield Configuration(
                attention_fwd.attention_fwd_split_kernel, config, dtype, f"{WIDE.name} N{beams}"
            )
        for last in (False, True):
            flags = {"HAS_BEFORE": not last, "BS": configs.LSTM_BLOCK}
            yield Configuration(lstm_cell.lstm_cell_fwd_kernel, flags, dtype, "")
            flags = {"HAS_DCELL": not last, **flags}
            yield Configuration(lstm_cell.lstm_cell_bwd_kernel, flags, dtype, "")
    for beams in (1, 8):
        model = models[0]
        config = configs.attention_fwd_split_config(
            beams, model.H, (model.A // model.H, model.D // model.H), None, torch.float16
        )
        yield Configuration(
            attention_fwd.attention_fwd_split_kernel,
            config,
            torch.float16,
            f"{model.name} N{beams}",
        )


def _kernels(model: Model, dtype: torch.dtype) -> Iterator[tuple[Any, dict[str, Any], str]]:
    H, taps = model.H, model.location
    AH, DH = model.A // H, model.D // H
    for beams in (1, 8):
        config = configs.attention_fwd_split_config(beams, H, (AH, DH), taps, dtype)
        yield attention_fwd.attention_fwd_split_kernel, config, f" N{beams}"
    config = configs.attention_fwd_combine_config(H, DH)
    yield attention_fwd.attention_fwd_combine_kernel, config, ""
    config = configs.attention_bwd_preprocess_config(H, DH, taps, taps is not None, dtype)
    yield attention_bwd.attention_bwd_preprocess_kernel, config, ""
    config = configs.attention_bwd_dq_config(H, AH, taps, dtype)
    yield attention_bwd.attention_bwd_dq_kernel, config, ""
    config = configs.attention_bwd_dq_reduce_config(H, AH, taps)
    yield attention_bwd.attention_bwd_dq_reduce_kernel, config, ""
    config = configs.attention_bwd_dk_config(H, AH, taps, dtype)
    yield attention_bwd_dkv.attention_bwd_dk_kernel, config, ""
    if taps is not None:
        config = configs.location_conv_config(H, taps, dtype)
        yield location_conv.location_conv_kernel, config, ""
        config = configs.attention_bwd_dfilters_config(taps, dtype)
        yield attention_bwd_dkv.attention_bwd_dfilters_kernel, config, ""


def compile_for(configuration: Configuration, architecture: int) -> Usage:
    """Compile to machine code and read what it uses."""
    kernel, config, dtype, _ = configuration
    config = dict(config)
    config.pop("fill", None)  # of the launch, not of the kernel
    options = {k: config.pop(k) for k in ("num_warps", "num_stages") if k in config}
    element = TRITON_NAMES[dtype]

    def kind(name: str) -> str:
        if name in config:
            return "constexpr"
        if name == "lengths":
            return "*i64"
        if name in SINGLE.split():
            return "*fp32"
        return f"*{element}" if name in INPUTS.split() else "i32"

    signature = {name: kind(name) for name in kernel.arg_names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(kernel.arg_names)
        if signature[name].startswith("*")
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=config, attrs=aligned)
    target = GPUTarget("cuda", architecture, 32)
    compiled = triton.compile(source, target=target, options=options)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [str(tool), "-res-usage", file.name]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", printed)
    if found is None:
        raise RuntimeError(f"cuobjdump printed no usage of {kernel.__name__}: {printed}")
    return Usage(int(found[1]), compiled.metadata.shared, int(found[2]))


def main() -> None:
    """Print the table; exit with 1 if a kernel spills."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kernel", help="only this one, e.g. attention_fwd_split_kernel")
    chosen = parser.parse_args().kernel
    print("| kernel | sizes | dtype | warps | " + " | ".join(f"sm_{a}" for a in ARCHITECTURES))
    print("|---|---|---|---|" + "---|" * len(ARCHITECTURES))
    spills, seen = 0, set()
    for configuration in configurations():
        name = configuration.kernel.__name__
        key = (name, configuration.dtype, *sorted(configuration.config.items(), key=str))
        if key in seen or chosen not in (None, name):
            continue
        seen.add(key)
        cells = []
        for architecture in ARCHITECTURES:
            usage = compile_for(configuration, architecture)
            spills += usage.spilled > 0
            spilled = f", {usage.spilled} B spilled" if usage.spilled else ""
            cells.append(f"{usage.registers} registers, {usage.shared / 1024:.1f} KiB{spilled}")
        warps = configuration.config.get("num_warps", 4)
        dtype = TRITON_NAMES[configuration.dtype]
        row = [name, configuration.note, dtype, str(warps), *cells]
        print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n{len(seen)} kernels, {spills or 'none'} spilled")
    sys.exit(1 if spills else 0)


if __name__ == "__main__":
    main()
