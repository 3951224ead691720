"""ESPnet's BeamSearch over its RNNDecoder; run by benchmarks/system/decoding.py."""

# Its modules are found in its own environment alone.
# mypy: disable-error-code="import-not-found"

import logging

import torch
from espnet.nets.beam_search import BeamSearch
from espnet2.asr.decoder.rnn_decoder import RNNDecoder
from protocol import END, Request, Search, Sizes, counted, serve

HOW = (
    "maxlenratio and minlenratio give the steps, the bias of the end of sentence in the output "
    "layer keeps everyone from ending; the RNN decoder has no batched search: one utterance after "
    "another; greedy is BeamSearch with a beam of 1"
)


def build(sizes: Sizes, request: Request) -> Search:
    """A search, a memory, and what counts the decoder's steps."""
    logging.disable(logging.WARNING)  # it warns of every utterance that reaches the limit
    decoder = RNNDecoder(
        vocab_size=sizes.vocabulary,
        encoder_output_size=sizes.encoder,
        hidden_size=sizes.width,  # also the width of the embedding
        context_residual=True,  # predicts from state and context, as the others do
        att_conf={
            "atype": "location" if request.kind == "location" else "add",
            "adim": sizes.attention,
            "aconv_chans": sizes.channels,
            "aconv_filts": sizes.taps // 2,  # on each side
        },
    )
    if sizes.embedding != sizes.width:
        raise ValueError("ESPnet's embedding is as wide as its decoder")
    decoder.output.bias[decoder.eos] = END
    search = BeamSearch(
        scorers={"decoder": decoder},
        weights={"decoder": 1.0},
        beam_size=request.beam,
        vocab_size=sizes.vocabulary,
        sos=decoder.sos,
        eos=decoder.eos,
    )
    search.to(request.device).eval()
    memory = sizes.memory(request.batch, request.device)

    def run() -> list[torch.Tensor]:
        # A negative ratio is a number of steps.
        return [search(x, maxlenratio=-sizes.steps, minlenratio=-sizes.steps) for x in memory]

    def count() -> dict[str, int]:
        calls = counted(decoder, "score")  # one hypothesis a call, its ids the first argument
        run()
        del decoder.score
        return {"steps": max(calls), "rows": len(calls)}

    return Search(run, count)


if __name__ == "__main__":
    serve(["espnet"], HOW, build)
