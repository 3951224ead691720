"""Graphs of what is computed once an utterance: frontend, listener, CTC head.

They are :mod:`las.model.features`, :mod:`las.model.listener`, :mod:`las.model.convolution` and
:meth:`las.model.attention.Attention.project` in ONNX, for padded batches: B utterances, S samples,
T frames. Lengths are honoured inside, so that padding changes nothing.
"""

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from las.export.builder import GraphBuilder
from las.model.attention import Attention
from las.model.convolution import Convolutions
from las.model.features import Frontend
from las.model.las import LAS
from las.model.listener import BidirectionalLSTM, Listener

_INT32, _FLOAT = onnx.TensorProto.INT32, onnx.TensorProto.FLOAT


def frontend_graph(frontend: Frontend) -> GraphBuilder:
    """Waveforms -> normalised log-mel features.

    The short-time Fourier transform is a convolution with cosines and sines times the window: of
    any size, nearer to float64 than a float32 FFT, and cheap beside the listener.
    """
    config = frontend.config
    g = GraphBuilder("frontend")
    waveforms = g.input("waveforms", "float32", ["B", "S"])
    samples = g.input("samples", "int64", ["B"])
    half = config.n_fft // 2
    x = g.op("Pad", waveforms, g.constant([0, half, 0, half]))
    x = g.op("Unsqueeze", x, g.constant([1]))
    x = g.op("Conv", x, g.constant(_fourier(frontend)[:, None]), strides=[config.hop_length])
    real, imaginary = g.ops("Split", 2, g.op("Mul", x, x), axis=1)
    power = g.op("Transpose", g.op("Add", real, imaginary), perm=[0, 2, 1])
    energies = g.op("MatMul", power, g.constant(frontend.mel.mel_scale.fb.numpy()))
    features = g.op("Log", g.op("Clip", energies, g.constant(config.floor)))
    lengths = g.op("Add", g.op("Div", samples, g.constant(config.hop_length)), g.constant(1))
    g.output(_normalised(g, features, lengths), "features", "float32", ["B", "T", config.n_mels])
    g.output(lengths, "lengths", "int64", ["B"])
    return g


