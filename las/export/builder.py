"""ONNX graphs, one operator after another."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from torch import Tensor

from las.storage.exported import Value
from las.storage.int8 import SCALE, quantised

OPSET = 17  # the first with LayerNormalization
IR_VERSION = 8  # of the file; read by onnxruntime since 1.13


class GraphBuilder:
    """A graph whose nodes are added in order; values are known by their names.

    Args:
        name: of the graph.
        int8: whether to store matrices as int8 with a float32 scale for each row
            (:mod:`las.storage.int8`); the graph then makes float32 of them.
    """

    def __init__(self, name: str, int8: bool = False) -> None:
        self.name, self.int8 = name, int8
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self._nodes: list[onnx.NodeProto] = []
        self._stored: list[onnx.TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Add an input; sizes that are names differ from call to call."""
        self.inputs.append(Value(name=name, dtype=dtype, shape=list(shape)))
        return name

    def output(self, value: str, name: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Make a value an output of this name."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(Value(name=name, dtype=dtype, shape=list(shape)))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; the empty name is an input that is left out."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with several outputs."""
        names = [f"{kind}_{len(self._nodes)}_{output}" for output in range(count)]
        self._nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names

    def constant(self, value: np.ndarray | Sequence[int] | int | float) -> str:
        """Add a constant; integers are int64 and others float32."""
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self._store(self._constants[key], array)
        return self._constants[key]

    def weight(self, name: str, tensor: Tensor, rows: int = 0) -> str:
        """Add a parameter.

        Args:
            name: of the stored tensor.
            tensor: vectors stay float32, and so do rows that are too short for int8.
            rows: the dimension, of two, in which int8 has a scale for each index.
        """
        tensor = tensor.detach().float().cpu()
        if not self.int8 or tensor.ndim < 2:
            self._store(name, tensor.numpy())
            return name
        by_rows = tensor.movedim(rows, 0)
        found = quantised({name: by_rows})
        if name + SCALE not in found:
            self._store(name, tensor.numpy())
            return name
        self._store(name, found[name].movedim(0, rows).contiguous().numpy())
        scale = found[name + SCALE].view(-1, *[1] * (tensor.ndim - 1)).movedim(0, rows)
        self._store(name + SCALE, scale.numpy())
        # Not DequantizeLinear: onnxruntime computes that in every step, unless told otherwise.
        return self.op("Mul", self.op("Cast", name, to=onnx.TensorProto.FLOAT), name + SCALE)

    def linear(self, x: str, name: str, weight: Tensor, bias: Tensor | None = None) -> str:
        """``x @ weight.T + bias`` for x [..., K] and the weight [N, K]."""
        product = self.op("MatMul", x, self.weight(f"{name}.weight", weight.T.contiguous(), rows=1))
        return (
            product if bias is None else self.op("Add", product, self.weight(f"{name}.bias", bias))
        )

    def size(self, x: str, dimension: int) -> str:
        """A size of x as int64 [1]."""
        return self.op("Shape", x, start=dimension, end=dimension + 1)

    def reshaped(self, x: str, *sizes: int) -> str:
        """Change the shape of x; 0 copies a size and -1 is what remains."""
        return self.op("Reshape", x, self.constant(list(sizes)))

    def padding_mask(self, lengths: str, like: str, dimension: int) -> str:
        """1.0 where a frame is valid, else 0.0: [B, T], T being a size of ``like``."""
        size = self.op("Squeeze", self.size(like, dimension))
        frames = self.op("Range", self.constant(0), size, self.constant(1))
        valid = self.op("Less", frames, self.op("Unsqueeze", lengths, self.constant([1])))
        return self.op("Cast", valid, to=onnx.TensorProto.FLOAT)

    def model(self) -> onnx.ModelProto:
        """The whole.

        Raises:
            onnx.checker.ValidationError: the graph is not valid.
        """
        graph = helper.make_graph(
            self._nodes,
            self.name,
            [_info(value) for value in self.inputs],
            [_info(value) for value in self.outputs],
            self._stored,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="listen-attend-spell",
        )
        onnx.checker.check_model(model)
        return model

    def _store(self, name: str, array: np.ndarray) -> None:
        self._stored.append(numpy_helper.from_array(np.asarray(array, order="C"), name))


def _info(value: Value) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
    return helper.make_tensor_value_info(value.name, kind, value.shape)
