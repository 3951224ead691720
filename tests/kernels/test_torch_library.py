"""The torch operators: their contracts, and the three-phase backward in float64."""

import pytest
import torch
from cases import (
    DTYPES,
    KINDS,
    Shape,
    case,
    check_backward_operators,
    dtype_name,
    gradients,
    relative,
)

import las_kernels
from las_kernels import reference, torch_library
from las_kernels.cpu import attention_step as cpu_step
from las_kernels.sequence import recurrent_parameters

SHAPES = {
    "plain": (Shape(), False),
    "heads, two layers, dropout": (Shape(B=3, T=11, A=8, D=12, H=2, L=2, W=3), True),
    "three layers, one frame, one step": (Shape(T=1, U=1, L=3), True),
}


def sequence(c, backend):
    return las_kernels.decode_sequence(
        c.embedded, c.memory, c.decoder, c.score, c.masks, backend=backend
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SHAPES)
def test_three_phases_equal_autograd(kind, name):
    shape, dropout = SHAPES[name]
    c = case(kind, shape, dropout=dropout)
    leaves = c.sequence_leaves()
    expected, found = sequence(c, "reference"), sequence(c, "threephase")
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    right, ours = gradients(expected, leaves), gradients(found, leaves)
    for leaf in leaves:
        torch.testing.assert_close(ours[leaf], right[leaf], rtol=1e-11, atol=1e-13, msg=leaf)


@pytest.mark.parametrize("kind", KINDS)
def test_step_of_three_beams_equals_autograd(kind):
    c = case(kind, Shape(N=3, H=2, B=3))
    leaves = c.attention_leaves()
    expected = reference.attend(c.query, c.memory, c.score, c.previous)
    found = las_kernels.attend(c.query, c.memory, c.score, c.previous, backend="threephase")
    right, ours = gradients(expected, leaves), gradients(found, leaves)
    for leaf in leaves:
        torch.testing.assert_close(ours[leaf], right[leaf], rtol=1e-11, atol=1e-13, msg=leaf)


@pytest.mark.parametrize("used", [0, 1, 2])
def test_a_gradient_of_one_result_alone(used):
    c = case("location", Shape())
    leaves = c.sequence_leaves()
    right = gradients(sequence(c, "reference")[used : used + 1], leaves)
    ours = gradients(sequence(c, "threephase")[used : used + 1], leaves)
    for leaf in leaves:
        expected = torch.zeros_like(leaves[leaf]) if right[leaf] is None else right[leaf]
        torch.testing.assert_close(ours[leaf], expected, rtol=1e-11, atol=1e-13, msg=leaf)


TINY = Shape(T=5, A=4, D=4, C=2, W=3, U=2, S=2, E=2)


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind):
    c = case(kind, TINY, dropout=True)
    weights = recurrent_parameters(c.decoder)
    projected = torch.randn(2, 2, 8, dtype=torch.float64, requires_grad=True)

    def run(projected, keys, values, *rest):
        weights, score = list(rest[:3]), [*rest[3:], None, None, None][:3]
        return torch_library.decode_sequence(
            projected, keys, values, c.memory.lengths, weights, *score, *c.masks, 1, 0.5,
            "threephase",
        )[:3]  # fmt: skip

    score = [x for x in c.score[:3] if x is not None]
    assert torch.autograd.gradcheck(run, (projected, *c.memory[:2], *weights, *score))


def operator_arguments(kind, layers=1, dtype=torch.float64):
    c = case(kind, TINY._replace(L=layers, N=2), dropout=True).to(dtype)
    score = [*c.score[:3]]
    step = (c.query, *c.memory, c.previous if kind == "location" else None, *score, 1, 0.5)
    weights = recurrent_parameters(c.decoder)
    projected = torch.randn(2, 2, 8, dtype=torch.float64, requires_grad=True)
    sequence = (projected, *c.memory, weights, *score, *c.masks, 1, 0.5)
    return step, sequence


@pytest.mark.parametrize("kind", KINDS)
def test_opcheck_of_the_step(kind):
    torch.library.opcheck(torch_library.attend, (*operator_arguments(kind)[0], "threephase"))


@pytest.mark.parametrize(("kind", "layers"), [("location", 2), ("dot", 1)])
def test_opcheck_of_the_sequence(kind, layers):
    arguments = operator_arguments(kind, layers)[1]
    torch.library.opcheck(torch_library.decode_sequence, (*arguments, "threephase"))


@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES.values()], ids=dtype_name)
@pytest.mark.parametrize("kind", KINDS)
def test_the_backward_operators_keep_their_contracts(kind, dtype):
    check_backward_operators(kind, dtype, "threephase")


