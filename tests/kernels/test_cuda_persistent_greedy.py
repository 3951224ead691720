"""Greedy search in one launch against the float64 reference: on a GPU, and in the emulator."""

import emulated
import pytest
import torch
from cases import KINDS, Case, Shape, case, detached, dtype_name, relative
from emulated import where
from torch import Tensor

from las_kernels import initial_state, reference
from las_kernels.cuda import persistent_decoder
from las_kernels.cuda.persistent_decoder import Readout

BLANK, END = 0, 1


def search_case(kind: str, shape: Shape, dtype: torch.dtype, seed: int = 0, characters: int = 7):
    """A case and an output layer; longer utterances end later."""
    c = case(kind, shape, dtype, seed)
    c = Case(*(detached(x) for x in c))
    generator = torch.Generator().manual_seed(seed)

    def draw(*size):
        x = torch.randn(*size, generator=generator, dtype=torch.float64)
        return x.to(c.memory.keys.device, dtype)

    S, D = shape.S, shape.D
    readout = Readout(
        draw(characters, 4 * S),
        draw(S, S + D) * (S + D) ** -0.5 * 2,
        draw(S),
        draw(characters, S) * 2,
        draw(characters),
    )
    limits = (c.memory.lengths.clamp_min(2) * shape.U).clamp_max(30)
    return c, readout, limits


def slowly(c: Case, readout: Readout, limits: Tensor):
    """Greedy search in float64 by the reference, until all have ended."""

    def double(x):
        return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x

    memory, score = (x._make(map(double, x)) for x in (c.memory, c.score))
    decoder = c.decoder._make(
        [double(y) for y in x] if isinstance(x, list) else double(x) for x in c.decoder
    )
    embedded, weight, bias, output, output_bias = map(double, readout)
    state = initial_state(memory, decoder, score)
    tokens = torch.full_like(limits, END)
    ended = torch.zeros_like(limits, dtype=torch.bool)
    ids, log_probs, alignments, margins = [], [], [], []
    while not ended.all():
        hidden, state = reference.decode_step(
            embedded[tokens][:, None], state, memory, decoder, score
        )
        read = torch.tanh(torch.cat([hidden, state.context], -1) @ weight.t() + bias)
        given = (read @ output.t() + output_bias)[:, 0].log_softmax(-1)
        given[:, BLANK] = -torch.inf
        (best, second), choices = given.topk(2, -1)[0].unbind(-1), given.argmax(-1)
        margins.append((best - second).masked_fill(ended, torch.inf))
        tokens = choices.masked_fill(ended, END)
        ids.append(tokens)
        log_probs.append(best.masked_fill(ended, 0.0))
        alignments.append(state.alignment[:, 0])
        ended = ended | (tokens == END) | (len(ids) >= limits)
    found = tuple(torch.stack(x, 1) for x in (ids, log_probs, alignments))
    return found, torch.stack(margins, 1)


SEARCHES = {
    "odd sizes": Shape(B=3, T=17, A=21, D=15, C=3, W=9, H=3, S=7, U=2),
    "vectors, more than eight utterances": Shape(B=9, T=6, A=8, D=12, C=2, W=5, S=20, U=2),
    "one": Shape(B=1, T=9, A=4, D=4, C=2, W=3, S=8, U=3),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("seed", [0, 1])
def test_emulated_greedy_search(library, kind, shape, seed):
    c, readout, limits = search_case(kind, shape, torch.float32, seed)
    arguments = (c.memory, c.decoder, c.score, readout, limits)
    found = persistent_decoder.greedy(
        *arguments, blank=BLANK, end=END, launch_context=where(library)
    )
    right, margins = slowly(c, readout, limits)
    assert margins.min() > 1e-4, "the draw is a tie"
    assert torch.equal(found.ids, right[0])
    assert found.log_probs.shape == right[1].shape
    torch.testing.assert_close(found.log_probs.double(), right[1], atol=1e-4, rtol=1e-4)
    going = found.alignments.sum(-1) > 0
    assert relative(found.alignments[going], right[2][going]) < 1e-4
    if seed > 0:
        return
    again = persistent_decoder.greedy(
        *arguments, blank=BLANK, end=END, launch_context=where(library, 2, descending=True)
    )
    assert torch.equal(found.ids, again.ids)


HALF_SEARCHES = {
    **SEARCHES,
    "tensor cores, one": Shape(B=1, T=9, A=8, D=8, C=2, W=3, S=8, U=3),
    "tensor cores, a tile and a part": Shape(B=9, T=6, A=8, D=16, C=2, W=5, S=24, U=2),
    "tensor cores, rounds of utterances": Shape(B=33, T=6, A=16, D=16, C=2, W=5, S=32, U=1),
}
# By how much the likeliest character must lead to be the same after rounding; log probabilities
# may be twice as far apart.
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 0.12, torch.float16: 0.02}


def assert_same_as_far_as_it_is_sure(found, right, margins, dtype) -> None:
    """Greedy search in half precision: the same ids up to a row's first choice by a hair."""
    steps = min(found.ids.shape[1], right[0].shape[1])
    sure = (margins[:, :steps] > ROUNDING[dtype]).cumprod(1).bool()
    assert sure.double().mean() > 0.5, "the draw says little"
    assert torch.equal(found.ids[:, :steps][sure], right[0][:, :steps][sure])
    error = (found.log_probs[:, :steps].double() - right[1][:, :steps])[sure]
    assert error.abs().max() < 2 * ROUNDING[dtype]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=dtype_name)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", HALF_SEARCHES.values(), ids=HALF_SEARCHES)
