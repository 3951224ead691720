"""The graph of one step of the speller: token and state -> log-probabilities and new state.

It is :meth:`las.model.speller.Speller.step` in ONNX, with the arithmetic of
``las_kernels.reference``: B utterances with one hypothesis each, L layers of width S, H heads,
T frames of the memory.
"""

import math

import numpy as np

from las.export.builder import GraphBuilder
from las.model.attention import Attention
from las.model.las import LAS


def speller_graph(model: LAS, int8: bool) -> GraphBuilder:
    """One step.

    The state before the first step: hidden, cell and context are zero, the alignment is uniform
    over the valid frames, and the token is the end of sentence.
    """
    speller, config = model.speller, model.config
    heads, attention, width = config.attention.heads, config.attention.width, config.speller.width
    depth, layers = model.listener.width, config.speller.layers
    sizes: dict[str, list[int | str]] = {
        "hidden": ["B", layers, width],
        "cell": ["B", layers, width],
        "context": ["B", depth],
        "alignment": ["B", heads, "memory"],
    }
    g = GraphBuilder("speller", int8)
    tokens = g.input("tokens", "int64", ["B"])
    keys = g.input("keys", "float32", ["B", heads, "memory", attention // heads])
    values = g.input("values", "float32", ["B", heads, "memory", depth // heads])
    lengths = g.input("memory_lengths", "int64", ["B"])
    hidden, cell, context, previous = (g.input(n, "float32", s) for n, s in sizes.items())

    x = g.op("Gather", g.weight("speller.embedding.weight", speller.embedding.weight), tokens)
    fed = g.linear(context, "speller.context", speller.context_weight)
    hiddens, cells = [], []
    inputs = [speller.embedding_weight, *speller.input_weights]
    for layer, (weight, recurrent, bias) in enumerate(
        zip(inputs, speller.recurrent_weights, speller.biases, strict=True)
    ):
        name = f"speller.layers.{layer}"
        gates = g.linear(x, f"{name}.input", weight, bias)
        if layer == 0:
            gates = g.op("Add", gates, fed)
        at = g.constant(layer)
        before = g.op("Gather", hidden, at, axis=1)
        gates = g.op("Add", gates, g.linear(before, f"{name}.recurrent", recurrent))
        x, new = _lstm_cell(g, gates, g.op("Gather", cell, at, axis=1))
        hiddens.append(g.op("Unsqueeze", x, g.constant([1])))
        cells.append(g.op("Unsqueeze", new, g.constant([1])))
    query = g.linear(x, "speller.attend.query", speller.attend.query.weight)
    energy = _energy(g, speller.attend, query, keys, previous)
    valid = g.op("Unsqueeze", g.padding_mask(lengths, keys, 2), g.constant([1]))
    masked = g.op(
        "Where",
        g.op("Greater", valid, g.constant(0.5)),
        energy,
        g.constant(np.array(-np.inf)),
    )
    alignment = g.op("Softmax", masked, axis=-1)
    read = g.op("MatMul", g.op("Unsqueeze", alignment, g.constant([2])), values)
    context = g.reshaped(read, 0, depth)
    joined = g.op("Concat", x, context, axis=-1)
    readout = g.linear(joined, "speller.readout", speller.readout.weight, speller.readout.bias)
    logits = g.linear(
        g.op("Tanh", readout), "speller.output", speller.output.weight, speller.output.bias
    )
    log_probs = g.op("LogSoftmax", logits, axis=-1)
    g.output(log_probs, "log_probs", "float32", ["B", len(model.text)])
    state = {
        "hidden": g.op("Concat", *hiddens, axis=1),
        "cell": g.op("Concat", *cells, axis=1),
        "context": context,
        "alignment": alignment,
    }
    for name, value in state.items():
        g.output(value, f"new_{name}", "float32", sizes[name])
    return g


def _lstm_cell(g: GraphBuilder, gates: str, cell: str) -> tuple[str, str]:
    """:func:`las_kernels.reference.lstm_cell`: hidden and cell [B, S]."""
    i, f, c, o = g.ops("Split", 4, gates, axis=-1)
    kept = g.op("Mul", g.op("Sigmoid", f), cell)
    new = g.op("Add", kept, g.op("Mul", g.op("Sigmoid", i), g.op("Tanh", c)))
    return g.op("Mul", g.op("Sigmoid", o), g.op("Tanh", new)), new


def _energy(g: GraphBuilder, attend: Attention, query: str, keys: str, previous: str) -> str:
    """The score of :func:`las_kernels.reference.attend` before the softmax [B, H, T]."""
    config = attend.config
    H, size = config.heads, config.width // config.heads
    if attend.v is None:
        product = g.op("MatMul", keys, g.reshaped(query, 0, H, size, 1))
        energy = g.op("Mul", product, g.constant(1 / math.sqrt(size)))
    else:
        hidden = g.op("Add", g.reshaped(query, 0, H, 1, size), keys)
        if attend.filters is not None and attend.projection is not None:
            filters = g.weight("speller.attend.filters", attend.filters[:, None, None])
            sides = [0, config.taps // 2]
            image = g.op("Unsqueeze", previous, g.constant([1]))  # [B, 1, H, T]
            found = g.op("Conv", image, filters, pads=[*sides, *sides])
            projection = attend.projection.detach().view(H, size, -1).transpose(1, 2)  # [H, C, A/H]
            found = g.op("Transpose", found, perm=[0, 2, 3, 1])
            hidden = g.op("Add", hidden, g.op("MatMul", found, g.constant(projection.numpy())))
        v = attend.v.detach().view(H, size, 1)
        energy = g.op("MatMul", g.op("Tanh", hidden), g.constant(v.numpy()))
    return g.op("Squeeze", energy, g.constant([3]))
