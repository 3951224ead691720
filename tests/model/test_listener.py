"""The listener against packed sequences, padding, and the lengths it promises."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from las.config import ListenerConfig
from las.model.listener import BidirectionalLSTM, Listener, join_frames
from las_kernels.lstm_eager import reversal

COMBINATIONS = [(r, s) for r in (1, 2, 4, 8) for s in (1, 2, 4) if s <= r]
ragged = st.lists(st.integers(1, 40), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def listeners():
    torch.manual_seed(0)
    made = {}
    for r, s in COMBINATIONS:
        config = ListenerConfig(layers=4, width=5, reduction=r, stack=s, norm=s < r)
        made[r, s] = Listener(3, config).eval()
        for weight in made[r, s].norms.parameters():
            nn.init.normal_(weight)  # as trained: a bias that padding could take
    return made


def frames(lengths: list[int], extra: int = 0, width: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.zeros(len(lengths), max(lengths) + extra, width)
    for row, length in enumerate(lengths):
        x[row, :length] = torch.randn(length, width, generator=generator)
    return x, torch.tensor(lengths)


# --- one layer ------------------------------------------------------------------------------


@given(ragged)
@settings(max_examples=30)
def test_a_layer_equals_a_packed_lstm(lengths):
    torch.manual_seed(len(lengths))
    layer = BidirectionalLSTM(3, 5)
    oracle = nn.LSTM(3, 5, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for name, weight in layer.forwards.named_parameters():
            getattr(oracle, name).copy_(weight)
        for name, weight in layer.backwards.named_parameters():
            getattr(oracle, f"{name}_reverse").copy_(weight)
    x, sizes = frames(lengths)
    packed = pack_padded_sequence(x, sizes, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(oracle(packed)[0], batch_first=True)
    torch.testing.assert_close(layer(x, sizes), expected, rtol=0, atol=1e-5)


def test_forget_gates_start_open():
    layer = BidirectionalLSTM(3, 5)
    for lstm in (layer.forwards, layer.backwards):
        bias = lstm.bias_ih_l0 + lstm.bias_hh_l0
        assert bias.tolist() == [0.0] * 5 + [1.0] * 5 + [0.0] * 10


@given(ragged, st.integers(0, 3))
def test_reversal_is_an_involution(lengths, extra):
    size = max(lengths) + extra
    order = reversal(torch.tensor(lengths), size)
    identity = torch.arange(size).expand_as(order)
    assert torch.equal(order.gather(1, order), identity)
    for row, length in zip(order.tolist(), lengths, strict=True):
        assert row == [*range(length - 1, -1, -1), *range(length, size)]


def test_join_frames_fills_an_incomplete_group():
    x = torch.arange(1.0, 11.0).view(1, 5, 2)
    joined, lengths = join_frames(x, torch.tensor([5]), 2)
    assert lengths.tolist() == [3]
    assert joined.tolist() == [[[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 0, 0]]]
    joined, lengths = join_frames(x, torch.tensor([3]), 4)
    assert lengths.tolist() == [1]
    assert joined.shape == (1, 2, 8)


# --- convolutions ---------------------------------------------------------------------------


def convolutional(**settings) -> Listener:
    torch.manual_seed(0)
    config = ListenerConfig(
        layers=3, width=5, stack=4, convolutions=[4, 6], dropout=0.0, **settings
    )
    listener = Listener(7, config)
    for weight in listener.front.parameters():
        nn.init.normal_(weight, std=0.5)  # as trained: biases that padding could take
    return listener


@given(ragged, st.integers(0, 9))
@settings(max_examples=15)
def test_convolutions_are_torchs_over_each_utterance_alone(lengths, extra):
    front = convolutional().front
    x, sizes = frames(lengths, extra, 7)
    out, counts = front.train()(x, sizes)
    assert counts.tolist() == [math.ceil(n / 4) for n in lengths]
    assert out.shape == (len(lengths), math.ceil(x.shape[1] / 4), front.width)
    for row, length in enumerate(lengths):
        y = x[row, None, None, :length]
        for layer in front.layers:
            y = nn.functional.conv2d(y, layer.weight, layer.bias, 2, 1).relu()
        y = front.norm(y[0].permute(1, 2, 0).flatten(1))
        torch.testing.assert_close(out[row, : counts[row]], y, rtol=0, atol=1e-5)
        assert (out[row, counts[row] :] == 0).all()


@given(ragged, st.integers(0, 9))
@settings(max_examples=10)
def test_a_batch_changes_no_bit_after_convolutions(lengths, extra):
    listener = convolutional().eval()
    x, sizes = frames(lengths, extra, 7)
    with torch.no_grad():
        memory, counts, _, _ = listener(x, sizes)
        for row, length in enumerate(lengths):
            alone = listener(x[row : row + 1, :length], sizes[row : row + 1])[0]
            assert torch.equal(memory[row, : counts[row]], alone[0])


def test_convolutions_compute_in_float32_under_autocast_on_a_cpu():
    front = convolutional().front.train()
    x, sizes = frames([30], 0, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(front(x, sizes)[0], front(x, sizes)[0].float())
        halved = front(x, sizes)[0]
    assert torch.equal(halved, front(x, sizes)[0])


def test_gradient_passes_convolutions():
    listener = convolutional().train()
    x, sizes = frames([13, 8], 0, 7)
    x.requires_grad_()
    listener(x, sizes)[0].square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in listener.parameters())
    assert (x.grad.abs().sum(-1) > 0)[0].all()
    assert (x.grad[1, 8:] == 0).all()


def test_convolutions_have_to_fit_the_stack():
    with pytest.raises(
        ValueError, match="convolutions \\[8\\] join 2 frames \\(two each\\), but stack is 4"
    ):
        ListenerConfig(stack=4, convolutions=[8])


# --- the pyramid ----------------------------------------------------------------------------


@pytest.mark.parametrize("reduction, stack", COMBINATIONS)
@given(lengths=ragged, extra=st.integers(0, 9))
@settings(max_examples=15)
def test_padding_changes_nothing(listeners, reduction, stack, lengths, extra):
    listener = listeners[reduction, stack]
    x, sizes = frames(lengths, extra)
    memory, counts, ctc, ctc_counts = listener(x, sizes)
    promised = listener.frames(sizes)
    assert torch.equal(counts, promised[0])
    assert torch.equal(ctc_counts, promised[1])
    assert counts.tolist() == [math.ceil(n / reduction) for n in lengths]
    assert ctc_counts.tolist() == [math.ceil(n / min(reduction, 4)) for n in lengths]
    for row, length in enumerate(lengths):
        alone = listener(x[row : row + 1, :length], sizes[row : row + 1])
        for batched, valid, single in (
            (memory[row], counts[row], alone[0][0]),
            (ctc[row], ctc_counts[row], alone[2][0]),
        ):
            torch.testing.assert_close(batched[:valid], single, rtol=0, atol=1e-5)
            assert (batched[valid:] == 0).all()


@pytest.mark.parametrize("reduction, stack", COMBINATIONS)
def test_ctc_reads_the_memory_up_to_a_reduction_of_4(listeners, reduction, stack):
    memory, counts, ctc, ctc_counts = listeners[reduction, stack](*frames([32, 17]))
    if reduction <= 4:
        assert ctc is memory
        assert ctc_counts is counts
    else:
        assert memory.shape == (2, 4, 10)
        assert ctc.shape == (2, 8, 10)
        assert ctc_counts.tolist() == [8, 5]


@pytest.mark.parametrize("reduction, stack", COMBINATIONS)
def test_gradient_reaches_every_weight_and_frame(listeners, reduction, stack):
    listener = listeners[reduction, stack]
    x, sizes = frames([13, 8])
    x.requires_grad_()
    memory, counts, _, _ = listener(x, sizes)
    listener.zero_grad()
    memory.square().sum().backward()
    for name, weight in listener.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.abs().sum() > 0, name
    reached = x.grad.abs().sum(-1) > 0
    assert reached[0].all()
    assert reached[1, :8].all()
    assert (x.grad[1, 8 * 1 + (-8 % reduction) :] == 0).all()
    assert counts.tolist() == [math.ceil(13 / reduction), math.ceil(8 / reduction)]


def test_dropout_only_in_training():
    listener = Listener(3, ListenerConfig(layers=3, width=5, dropout=0.5))
    x, sizes = frames([16])
    assert not torch.equal(listener.train()(x, sizes)[0], listener(x, sizes)[0])
    assert torch.equal(listener.eval()(x, sizes)[0], listener(x, sizes)[0])
