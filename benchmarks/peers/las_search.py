"""This project's search; run by benchmarks/system/decoding.py as the others are."""

from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.peers.protocol import END, Request, Search, Sizes, serve
from las.config import AttentionConfig, SearchConfig, SpellerConfig
from las.decoding.hypothesis import Hypothesis
from las.decoding.search import search
from las.model.las import Encoded
from las.model.speller import Speller
from las.text.characters import ALPHABET, EOS, Characters

HOW = (
    "the limit of 100 steps follows from the CTC head's number of frames, 90, the bias of the end "
    "of sentence in the output layer keeps everyone from ending; las.decoding, with the "
    "projection of the keys, every hypothesis with its attention"
)


def build(sizes: Sizes, request: Request) -> Search:
    """A speller, a memory, and what counts its steps."""
    speller: Any = Speller(
        sizes.vocabulary,
        sizes.encoder,
        SpellerConfig(layers=1, width=sizes.width, embedding=sizes.embedding),
        AttentionConfig(
            kind="location" if request.kind == "location" else "additive",
            width=sizes.attention,
            channels=sizes.channels,
            taps=sizes.taps,
        ),
    )
    speller.output.bias[EOS] = END
    speller.to(request.device).eval()
    model: Any = SimpleNamespace(speller=speller, text=Characters(ALPHABET))
    encoded = sizes.memory(request.batch, request.device)
    lengths = torch.full((request.batch,), sizes.frames, device=request.device)
    ctc = encoded.new_zeros(request.batch, sizes.frames, sizes.vocabulary)  # weighs nothing
    config = SearchConfig(beam=request.beam)

    @torch.inference_mode()
    def run() -> list[list[Hypothesis]]:
        memory = speller.attend.project(encoded, lengths)
        # The search may take ten steps more than CTC has frames.
        limits = torch.full_like(lengths, sizes.steps - 10)
        return search(model, Encoded(memory, ctc, limits), config)

    def count() -> dict[str, int]:
        rows: list[int] = []
        step = speller.step

        def counting(memory: Any, state: Any, tokens: torch.Tensor) -> Any:
            rows.append(tokens.numel())
            return step(memory, state, tokens)

        speller.step = counting
        found = run()
        del speller.step
        if any(len(hypothesis.ids) != len(rows) for (hypothesis,) in found):
            raise RuntimeError("a hypothesis has not the length of the search")
        return {"steps": len(rows), "rows": sum(rows)}

    return Search(run, count)


if __name__ == "__main__":
    serve([], HOW, build)
