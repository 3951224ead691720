"""All steps in one call: what test_cpu_training.py leaves out of the sequence in C++."""

import pytest
import torch
from cases import Shape, case, gradients, relative
from test_cpu_training import sequence

import las_kernels
from las_kernels.cpu import sequence as cpu_sequence
from las_kernels.types import Memory


@pytest.fixture(autouse=True, scope="module")
def built():
    if reason := cpu_sequence.available():
        pytest.skip(f"the CPU kernels cannot run here: {reason}")


@pytest.mark.parametrize("kind", ["additive", "location"])
@pytest.mark.parametrize("dropout", [False, True])
def test_it_is_the_steps_called_one_by_one(kind, dropout, monkeypatch):
    c = case(kind, Shape(B=3, T=70, A=52, D=38, H=2, L=2, C=11, W=13, U=9, S=21), dropout=dropout)
    c = c.to(torch.float32)
    leaves = c.sequence_leaves()
    together = sequence(c, "cpp")
    found = gradients(together, leaves)
    monkeypatch.setattr(cpu_sequence, "available", lambda: "no compiler")
    apart = sequence(c, "cpp")
    for a, b in zip(together, apart, strict=True):
        assert relative(a, b) < 1e-4
    for leaf, expected in gradients(apart, leaves).items():
        # Alignments feed back through the filters: roundings grow from step to step.
        assert relative(found[leaf], expected) < 1e-3, leaf


@pytest.mark.parametrize("kind", ["additive", "location"])
def test_a_batch_changes_no_bit(kind):
    c = case(kind, Shape(B=6, T=70, A=24, D=40, U=5, S=19, L=2), dropout=True).to(torch.float32)
    # Another size of the batch is another number of rows of this one product, which is torch's.
    c = c._replace(embedded=torch.zeros_like(c.embedded).requires_grad_())
    outputs = sequence(c, "cpp")
    (found,) = torch.autograd.grad(sum(x.square().sum() for x in outputs), [c.memory.keys])
    for row in range(6):
        length = int(c.memory.lengths[row])
        own = slice(row, row + 1)
        keys = c.memory.keys[own, :length].detach().requires_grad_()
        memory = Memory(keys, c.memory.values[own, :length], c.memory.lengths[own])
        masks = c.masks._make(None if x is None else x[own] for x in c.masks)
        alone = las_kernels.decode_sequence(
            c.embedded[own], memory, c.decoder, c.score, masks, backend="cpp"
        )
        assert torch.equal(alone[0][0], outputs[0][row])
        assert torch.equal(alone[1][0], outputs[1][row])
        assert torch.equal(alone[2][0], outputs[2][row, ..., :length])
        sum(x.square().sum() for x in alone).backward()
        assert torch.equal(keys.grad[0], found[row, :length])


def test_what_is_no_number_stays_so():
    c = case("location", Shape(B=2, T=40, U=3)).to(torch.float32)
    with torch.no_grad():
        c.memory.keys[0, 1, 2] = float("nan")
        outputs = sequence(c, "cpp")
    assert outputs[2][0, :, :, : int(c.memory.lengths[0])].isnan().all()
    assert not any(x[1].isnan().any() for x in outputs)


@pytest.mark.parametrize("length", [0, 10])
def test_a_wrong_length_is_named(length):
    c = case("location", Shape()).to(torch.float32)
    memory = Memory(c.memory.keys, c.memory.values, torch.tensor([9, length]))
    projected = torch.zeros(2, 4, 20)
    with torch.no_grad(), pytest.raises(ValueError, match=rf"lengths\[1\] is {length}"):
        cpu_sequence.forward(projected, memory, c.decoder, c.score, c.masks)
