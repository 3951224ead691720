"""What ``Attention`` makes of an encoded batch, against torch's own layers and by hand."""

import pytest
import torch
import torch.nn.functional as F

from las.config import AttentionConfig
from las.model.attention import Attention
from las_kernels import attend, initial_alignment

Q, M = 7, 12  # widths of the query and of the memory
LENGTHS = [5, 1, 3]


def make(kind: str, heads: int) -> Attention:
    config = AttentionConfig(kind=kind, width=8, heads=heads, channels=3, taps=5)
    return Attention(Q, M, config).double()


def encoded() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(3, 5, M, dtype=torch.float64)
    lengths = torch.tensor(LENGTHS)
    for row, length in enumerate(LENGTHS):
        x[row, length:] = 0
    return x, lengths


def ask(module: Attention, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First step of attention for states [B, N, Q]."""
    memory = module.project(*encoded())
    previous = initial_alignment(
        memory.lengths,
        memory.keys.shape[1],
        states.shape[1],
        module.config.heads,
        torch.float64,
    )
    return attend(module.query(states), memory, module.score(), previous)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_dot_equals_scaled_dot_product_attention(heads):
    module = make("dot", heads)
    states = torch.randn(3, 2, Q, dtype=torch.float64)
    torch.manual_seed(1)
    context, _ = ask(module, states)
    torch.manual_seed(1)
    x, _ = encoded()
    for row, length in enumerate(LENGTHS):
        parts = [
            t.unflatten(-1, (heads, -1)).transpose(0, 1)
            for t in (
                module.query(states[row]),
                module.key(x[row, :length]),
                module.value(x[row, :length]),
            )
        ]
        expected = F.scaled_dot_product_attention(*parts).transpose(0, 1).flatten(1)
        torch.testing.assert_close(context[row], expected)


@pytest.mark.parametrize("kind", ["additive", "location"])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_additive_and_location_by_the_formula(kind, heads):
    module = make(kind, heads)
    states = torch.randn(3, 1, Q, dtype=torch.float64)
    torch.manual_seed(1)
    context, alignment = ask(module, states)
    torch.manual_seed(1)
    x, _ = encoded()
    for row, length in enumerate(LENGTHS):
        valid = x[row, :length]
        hidden = module.query(states[row]) + module.key(valid)
        if kind == "location":
            uniform = torch.full((1, length), 1 / length, dtype=torch.float64)
            filtered = F.conv1d(uniform, module.filters[:, None], padding=2)  # [C, T]
            hidden = hidden + filtered.T @ module.projection.T
        terms = torch.tanh(hidden) * module.v
        values = module.value(valid).chunk(heads, -1)
        for h, energies in enumerate(terms.chunk(heads, -1)):
            weights = energies.sum(-1).softmax(0)
            torch.testing.assert_close(alignment[row, 0, h, :length], weights)
            torch.testing.assert_close(context[row, 0].chunk(heads)[h], weights @ values[h])


def test_several_heads_read_projected_values():
    assert isinstance(make("dot", 1).value, torch.nn.Identity)
    module = make("dot", 2)
    x, lengths = encoded()
    memory = module.project(x, lengths)
    expected = x @ module.value.weight.T + module.value.bias
    torch.testing.assert_close(memory.values, expected)
    torch.testing.assert_close(memory.keys, x @ module.key.weight.T + module.key.bias)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("dot", set()),
        ("none", set()),
        ("additive", {"v"}),
        ("location", {"v", "filters", "projection"}),
    ],
)
def test_each_kind_has_its_own_weights(kind, names):
    own = {name for name, _ in make(kind, 1).named_parameters()}
    assert own == names | {"query.weight", "key.weight", "key.bias"}


@pytest.mark.parametrize("heads", [1, 2])
def test_no_attention_reads_the_mean_of_the_valid_frames(heads):
    module = make("none", heads)
    x, lengths = encoded()
    memory = module.project(x, lengths)
    assert memory.lengths.tolist() == [1, 1, 1]
    first = initial_alignment(memory.lengths, 1, 4, heads, torch.float64)
    queries = module.query(torch.randn(3, 4, Q, dtype=torch.float64))
    context, alignment = attend(queries, memory, module.score(), first)
    assert (alignment == 1).all()
    for row, length in enumerate(LENGTHS):
        mean = module.value(x[row, :length].mean(0))
        torch.testing.assert_close(context[row], mean.expand(4, M))