def test_emulated_greedy_search_in_half_precision(library, kind, shape, dtype):
    c, readout, limits = search_case(kind, shape, dtype)
    arguments = (c.memory, c.decoder, c.score, readout, limits)
    found = persistent_decoder.greedy(
        *arguments, blank=BLANK, end=END, launch_context=where(library)
    )
    assert_same_as_far_as_it_is_sure(found, *slowly(c, readout, limits), dtype)
    if dtype == torch.float16:  # which differs in conversions only
        return
    again = persistent_decoder.greedy(
        *arguments, blank=BLANK, end=END, launch_context=where(library, 2, descending=True)
    )
    assert torch.equal(found.ids, again.ids)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_name)
def test_the_first_of_equals_is_written_of_many_characters(library, dtype):
    """More than a block has threads, and rows for all blocks; a GPU takes 16-bit ones in tiles."""
    shape = Shape(B=3, T=9, A=8, D=8, C=2, W=3, S=8, U=1)
    c, readout, limits = search_case("additive", shape, dtype, characters=300)
    bias = torch.full((300,), -40.0, dtype=dtype)
    bias[[BLANK, 70, 290, 299]] = torch.tensor([9.0, 8.0, 8.0, 8.0], dtype=dtype)
    readout = readout._replace(output=torch.zeros_like(readout.output), output_bias=bias)
    for on in (where(library), where(library, 2, descending=True)):
        found = persistent_decoder.greedy(
            c.memory, c.decoder, c.score, readout, limits, blank=BLANK, end=END, launch_context=on
        )
        going = torch.arange(found.ids.shape[1]) < limits[:, None]
        assert set(found.ids[going].tolist()) == {70}
        exact = bias.double().log_softmax(0)[70]
        assert (found.log_probs[going] - exact).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_name)
def test_emulated_greedy_search_of_many_characters(library, dtype):
    shape = Shape(B=3, T=9, A=8, D=8, C=2, W=3, S=24, U=1)
    c, readout, limits = search_case("additive", shape, dtype, characters=300)
    arguments = (c.memory, c.decoder, c.score, readout, limits)
    found = persistent_decoder.greedy(
        *arguments, blank=BLANK, end=END, launch_context=where(library)
    )
    assert_same_as_far_as_it_is_sure(found, *slowly(c, readout, limits), dtype)


def test_searches_end_at_different_steps_by_end_and_by_limit(library):
    """Or the tests above would say little."""
    c, readout, limits = search_case("location", SEARCHES["odd sizes"], torch.float32)
    ends, lengths = set(), set()
    for seed in range(6):
        c, readout, limits = search_case("location", SEARCHES["odd sizes"], torch.float32, seed)
        found = persistent_decoder.greedy(
            c.memory,
            c.decoder,
            c.score,
            readout,
            limits,
            blank=BLANK,
            end=END,
            launch_context=where(library),
        )
        assert BLANK not in found.ids
        for row, limit in zip(found.ids, limits, strict=True):
            at = (row == END).nonzero()[:1, 0]
            ends.add(len(at) > 0 and int(at) < int(limit))
            lengths.add(int(at) if len(at) else int(limit))
    assert ends == {True, False} and len(lengths) > 3


def test_a_launch_is_on_the_device_of_its_tensors(library, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_of", emulated.Current)
    seen = []

    class Library:
        def las_persistent_decoder_float32(self, *packed):
            seen.append(emulated.Current.tensor)
            return library.las_persistent_decoder_float32(*packed)

    c, readout, limits = search_case("additive", SEARCHES["one"], torch.float32)
    on = where(library)._replace(library=Library())
    arguments = (c.memory, c.decoder, c.score, readout, limits)
    persistent_decoder.greedy(*arguments, blank=BLANK, end=END, launch_context=on)
    assert seen[0] is not None and emulated.Current.tensor is None


@pytest.mark.usefixtures("decoder_gpu")
@pytest.mark.parametrize("dtype", ROUNDING, ids=dtype_name)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", HALF_SEARCHES.values(), ids=HALF_SEARCHES)
def test_greedy_search_on_a_gpu(kind, shape, dtype):
    c, readout, limits = search_case(kind, shape, dtype)
    right, margins = _moved(slowly(c, readout, limits), "cpu")
    c, readout, limits = (_moved(x, "cuda") for x in (c, readout, limits))
    found = persistent_decoder.greedy(
        c.memory, c.decoder, c.score, readout, limits, blank=BLANK, end=END
    )
    found = _moved(found, "cpu")
    if dtype == torch.float32:
        assert torch.equal(found.ids, right[0])
    else:
        assert_same_as_far_as_it_is_sure(found, right, margins, dtype)


def _moved(x, device: str):
    if isinstance(x, Tensor):
        return x.to(device)
    if isinstance(x, list):
        return [_moved(y, device) for y in x]
    if isinstance(x, tuple):
        return getattr(x, "_make", tuple)(_moved(y, device) for y in x)
    return x
