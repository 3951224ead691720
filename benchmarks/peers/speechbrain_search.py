"""SpeechBrain's searchers over its AttentionalRNNDecoder; run by benchmarks/system/decoding.py."""

# Its modules are found in its own environment alone.
# mypy: disable-error-code="import-not-found"

import torch
from protocol import END, Request, Search, Sizes, counted, serve
from speechbrain.decoders.seq2seq import S2SRNNBeamSearcher, S2SRNNGreedySearcher
from speechbrain.nnet.linear import Linear
from speechbrain.nnet.RNN import AttentionalRNNDecoder

HOW = (
    "max_decode_ratio gives the steps, the bias of the end of sentence in the output layer keeps "
    "everyone from ending; eos threshold off, S2SRNNBeamSearcher and S2SRNNGreedySearcher"
)
EOS = 0


def build(sizes: Sizes, request: Request) -> Search:
    """A searcher, a memory, and what counts the decoder's steps."""
    decoder = AttentionalRNNDecoder(
        rnn_type="lstm",
        attn_type="location" if request.kind == "location" else "content",
        hidden_size=sizes.width,
        attn_dim=sizes.attention,
        num_layers=1,
        enc_dim=sizes.encoder,
        input_size=sizes.embedding,
        channels=sizes.channels,
        kernel_size=sizes.taps // 2,  # on each side
    )
    output = Linear(n_neurons=sizes.vocabulary, input_size=sizes.width)
    output.w.bias[EOS] = END
    common = {
        "embedding": torch.nn.Embedding(sizes.vocabulary, sizes.embedding),
        "decoder": decoder,
        "linear": output,
        "bos_index": EOS,
        "eos_index": EOS,
        "min_decode_ratio": 0.0,
        "max_decode_ratio": sizes.steps / sizes.frames,
    }
    searcher = (
        S2SRNNGreedySearcher(**common)
        if request.beam == 1
        else S2SRNNBeamSearcher(**common, beam_size=request.beam, using_eos_threshold=False)
    )
    searcher.to(request.device).eval()
    memory = sizes.memory(request.batch, request.device)
    lengths = torch.ones(request.batch, device=request.device)

    def count() -> dict[str, int]:
        calls = counted(decoder, "forward_step")
        searcher(memory, lengths)
        del decoder.forward_step
        return {"steps": len(calls), "rows": sum(calls)}

    return Search(lambda: searcher(memory, lengths), count)


if __name__ == "__main__":
    serve(["speechbrain"], HOW, build)