class Sequence(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.decoder, self.score = c.decoder, c.score  # compiled, these get gradients

    def forward(self, embedded, keys, values, lengths):
        memory = las_kernels.Memory(keys, values, lengths)
        return las_kernels.decode_sequence(
            embedded, memory, self.decoder, self.score, backend="threephase"
        )


def constant(x):
    """Detached, as exported weights are."""
    if isinstance(x, list | tuple):
        members = [constant(y) for y in x]
        return x._make(members) if hasattr(x, "_make") else members
    return x.detach() if isinstance(x, torch.Tensor) else x


def inputs_of(c):
    return c.embedded, *c.memory


def test_compiles_without_a_graph_break():
    c = case("location", Shape())
    leaves = c.sequence_leaves()
    compiled = torch.compile(Sequence(c), fullgraph=True, backend="aot_eager")
    expected = sequence(c, "reference")
    found = compiled(*inputs_of(c))
    for a, b in zip(found, expected, strict=True):
        assert relative(a, b) < 1e-12
    right, ours = gradients(expected, leaves), gradients(found, leaves)
    for leaf in leaves:
        torch.testing.assert_close(ours[leaf], right[leaf], rtol=1e-11, atol=1e-13, msg=leaf)


def test_exports_with_any_batch_and_any_length():
    c = case("location", Shape(B=3, T=9))
    module = Sequence(c._replace(decoder=constant(c.decoder), score=constant(c.score)))
    B, T = torch.export.Dim("B", min=2, max=64), torch.export.Dim("T", min=2, max=8192)
    dynamic = ({0: B}, {0: B, 1: T}, {0: B, 1: T}, {0: B})
    with torch.no_grad():
        inputs = inputs_of(case("location", Shape(B=3, T=9)))
        program = torch.export.export(module, inputs, dynamic_shapes=dynamic)
        inputs = inputs_of(case("location", Shape(B=5, T=14), seed=2))
        for a, b in zip(program.module()(*inputs), module(*inputs), strict=True):
            assert torch.equal(a, b)


cpp = pytest.mark.skipif(
    cpu_step.available() is not None, reason=f"the C++ step cannot run here: {cpu_step.available()}"
)


@cpp
@pytest.mark.parametrize("kind", KINDS)
def test_the_step_in_cpp_is_the_same_operator(kind):
    c = case(kind, Shape(N=3, H=2, B=3, T=40)).to(torch.float32)
    leaves = c.attention_leaves()
    right = gradients(reference.attend(c.query, c.memory, c.score, c.previous), leaves)
    found = las_kernels.attend(c.query, c.memory, c.score, c.previous, backend="cpp")
    ours = gradients(found, leaves)
    for leaf in leaves:
        assert relative(ours[leaf], right[leaf]) < 1e-5, leaf
    with torch.no_grad():  # past the operator
        direct = las_kernels.attend(c.query, c.memory, c.score, c.previous)
    for a, b in zip(direct, found, strict=True):
        assert torch.equal(a, b)


@cpp
@pytest.mark.parametrize("kind", KINDS)
def test_opcheck_of_the_step_in_cpp(kind):
    step, _ = operator_arguments(kind, dtype=torch.float32)
    torch.library.opcheck(torch_library.attend, (*step, "cpp"))


@cpp
@pytest.mark.parametrize("kind", KINDS)
def test_the_backward_operators_in_cpp_keep_their_contracts(kind):
    check_backward_operators(kind, torch.float32, "cpp")


@cpp
def test_the_step_in_cpp_compiles_and_exports():
    class Step(torch.nn.Module):
        def forward(self, query, keys, values, lengths, v):
            memory = las_kernels.Memory(keys, values, lengths)
            return las_kernels.attend(query, memory, las_kernels.Score(v))

    def inputs(shape):
        c = case("additive", shape).to(torch.float32)
        return c.query, *c.memory, c.score.v

    B, T = torch.export.Dim("B", min=2, max=64), torch.export.Dim("T", min=2, max=8192)
    dynamic = ({0: B}, {0: B, 1: T}, {0: B, 1: T}, {0: B}, None)
    with torch.no_grad():
        compiled = torch.compile(Step(), fullgraph=True, backend="aot_eager")
        program = torch.export.export(Step(), inputs(Shape(B=3)), dynamic_shapes=dynamic)
        for shape in (Shape(B=3), Shape(B=5, T=14)):
            for run in (compiled, program.module()):
                for a, b in zip(run(*inputs(shape)), Step()(*inputs(shape)), strict=True):
                    assert torch.equal(a, b)
