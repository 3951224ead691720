"""How fast the kernels are, against eager PyTorch and torch.compile."""

from pathlib import Path


def module(name: str) -> str:
    """Where the benchmark of this name is: "attention" is ``benchmarks.kernels.attention``."""
    for folder in ("kernels", "system"):
        if (Path(__file__).parent / folder / f"{name.replace('-', '_')}.py").exists():
            return f"benchmarks.{folder}.{name.replace('-', '_')}"
    return f"benchmarks.{name}"
