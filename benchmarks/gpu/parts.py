"""What is measured and checked, in which order, and how long each part may take.

To measure something else, add a row to ``HEADLINE``. Which tests run is in ``CHECKS``, ``TESTS``
and ``SANITIZED``, in the words that pytest's ``-k`` takes.
"""

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import module
from benchmarks.gpu import counters, probe, report
from benchmarks.gpu.probe import ROOT

KERNELS = ROOT / "tests" / "kernels"
LIBRARIES = ("attention_step", "persistent_decoder")  # of kernels in CUDA C++
CUDA_KERNELS = ("cuda", "persistent")  # methods and backends that nvcc must have built


class Context(NamedTuple):
    """How parts are to run."""

    folder: Path  # of the run
    smallest: bool = False  # only see that it works
    pretend: bool = False  # on the pretended GPU of the tests
    without: str | None = None  # why there are no kernels in CUDA C++


class Part(NamedTuple):
    """A benchmark, as its command line: its module is that of :func:`benchmarks.module`."""

    name: str
    limit: float
    module: str
    methods: tuple[str, ...] = ()  # the most telling first
    arguments: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()  # arguments that the smallest size does without
    smallest: tuple[str, ...] = ("--smallest",)
    needs: tuple[str, ...] = ()  # packages
    option: str = "--methods"


PLAIN = ("triton graphed", "eager graphed", "triton", "eager")
STEPS = ("triton graphed", "cuda graphed", "eager graphed", "triton", "cuda", "eager")
TINY = (
    *("--smallest", "listener.width=8", "listener.layers=2", "attention.width=8"),
    *("attention.taps=3", "speller.width=8", "speller.embedding=8", "data.batch_utterances=2"),
)
HEADLINE = (
    Part("bounds", 40, "bounds"),
    Part("sequence", 80, "sequence", PLAIN, sizes=("--cases", "B32 T200 U50,B64 T250 U50")),
    Part(
        "compiled sequence", 120, "sequence", ("compile graphed", "compile"),
        sizes=("--cases", "B32 T200 U50,B64 T250 U50"),
    ),
    Part(
        "attention", 70, "attention", STEPS,
        ("--passes", "forward", "--kinds", "additive,location"),
        ("--cases", "B64 T250,B16 N8 T200,B64 N8 T250"),
    ),
    Part(
        "decoder", 90, "decoder",
        (
            *("auto", "eager", "triton graphed", "eager graphed", "auto python loop"),
            *("persistent graphed", "persistent"),
        ),
        ("--passes", "both"), ("--cases", "train LibriSpeech B32 U200"),
        ("--smallest", "--cases", "train B2 T9 U2"),
    ),
    Part(
        "training", 110, "training", ("auto", "persistent", "reference"),
        sizes=("--rounds", "2", "--batches", "4"),
        smallest=("--rounds", "1", "--batches", "1", *TINY),
        needs=("pydantic", "safetensors", "torchaudio", "yaml"), option="--backends",
    ),
    Part(
        "greedy", 60, "greedy",
        ("persistent", "cuda graphed", "triton graphed", "eager graphed", "eager", "cuda"),
        sizes=("--cases", "B1 T250,B32 T250"),
    ),
)  # fmt: skip
TILES = Part("tile sizes", 60, "tuning", arguments=("--short",))


class Selection(NamedTuple):
    """Tests of the kernels, as pytest chooses them."""

    files: tuple[str, ...]
    words: str
    cuda: bool = False  # whether they need the kernels in CUDA C++
    small: str = ""  # which of them the pretended GPU runs; the others take long there


PERSISTENT = ("test_cuda_persistent_decoder.py", "test_cuda_persistent_greedy.py")
# One of each kernel and dtype, at odd sizes and at those of a model.
CHECKS = {
    "triton": Selection(
        ("test_gpu.py", "test_triton.py"),
        "(test_gpu and every_gradient and (eight or odd or sequence) and not fp16)"
        " or (in_float32 and several) or (half_precision and bfloat16)",
        small="several and additive",
    ),
    "cuda": Selection(
        ("test_cuda_attention_step.py",),
        "on_a_gpu and (odd or training or search) and not fp16 and not dot",
        cuda=True,
        small="odd and location",
    ),
    "persistent": Selection(
        PERSISTENT,
        "on_a_gpu and (odd or tensor or large) and not fp16 and not dot",
        cuda=True,
        small="odd and location",
    ),
}
# All that a GPU can decide; what runs in the emulator does so elsewhere.
TESTS = Selection(
    (
        *("test_gpu.py", "test_cuda_attention_step.py", *PERSISTENT),
        *("test_triton.py", "../benchmarks/test_bounds.py"),
    ),
    "(test_gpu or test_triton or bounds_of_a_gpu or on_a_gpu or cuda_graph)"
    " and not fp16 and not splits_cover",
    small="on_a_gpu and odd and additive and not greedy",
)
# Small ones: compute-sanitizer looks at every access to memory.
SANITIZED = {
    "memcheck triton": Selection(
        ("test_triton.py",), "step_and_every_gradient and (several or bfloat16)"
    ),
    "memcheck cuda": Selection(
        ("test_cuda_attention_step.py",), "on_a_gpu and odd and bfloat16 and not dot", cuda=True
    ),
    "memcheck persistent": Selection(
        PERSISTENT,
        "on_a_gpu and (odd or tile) and bfloat16 and not dot",
        cuda=True,
    ),
    "racecheck cuda": Selection(
        ("test_cuda_attention_step.py",), "on_a_gpu and odd and bfloat16 and location", cuda=True
    ),
    # Blocks that wait for each other take long when they are looked at.
    "racecheck persistent": Selection(
        ("test_cuda_persistent_decoder.py",),
        "sequence_on_a_gpu and (odd or (tensor and one)) and bfloat16 and location",
        cuda=True,
    ),
}