def _fourier(frontend: Frontend) -> np.ndarray:
    """Rows of cosines, then of sines, of the transform's frequencies, times the window."""
    size = frontend.config.n_fft
    window = frontend.mel.spectrogram.window.double().numpy()
    before = (size - len(window)) // 2
    padded = np.pad(window, (before, size - len(window) - before))
    turns = np.outer(np.arange(size // 2 + 1), np.arange(size)) % size / size
    angles = 2 * np.pi * turns
    return np.concatenate([np.cos(angles), np.sin(angles)]) * padded


def _normalised(g: GraphBuilder, features: str, lengths: str) -> str:
    """:func:`las.model.features.normalise`."""
    mask = g.op("Unsqueeze", g.padding_mask(lengths, features, 1), g.constant([2]))
    count = g.op("Unsqueeze", g.op("Cast", lengths, to=_FLOAT), g.constant([1, 2]))

    def mean(x: str) -> str:
        return g.op("Div", g.op("ReduceSum", x, g.constant([1]), keepdims=1), count)

    features = g.op("Mul", features, mask)
    centred = g.op("Mul", g.op("Sub", features, mean(features)), mask)
    centred = g.op("Mul", g.op("Sub", centred, mean(centred)), mask)
    deviation = g.op("Sqrt", mean(g.op("Mul", centred, centred)))
    return g.op("Div", centred, g.op("Clip", deviation, g.constant(0.1)))


def listener_graph(model: LAS, int8: bool) -> GraphBuilder:
    """Features -> keys and values of the memory by heads, and the input of the CTC head."""
    listener = model.listener
    g = GraphBuilder("listener", int8)
    x = g.input("features", "float32", ["B", "T", model.config.frontend.n_mels])
    lengths = g.input("lengths", "int64", ["B"])
    x, lengths, ctc, ctc_lengths = _encoded(g, listener, x, lengths)
    attend, heads = model.speller.attend, model.config.attention.heads
    keys, values, memory_lengths = _projected(g, attend, x, lengths)
    for name, memory, width in (
        ("keys", keys, attend.config.width),
        ("values", values, listener.width),
    ):
        # By heads here, not in every step of the speller.
        split = g.reshaped(memory, 0, 0, heads, width // heads)
        by_heads = g.op("Transpose", split, perm=[0, 2, 1, 3])
        g.output(by_heads, name, "float32", ["B", heads, "memory", width // heads])
    g.output(memory_lengths, "memory_lengths", "int64", ["B"])
    g.output(ctc, "ctc_input", "float32", ["B", "ctc_input", listener.width])
    frames = g.op("Mul", ctc_lengths, g.constant(listener.config.ctc_frames))
    g.output(frames, "ctc_lengths", "int64", ["B"])
    return g


def ctc_graph(model: LAS, int8: bool) -> GraphBuilder:
    """Input of the CTC head -> its log-probabilities."""
    g = GraphBuilder("ctc", int8)
    x = g.input("ctc_input", "float32", ["B", "ctc_input", model.listener.width])
    scores = g.linear(x, "ctc", model.ctc.weight, model.ctc.bias)
    log_probs = g.op("LogSoftmax", g.reshaped(scores, 0, -1, len(model.text)), axis=-1)
    g.output(log_probs, "log_probs", "float32", ["B", "ctc", len(model.text)])
    return g


def _encoded(g: GraphBuilder, listener: Listener, x: str, lengths: str) -> tuple[str, ...]:
    """:meth:`las.model.listener.Listener.forward`."""
    config = listener.config
    if listener.front is not None:
        x, lengths = _convolved(g, listener.front, x, lengths)
    else:
        x, lengths = _joined(g, x, lengths, config.stack, listener.layers[0])
    ctc, ctc_lengths = x, lengths
    for index, layer in enumerate(listener.layers):
        if 1 <= index <= config.pairings:
            x, lengths = _joined(g, x, lengths, 2, layer)
        x = _bilstm(g, layer, f"listener.layers.{index}", x, lengths)
        if config.norm:
            x = _layer_norm(g, listener.norms[index], f"listener.norms.{index}", x)
        x = _masked(g, x, lengths)
        if index == config.ctc_layer:
            ctc, ctc_lengths = x, lengths
    return x, lengths, ctc, ctc_lengths


def _convolved(g: GraphBuilder, front: Convolutions, x: str, lengths: str) -> tuple[str, str]:
    """:class:`las.model.convolution.Convolutions`."""
    x = g.op("Unsqueeze", x, g.constant([1]))
    for index, layer in enumerate(front.layers):
        name = f"listener.front.layers.{index}"
        weight = g.weight(f"{name}.weight", layer.get_parameter("weight"))
        bias = g.weight(f"{name}.bias", layer.get_parameter("bias"))
        x = g.op("Relu", g.op("Conv", x, weight, bias, strides=[2, 2], pads=[1, 1, 1, 1]))
        lengths = _ceil(g, lengths, 2)
        mask = g.op("Unsqueeze", g.padding_mask(lengths, x, 2), g.constant([1, 3]))
        x = g.op("Mul", x, mask)
    x = g.reshaped(g.op("Transpose", x, perm=[0, 2, 3, 1]), 0, 0, front.width)
    x = _layer_norm(g, front.norm, "listener.front.norm", x)
    return _masked(g, x, lengths), lengths


def _joined(g: GraphBuilder, x: str, lengths: str, count: int, layer: nn.Module) -> tuple[str, str]:
    """:func:`las.model.listener.join_frames`, for the input of a layer."""
    if count == 1:
        return x, lengths
    missing = g.op("Mod", g.op("Neg", g.size(x, 1)), g.constant([count]))
    pads = g.op("Concat", g.constant([0, 0, 0, 0]), missing, g.constant([0]), axis=0)
    width = layer.get_parameter("forwards.weight_ih_l0").shape[1]
    return g.reshaped(g.op("Pad", x, pads), 0, -1, width), _ceil(g, lengths, count)


def _bilstm(g: GraphBuilder, layer: nn.Module, name: str, x: str, lengths: str) -> str:
    """A :class:`las.model.listener.BidirectionalLSTM` [B, T, F] -> [B, T, 2W]."""
    assert isinstance(layer, BidirectionalLSTM)
    lstms = (layer.forwards, layer.backwards)
    width = layer.forwards.hidden_size

    def of_both(kind: str) -> Tensor:
        return torch.cat([_reordered(lstm.get_parameter(f"{kind}_l0").detach()) for lstm in lstms])

    matrices = [
        g.reshaped(g.weight(f"{name}.{kind}", of_both(kind)), 2, 4 * width, -1)
        for kind in ("weight_ih", "weight_hh")
    ]
    biases = [of_both(kind).view(2, 4 * width) for kind in ("bias_ih", "bias_hh")]
    outputs = g.op(
        "LSTM",
        g.op("Transpose", x, perm=[1, 0, 2]),
        *matrices,
        g.constant(torch.cat(biases, 1).numpy()),
        g.op("Cast", lengths, to=_INT32),
        direction="bidirectional",
        hidden_size=width,
    )
    return g.reshaped(g.op("Transpose", outputs, perm=[2, 0, 1, 3]), 0, 0, 2 * width)


def _reordered(gates: Tensor) -> Tensor:
    """Gates [4W, ...] in ONNX's order: input, output, forget, cell; torch's has output last."""
    i, f, g, o = gates.chunk(4)
    return torch.cat([i, o, f, g])


def _layer_norm(g: GraphBuilder, norm: nn.Module, name: str, x: str) -> str:
    assert isinstance(norm, nn.LayerNorm)
    parameters = [g.weight(f"{name}.{kind}", w) for kind, w in norm.named_parameters()]
    return g.op("LayerNormalization", x, *parameters, axis=-1, epsilon=norm.eps)


def _masked(g: GraphBuilder, x: str, lengths: str) -> str:
    """Set the padding of x [B, T, F] to zero."""
    return g.op("Mul", x, g.op("Unsqueeze", g.padding_mask(lengths, x, 1), g.constant([2])))


def _ceil(g: GraphBuilder, lengths: str, count: int) -> str:
    return g.op("Div", g.op("Add", lengths, g.constant(count - 1)), g.constant(count))


def _projected(g: GraphBuilder, attend: Attention, x: str, lengths: str) -> tuple[str, str, str]:
    """:meth:`las.model.attention.Attention.project`: keys, values [B, T, W] and lengths."""
    if attend.config.kind == "none":
        total = g.op("ReduceSum", x, g.constant([1]), keepdims=1)
        count = g.op("Unsqueeze", g.op("Cast", lengths, to=_FLOAT), g.constant([1, 2]))
        x = g.op("Div", total, count)
        lengths = g.op("Div", lengths, lengths)  # all are 1
    keys = g.linear(x, "speller.attend.key", attend.key.weight, attend.key.bias)
    values = x
    if isinstance(attend.value, nn.Linear):
        values = g.linear(x, "speller.attend.value", attend.value.weight, attend.value.bias)
    return keys, values, lengths
