"""The graphs compute what the model does, for every architecture, in padded batches."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from las.config import AttentionConfig, FrontendConfig, ListenerConfig, ModelConfig, SpellerConfig
from las.decoding.beam_search import step_limits
from las.decoding.greedy import greedy
from las.export.builder import GraphBuilder
from las.export.folder import export
from las.export.runtime import load
from las.model.las import LAS
from las.storage.exported import MANIFEST, describe, read_manifest
from las.storage.int8 import dequantised, quantised

LENGTHS = [4000, 1, 2345, 163]  # samples; one is a single frame

LISTENERS = {
    "pyramid": {"layers": 3, "reduction": 4},
    "deep pyramid, CTC below": {"layers": 5, "reduction": 8, "norm": True, "ctc_frames": 2},
    "stack": {"layers": 2, "reduction": 4, "stack": 4, "norm": True},
    "convolutions": {
        "layers": 2,
        "reduction": 4,
        "stack": 4,
        "convolutions": [8, 40],
        "norm": True,
        "ctc_frames": 2,
    },
    "one convolution": {"layers": 2, "reduction": 4, "stack": 2, "convolutions": [5], "norm": True},
    "no reduction": {"layers": 1, "reduction": 1},
}
ATTENTIONS = {
    "location": {"kind": "location", "heads": 2, "channels": 3, "taps": 35},
    "additive": {"kind": "additive", "heads": 1},
    "dot": {"kind": "dot", "heads": 4},
    "none": {"kind": "none", "heads": 2},
}


def model(listener=None, attention=None, layers=2, **others) -> LAS:
    torch.manual_seed(1)
    config = ModelConfig(
        alphabet=" 'ABC",
        frontend=FrontendConfig(
            n_mels=9, n_fft=300, win_length=211, hop_length=100, specaugment=None
        ),
        listener=ListenerConfig(width=20, **(listener or LISTENERS["stack"])),
        attention=AttentionConfig(width=8, **(attention or ATTENTIONS["location"])),
        speller=SpellerConfig(layers=layers, width=10, embedding=4),
        **others,
    )
    found = LAS(config).eval()
    with torch.no_grad():  # sharper than at the start of a training: errors show
        for parameter in found.parameters():
            parameter.mul_(2.0)
    return found


CASES = [
    *((name, "location") for name in LISTENERS),
    *(("stack", name) for name in ATTENTIONS if name != "location"),
]


@pytest.mark.parametrize(("listener", "attention"), CASES)
def test_graphs_compute_what_the_model_does(tmp_path, noise, listener, attention):
    las = model(LISTENERS[listener], ATTENTIONS[attention], layers=1 + (attention == "location"))
    export(las, tmp_path)
    exported = load(tmp_path)
    waveforms, samples = noise(LENGTHS, 77)
    with torch.inference_mode():
        right = las.encode(waveforms, samples)
        expected = greedy(las, right)
    encoded = exported.encode(waveforms.numpy(), samples.numpy())
    assert encoded.lengths.tolist() == right.memory.lengths.tolist()
    assert encoded.ctc_lengths.tolist() == right.ctc_lengths.tolist()
    H = las.config.attention.heads
    for own, other in ((encoded.keys, right.memory.keys), (encoded.values, right.memory.values)):
        joined = own.transpose(0, 2, 1, 3).reshape(other.shape)
        close(joined, other, right.memory.lengths)
    close(exported.ctc(encoded), right.ctc, right.ctc_lengths)
    limits = exported.step_limits(encoded)
    assert limits.tolist() == step_limits(right).tolist()
    found = exported.greedy(encoded, limits)
    for row, hypothesis in enumerate(expected):
        U, T = len(hypothesis.ids), int(right.memory.lengths[row])
        assert found.ids[row, :U].tolist() == hypothesis.ids.tolist()
        assert np.allclose(found.log_probs[row, :U], hypothesis.log_probs, atol=1e-4)
        assert np.allclose(found.alignments[row, :U, :, :T], hypothesis.alignment, atol=1e-4)
        assert not found.alignments[row, :U, :, T:].any()
    assert found.alignments.shape[2] == H


def close(found, right, lengths):
    for row, length in enumerate(lengths.tolist()):
        assert np.allclose(found[row, :length], right[row, :length], atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_padding_changes_nothing(tmp_path, noise, dtype):
    export(model(LISTENERS["convolutions"]), tmp_path, dtype)
    exported = load(tmp_path)
    waveforms, samples = noise(LENGTHS, 1000)
    batch = exported.encode(waveforms.numpy(), samples.numpy())
    paths = exported.greedy(batch, exported.step_limits(batch))
    for row, length in enumerate(LENGTHS):
        one = slice(row, row + 1)
        alone = exported.encode(waveforms[one, :length].numpy(), samples[one].numpy())
        limit = exported.step_limits(alone)
        assert limit[0] == exported.step_limits(batch)[row]
        path = exported.greedy(alone, limit)
        U = path.ids.shape[1]
        assert paths.ids[row, :U].tolist() == path.ids[0].tolist()
        assert np.allclose(paths.log_probs[row, :U], path.log_probs[0], atol=1e-5)


def test_int8_weights_are_those_of_the_stored_format(tmp_path, noise):
    las = model(LISTENERS["convolutions"])
    export(las, tmp_path / "int8", "int8")
    rounded = dequantised(quantised(las.state_dict()))  # what is float16 there stays float32
    wide = {name: weight for name, weight in rounded.items() if weight.dtype == torch.float32}
    las.load_state_dict(wide, strict=False)
    export(las, tmp_path / "float32")
    small, large = (load(tmp_path / dtype) for dtype in ("int8", "float32"))
    waveforms, samples = (tensor.numpy() for tensor in noise(LENGTHS))
    encoded = small.encode(waveforms, samples)
    for own, other in zip(encoded, large.encode(waveforms, samples), strict=True):
        assert np.allclose(own, other, atol=1e-4)
    steps = [one.greedy(encoded, small.step_limits(encoded)) for one in (small, large)]
    for own, other in zip(*steps, strict=True):
        assert np.allclose(own, other, atol=1e-4)
    listeners = [one.manifest.graphs["listener"].bytes for one in (small, large)]
    assert listeners[0] < 0.6 * listeners[1]


def test_int8_weights_are_float32_in_any_session(tmp_path, noise):
    export(model(LISTENERS["convolutions"]), tmp_path, "int8")
    (waveforms, samples), exported = noise(LENGTHS), load(tmp_path)
    encoded = exported.encode(waveforms.numpy(), samples.numpy())
    plain = {}
    for name, graph in exported.manifest.graphs.items():
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 3  # it warns of writing that file
        plain[name] = onnxruntime.InferenceSession(tmp_path / graph.file, options)
        stored = onnx.load(tmp_path / "optimised.onnx").graph.initializer
        assert onnx.TensorProto.INT8 not in [one.data_type for one in stored], name
    exported._sessions = plain
    for own, other in zip(
        encoded, exported.encode(waveforms.numpy(), samples.numpy()), strict=True
    ):
        assert np.array_equal(own, other)


def test_int8_exports_of_before_run_as_they_did(tmp_path, noise):
    """They have DequantizeLinear in place of Cast and Mul."""
    export(model(LISTENERS["convolutions"]), tmp_path, "int8")
    waveforms, samples = (tensor.numpy() for tensor in noise(LENGTHS))

    def found():
        exported = load(tmp_path)
        encoded = exported.encode(waveforms, samples)
        return [*encoded, *exported.greedy(encoded, exported.step_limits(encoded))]

    new, text = found(), (tmp_path / MANIFEST).read_text()
    changed = 0
    for graph in read_manifest(tmp_path).graphs.values():
        path = tmp_path / graph.file
        whole = onnx.load(path)
        scales = {one.name: one for one in whole.graph.initializer}
        sources = {node.output[0]: node for node in whole.graph.node}
        for node in whole.graph.node:
            if node.op_type == "Mul" and sources[node.input[0]].op_type == "Cast":
                weight, (_, scale) = sources[node.input[0]].input[0], node.input
                if weight not in scales:
                    continue
                array = onnx.numpy_helper.to_array(scales[scale])
                axis = int(np.argmax(array.shape))
                scales[scale].CopyFrom(onnx.numpy_helper.from_array(array.ravel(), scale))
                node.CopyFrom(
                    onnx.helper.make_node(
                        "DequantizeLinear", [weight, scale], node.output, axis=axis
                    )
                )
                changed += 1
        path.write_bytes(whole.SerializeToString())
        described = describe(path, graph.inputs, graph.outputs)
        text = text.replace(graph.sha256, described.sha256)
    (tmp_path / MANIFEST).write_text(text)
    assert changed
    for own, other in zip(found(), new, strict=True):
        assert np.array_equal(own, other)


def test_the_same_model_gives_the_same_files(tmp_path):
    las = model()
    assert export(las, tmp_path / "a") == export(las, tmp_path / "b")
    assert export(las, tmp_path / "a") == read_manifest(tmp_path / "b")


def test_the_manifest_describes_the_graphs(tmp_path):
    manifest = export(model(), tmp_path)
    assert list(manifest.graphs) == ["frontend", "listener", "ctc", "speller"]
    for graph in manifest.graphs.values():
        stored = onnx.load(tmp_path / graph.file).graph
        for values, described in ((stored.input, graph.inputs), (stored.output, graph.outputs)):
            assert [value.name for value in values] == [value.name for value in described]
            for value, one in zip(values, described, strict=True):
                shape = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
                assert shape == one.shape
                kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
                assert kind == one.dtype


def test_constants_are_stored_once():
    g = GraphBuilder("g")
    assert g.constant([1, 2]) == g.constant([1, 2]) != g.constant([[1, 2]])
    assert g.constant(1) != g.constant(1.0)
