"""How benchmarks/system/decoding.py talks to a searching program in another environment.

Only torch and the standard library: this file is imported in every one of the environments. A
program is started with the sizes as JSON; it prints a line that says what it is, and then answers
every line of its input, a request, with one line.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

import torch


class Sizes(NamedTuple):
    """What is the same for everyone; the memory and all weights are random."""

    vocabulary: int = 30
    encoder: int = 640  # width of the memory: a bidirectional encoder of 320
    embedding: int = 320
    width: int = 320  # of the decoder's one LSTM layer
    attention: int = 320
    channels: int = 10  # location filters, where there are any
    taps: int = 201
    frames: int = 250
    steps: int = 100

    def memory(self, batch: int, device: str) -> torch.Tensor:
        """Encoded utterances [batch, frames, encoder], all of full length."""
        generator = torch.Generator().manual_seed(batch)
        return torch.randn(batch, self.frames, self.encoder, generator=generator).to(device)


class Request(NamedTuple):
    """One search."""

    kind: str  # of the attention: additive or location
    batch: int
    beam: int  # 1 is greedy
    threads: int = 1
    device: str = "cpu"


class Search(NamedTuple):
    """A search that is ready to run."""

    run: Callable[[], object]
    counts: Callable[[], dict[str, int]]  # runs it; `steps` taken, `rows` of the decoder computed


END = -1e4  # bias of the end of sentence: nobody ends early, so that all take as many steps


def serve(packages: list[str], how: str, build: Callable[[Sizes, Request], Search]) -> None:
    """Answer requests until the input ends.

    Args:
        packages: whose versions to report.
        how: how the number of steps is fixed, in words.
        build: makes a search with random weights.
    """
    # Libraries print: what they print goes to the error output, lest it be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_grad_enabled(False)
    sizes = Sizes(**json.loads(sys.argv[1]))
    versions = {name: metadata.version(name) for name in ["torch", *packages]}
    answers.write(json.dumps({"versions": versions, "how": how}) + "\n")
    made: dict[Request, Search] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        counting = asked.pop("counting")
        request = Request(**asked)
        torch.set_num_threads(request.threads)
        if request not in made:
            torch.manual_seed(0)
            made[request] = build(sizes, request)
        found = made[request].counts() if counting else clock(made[request].run, request.device)
        answers.write(json.dumps(found) + "\n")


def clock(run: Callable[[], object], device: str) -> dict[str, float]:
    """Seconds of one run: of the processor, over all threads, and of the clock."""
    if device != "cpu":
        torch.cuda.synchronize()
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


def counted(owner: Any, name: str) -> list[int]:
    """Replace a method by one that notes the size of its first argument at every call."""
    calls: list[int] = []
    method = getattr(owner, name)

    def noting(first: Any, *rest: Any, **options: Any) -> Any:
        calls.append(len(first))
        return method(first, *rest, **options)

    setattr(owner, name, noting)
    return calls