def pytest_arguments(selection: Selection, *more: str, small: str = "") -> list[str]:
    """Arguments of pytest, which is not to look for what lies above the kernels."""
    words = f"({selection.words}) and {small}" if small else selection.words
    files = [str(KERNELS / name) for name in selection.files]
    return [
        *("-q", "--tb=short", "-p", "no:cacheprovider", f"--rootdir={ROOT}"),
        *(f"--confcutdir={KERNELS}", *more, *files, "-k", words),
    ]


def output(part: Part, context: Context) -> Path:
    """Where a benchmark writes: those that are tried at once must not write to one file."""
    return context.folder / (f"smallest/{part.name}" if context.smallest else "results")


def arguments(part: Part, context: Context) -> list[str]:
    """The command line of a benchmark."""
    found = ["--device", "cuda", "--output", str(output(part, context)), *part.arguments]
    found += part.smallest if context.smallest or context.pretend else part.sizes
    methods = list(part.methods)
    if context.without:
        methods = [name for name in methods if not name.startswith(CUDA_KERNELS)]
    if context.pretend:
        # Triton's interpreter is slow: one command tries one half, the other the other.
        methods = [name for name in methods if f"{name} graphed" not in methods]
        methods = methods if context.smallest else methods[:2]
        if part.option == "--methods" and methods:
            found += ["--kinds", "location" if context.smallest else "additive"]
    if methods:
        found[:0] = [part.option, ",".join(methods)]
    if part.module not in ("bounds", "tuning") and not context.smallest:
        found.insert(0, "--keep")
    if part.module not in ("tuning", "training"):
        found.insert(0, "--no-plot")
    return found


def measure(part: Part, context: Context) -> int:
    """Run a benchmark; 1 if it did not measure something that it should."""
    benchmark = importlib.import_module(module(part.module))
    # Blocks of Triton's interpreter come one after another: a barrier is for one alone.
    with pretended(context, 1 if part.module == "bounds" else 4):
        benchmark.main(arguments(part, context))
    missing = not_measured(output(part, context), part.module)
    for line in missing:
        print(f"missing: {line}")
    return 1 if missing else 0


def not_measured(folder: Path, module: str) -> Sequence[str]:
    """What the results of a benchmark say is not among them, and why."""
    found = []
    for path in folder.glob(f"*/{module}.json"):
        rows: list[dict[str, Any]] = json.loads(path.read_text()).get("rows", [])
        for row in rows:
            # A tile size that cannot be launched is a result.
            if "skipped" in row and module != "tuning":
                keys = ("case", "kind", "pass", "method", "backend")
                what = " ".join(str(row[key]) for key in keys if row.get(key))
                found.append(f"{what}: {row['skipped']}")
    return found


def check(selection: Selection, context: Context, *more: str) -> int:
    """Run tests of the kernels in this process."""
    import pytest

    os.environ["LAS_KERNELS_TEST_DEVICE"] = "cuda"
    with pretended(context, lowers=False):
        small = selection.small if context.pretend else ""
        return int(pytest.main(pytest_arguments(selection, *more, small=small)))


def tests(context: Context) -> int:
    """Run all tests that a GPU can decide, several at a time where pytest-xdist is installed."""
    several = [] if context.pretend or probe.lacks(("xdist",)) else ["-n", "8"]
    report = f"--junitxml={context.folder / 'junit.xml'}"
    return check(TESTS, context, report, "--maxfail=40", *several)


def build(kind: str, context: Context) -> int:
    """Build a library of CUDA kernels, for all that come later."""
    kernels = importlib.import_module(f"las_kernels.cuda.{kind}")
    with pretended(context):
        reason = kernels.available()
    print(f"build: {kind}: {reason or 'done'}")
    return 1 if reason else 0


@contextlib.contextmanager
def pretended(context: Context, processors: int = 4, lowers: bool = True) -> Iterator[None]:
    """Where that is asked for, the GPU is from here on the pretended one of the tests.

    Args:
        context: says whether.
        processors: how many multiprocessors it has.
        lowers: whether products in a backward pass are rounded, as under autocast.
    """
    if not context.pretend:
        yield
        return
    sys.path[:0] = [str(ROOT / "tests"), str(KERNELS)]
    pretend_gpu = importlib.import_module("pretend_gpu")
    if not lowers:
        pretend_gpu.PRODUCTS.clear()
    pretend_gpu.pretend(processors)
    pretend_gpu.hurry()
    with pretend_gpu.Pretence():
        yield


def functions(context: Context) -> dict[str, Callable[[], int]]:
    """Everything that runs in a process of its own, by name."""

    def machine() -> int:
        with pretended(context):
            return probe.probe(context.folder / "machine.json")

    return {
        "machine": machine,
        **{f"build {kind}": partial(build, kind, context) for kind in LIBRARIES},
        **{f"check {name}": partial(check, one, context) for name, one in CHECKS.items()},
        **{name: partial(check, one, context) for name, one in SANITIZED.items()},
        **{part.name: partial(measure, part, context) for part in (*HEADLINE, TILES)},
        "tests": partial(tests, context),
        "counters": counters.launch,
        "summary": partial(report.summary, context.folder),
    }
