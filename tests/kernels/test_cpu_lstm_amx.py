"""The LSTM layer in bfloat16: the instructions of AMX emulated, and really where there are some."""

import pytest
import torch
from test_lstm import SHAPES, frames, layer, named, single

import las_kernels
from las_kernels import jit_build, lstm
from las_kernels.cpu import lstm_amx

FORMS = ["emulated", "amx"]


@pytest.fixture(params=FORMS)
def tiles(request, monkeypatch):
    """The layer's library is the emulated one, or the real one."""
    if request.param == "amx":
        if reason := lstm_amx.available():
            pytest.skip(reason)
        return
    try:
        library = lstm_amx.load(emulated=True)
    except jit_build.BuildError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(lstm_amx._LIBRARY, "found", library)


def run(x, lengths, weights, backend):
    out = lstm.bilstm_operator(x, lengths, weights, backend)[0]
    seed = torch.sin(torch.arange(out.numel(), dtype=out.dtype)).view(out.shape)
    return [out.detach(), *torch.autograd.grad((out * seed).sum(), [x, *weights])]


@pytest.mark.parametrize("name", SHAPES)
def test_it_is_the_layer_within_the_precision(tiles, name):
    features, width, lengths = SHAPES[name]
    weights, (x, sizes) = layer(features, width), frames(lengths, features, 2)
    expected = run(x, sizes, weights, "threephase")
    x32, *weights32 = single([x, *weights])
    found = run(x32, sizes, weights32, "amx")
    for (what, ours), right in zip(named(found), expected, strict=True):
        error = (ours.double() - right).norm() / right.norm().clamp(min=1e-9)
        assert error < 1e-2, what  # a number is rounded by 2^-9 of itself, 4e-3 at most


def test_what_bfloat16_can_say_is_right(tiles):
    """With numbers of few bits only the gates' functions and the output round."""
    torch.manual_seed(0)
    shapes = [(40, 33), (40, 10), (40,), (40,)] * 2
    weights = [torch.randint(-8, 9, shape) / 32 for shape in shapes]
    x, sizes = torch.randint(-8, 9, (21, 1, 33)) / 8.0, torch.ones(21, dtype=torch.long)
    exact = lstm.BACKEND_OPS["threephase"].forward(x.double(), sizes, [w.double() for w in weights])
    found = lstm_amx.forward(x, sizes, weights)
    torch.testing.assert_close(found.out.double(), exact.out, rtol=0, atol=2e-6)


def test_neither_batch_nor_threads_change_a_bit(tiles):
    weights, (x, sizes) = layer(37, 40), frames([70, 3, 69, 33, 64, 1] * 3, 37)
    x, *weights = single([x, *weights])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        several = run(x, sizes, weights, "amx")
        torch.set_num_threads(1)
        one = run(x, sizes, weights, "amx")
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, several, strict=True))
    for row in (0, 1, 4):
        length = int(sizes[row])
        alone = lstm_amx.forward(x[row : row + 1, :length], sizes[row : row + 1], weights).out
        assert torch.equal(one[0][row, :length], alone[0])


def test_rounding_is_torchs(tiles):
    """By a layer whose gates are its inputs: i, f, o open, g the input through the identity."""
    values = torch.tensor([1.0, 1.00390625, 1.01171875, -3.1415927, 1e-30, 65504.0])
    weights = [torch.zeros(4 * 6, 6), torch.zeros(4 * 6, 6), torch.zeros(24), torch.zeros(24)] * 2
    weights[0] = torch.cat([torch.zeros(12, 6), torch.eye(6), torch.zeros(6, 6)])
    kept = lstm_amx.forward(values[None, None], torch.tensor([1]), weights)
    expected = torch.tanh(values.bfloat16().float())
    torch.testing.assert_close(kept.gates[0, 0, 0, 12:18], expected, rtol=1e-6, atol=1e-37)


def test_a_number_that_is_none_stays_so(tiles):
    weights, (x, sizes) = layer(5, 6), frames([3, 3], 5)
    x, *weights = single([x, *weights])
    with torch.no_grad():
        x[0, 1, 2] = float("nan")
        out = lstm_amx.forward(x, sizes, weights).out
    assert out[0, 1].isnan().all() and not out[1].isnan().any()


def test_autocast_takes_it(tiles):
    weights, (x, sizes) = layer(6, 8), frames([5, 9], 6)
    x, *weights = single([x, *weights])
    with torch.autocast("cpu", torch.bfloat16):
        found = las_kernels.bilstm(x, sizes, weights)
    assert torch.equal(found, run(x, sizes, weights, "amx")[0].bfloat16())
    assert torch.equal(las_kernels.bilstm(x, sizes, weights), run(x, sizes, weights, "cpp")[0])


def test_opcheck(tiles):
    weights, (x, sizes) = layer(2, 3), frames([4, 2], 2)
    x, *weights = single([x, *weights])
    torch.library.opcheck(lstm.bilstm_operator, (x, sizes, weights, "amx"))


def test_the_real_one_compiles():
    """Wherever the compiler knows the instructions, if not the processor."""
    try:
        assert lstm_amx.load().las_lstm_allow
    except jit_build.BuildError as error:
        pytest.skip(str(error))
