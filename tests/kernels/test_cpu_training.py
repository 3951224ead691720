"""Training's C++ functions against autograd in float64, and their repeatability, to the bit."""

import pytest
import torch
from cases import KINDS, Case, Shape, case, gradients
from hypothesis import given, settings
from hypothesis import strategies as st

import las_kernels
from las_kernels import eager
from las_kernels.cpu import training as cpu_training
from las_kernels.reference import padding_mask
from las_kernels.types import Memory

SHAPES = {
    "small": Shape(),
    "heads, layers, ragged": Shape(B=4, T=45, A=24, D=40, H=2, L=2, W=7, U=6, S=19),
    "whole vectors and more": Shape(B=3, T=70, A=48, D=33, C=5, W=31, U=4, S=32),
    "one frame, one step": Shape(T=1, U=1, L=3),
    "filters wider than the utterance": Shape(B=2, T=4, W=19, U=3),
}


@pytest.fixture(autouse=True, scope="module")
def built():
    if reason := cpu_training.available():
        pytest.skip(f"the CPU kernels cannot run here: {reason}")


def sequence(c: Case, backend: str):
    return las_kernels.decode_sequence(
        c.embedded, c.memory, c.decoder, c.score, c.masks, backend=backend
    )


def distance(found, expected) -> float:
    return float((found.detach().double() - expected.detach().double()).abs().max())


def close(found, expected, name: str, allowed: float = 0.0) -> None:
    """Within float32 rounding of sums of some hundred terms, relative to the largest."""
    scale = float(expected.detach().abs().max())
    error = distance(found, expected)
    assert error <= max(2e-5 * scale + 1e-7, allowed), f"{name}: {error} of {scale}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dropout", [False, True])
def test_a_sequence_and_its_gradients_are_autograds(kind, name, dropout):
    exact = case(kind, SHAPES[name], dropout=dropout)
    single = exact.to(torch.float32)
    # Alignments feed back through the filters: rounding may grow from step to step, as it does in
    # autograd's own float32.
    runs = [sequence(exact, "reference"), sequence(single, "reference"), sequence(single, "cpp")]
    for number, (right, plain_one, ours) in enumerate(zip(*runs, strict=True)):
        close(ours, right, f"result {number}", 3 * distance(plain_one, right))
    leaves = exact.sequence_leaves(), single.sequence_leaves(), single.sequence_leaves()
    right, plain_one, ours = (gradients(r, x) for r, x in zip(runs, leaves, strict=True))
    for leaf, expected in right.items():
        close(ours[leaf], expected, leaf, 3 * distance(plain_one[leaf], expected))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beams", [1, 5])
def test_a_step_of_several_queries(kind, beams):
    exact = case(kind, Shape(N=beams, B=3, T=37, A=20, D=24, H=2, W=9))
    single = exact.to(torch.float32)
    results = []
    for c, backend in ((exact, "reference"), (single, "cpp")):
        found = las_kernels.attend(c.query, c.memory, c.score, c.previous, backend=backend)
        results.append(gradients(found, c.attention_leaves()))
    for leaf, expected in results[0].items():
        close(results[1][leaf], expected, leaf)


def run(c: Case) -> list[torch.Tensor]:
    found = gradients(sequence(c, "cpp"), c.sequence_leaves())
    return [*sequence(c, "cpp"), *found.values()]


@pytest.mark.parametrize("kind", KINDS)
def test_threads_change_no_bit(kind):
    c = case(kind, Shape(B=5, T=90, A=32, D=16, U=7, S=16)).to(torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run(c)
        torch.set_num_threads(3)
        three = run(c)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_never_read_and_gets_no_gradient(kind):
    c = case(kind, Shape(B=3, T=40, A=16, D=16, U=4, S=8)).to(torch.float32)
    clean = run(c)
    padding = ~padding_mask(c.memory.lengths, 40)
    with torch.no_grad():
        c.memory.keys[padding] = float("nan")
        c.memory.values[padding] = float("nan")
    dirty = run(c)
    leaves = list(c.sequence_leaves())
    for name, a, b in zip(["", "", "", *leaves], clean, dirty, strict=True):
        if name == "values":  # one matrix product of the alignment, zero on padding
            assert (b[padding] == 0).all()
        assert torch.equal(a, b), name
    assert (dirty[3 + leaves.index("keys")][padding] == 0).all()


@given(st.integers(1, 40), st.integers(1, 9), st.booleans(), st.booleans(), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_cell_is_the_plain_one(width, batch, first, last, seed):
    S, B = width, batch
    torch.manual_seed(seed)
    buffer = torch.randn(B, 3, 4 * S)  # a step of a sequence: strided rows
    states = torch.randn(B, 3, S)
    before = None if first else states[:, 0]
    exact = buffer[:, 1].double()
    cell, hidden = torch.empty(B, S).double(), torch.empty(B, S).double()
    eager.lstm_cell(exact, None if before is None else before.double(), cell, hidden)
    out = torch.empty(B, 3, S)
    cpu_training.lstm_cell(buffer[:, 1], before, states[:, 1], out[:, 1])
    close(buffer[:, 1], exact, "gates")
    close(states[:, 1], cell, "cell")
    close(out[:, 1], hidden, "hidden")

    dhidden, dcell = torch.randn(B, S), None if last else torch.randn(B, S)
    dgates, wanted = torch.empty(B, 3, 4 * S), torch.empty(B, 4 * S).double()
    expected = eager.lstm_cell_backward(
        dhidden.double(),
        None if dcell is None else dcell.double(),
        exact,
        None if before is None else before.double(),
        cell,
        wanted,
    )
    found = cpu_training.lstm_cell_backward(
        dhidden, dcell, buffer[:, 1], before, states[:, 1], dgates[:, 1]
    )
    close(found, expected, "cell before")
    close(dgates[:, 1], wanted, "gates")


@pytest.mark.parametrize("length", [0, 10])
def test_a_wrong_length_is_named(length):
    c = case("location", Shape()).to(torch.float32)
    memory = Memory(c.memory.keys, c.memory.values, torch.tensor([9, length]))
    shape = c.previous.shape
    features = eager.location_conv(c.previous, c.score.filters).detach()
    with torch.no_grad(), pytest.raises(ValueError, match=rf"lengths\[1\] is {length}"):
        cpu_training.backward(
            torch.ones(2, 1, 8),
            None,
            c.previous,
            c.query,
            memory,
            c.score,
            features,
            torch.empty(shape),
            torch.empty(c.query.shape),
            torch.empty_like(features),
        )
