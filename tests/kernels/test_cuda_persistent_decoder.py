"""The decoder in one launch against the float64 reference: on a GPU, and in the emulator.

In the emulator all blocks run at once, their threads in ascending or descending order: what
depends on the order lacks a barrier.
"""

import ctypes

import emulated
import pytest
import torch
from cases import KINDS, Case, Shape, case, dtype_name, gradients, relative
from torch import Tensor

import las_kernels
from las_kernels import backends, eager, initial_state, jit_build, reference
from las_kernels import sequence as recurrence
from las_kernels.cuda import attention_step as cuda_step
from las_kernels.cuda import persistent_decoder
from las_kernels.cuda.persistent_decoder import LaunchContext, Readout

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
BLANK, END = 0, 1


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    return emulated.library("persistent_decoder")


def where(library, processors: int = 3, limit: int = 1 << 17, descending: bool = False):
    library.las_emulator_order(int(descending))
    return LaunchContext(library, processors, limit, 0)


def sequence(c: Case, on: LaunchContext):
    """Results, and all that is kept, of the teacher-forced recurrence."""
    c = Case(*(_detached(x) for x in c))
    projected = torch.nn.functional.linear(
        c.embedded, c.decoder.embedding_weight, c.decoder.biases[0]
    )
    arguments = (projected, c.memory, c.decoder, c.score, c.masks)
    return persistent_decoder.forward(*arguments, on), arguments


def _detached(x):
    if isinstance(x, Tensor):
        return x.detach()
    if isinstance(x, list):
        return [_detached(y) for y in x]
    return x._make(_detached(y) for y in x) if isinstance(x, tuple) else x


def expected(arguments) -> recurrence.SavedActivations:
    def double(x):
        if isinstance(x, Tensor):
            return x.double() if x.is_floating_point() else x
        if isinstance(x, list):
            return [double(y) for y in x]
        return x._make(double(y) for y in x) if isinstance(x, tuple) else x

    return recurrence.forward(eager.OPS, *(double(x) for x in arguments))


SHAPES = {
    "one of everything": Shape(B=1, T=1, A=1, D=1, C=1, W=1, S=1, U=1),
    "odd sizes": Shape(B=3, T=17, A=21, D=15, C=3, W=9, H=3, S=7, U=4),
    "vectors, more than eight utterances": Shape(B=9, T=12, A=8, D=12, C=2, W=5, S=20, U=3),
    "more units than blocks have warps": Shape(B=2, T=5, A=80, D=4, C=2, W=3, S=100, U=2),
    "inputs in parts": Shape(B=1, T=3, A=4, D=1030, C=2, W=3, S=8, U=2),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_emulated_sequence(library, kind, shape):
    c = case(kind, shape, torch.float32, dropout=True)
    found, arguments = sequence(c, where(library))
    for one, right in zip(found, expected(arguments), strict=True):
        assert one.shape == right.shape
        assert relative(one, right) < 2e-5
    for one, other in zip(found, sequence(c, where(library, descending=True))[0], strict=True):
        assert torch.equal(one, other)  # else a barrier is missing


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=dtype_name)
@pytest.mark.parametrize("kind", KINDS)
def test_emulated_sequence_in_half_precision(library, kind, dtype):
    c = case(kind, Shape(B=2, T=13, A=16, D=20, C=3, W=7, H=2, S=12), dtype)
    found, arguments = sequence(c, where(library))
    for one, right in zip(found, expected(arguments), strict=True):
        assert relative(one, right) < TOLERANCES[dtype]


TILES = {
    "one": Shape(B=1, T=5, A=8, D=8, C=2, W=3, S=8, U=3),
    "a tile of rows and a part": Shape(B=7, T=9, A=24, D=24, C=2, W=3, H=3, S=24, U=3),
    "rounds of utterances": Shape(B=42, T=4, A=16, D=16, C=2, W=3, S=16, U=2),
    "rounds of rows and of columns": Shape(B=9, T=4, A=272, D=304, C=2, W=3, S=56, U=2),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=dtype_name)
@pytest.mark.parametrize("shape", TILES.values(), ids=TILES)
def test_emulated_tensor_cores(library, shape, dtype):
    """With weights in shared memory, and with not all of them there."""
    c = case("additive", shape, dtype, dropout=dtype is torch.bfloat16)
    found, arguments = sequence(c, where(library))
    for one, right in zip(found, expected(arguments), strict=True):
        assert relative(one, right) < TOLERANCES[dtype]
    other, _ = sequence(c, where(library, limit=34_000, descending=True))
    for one, same in zip(found, other, strict=True):
        assert torch.equal(one, same)


def test_tensor_cores_do_not_mix_utterances(library):
    """Of the same bits in any batch, as long as attention is cut the same way."""
    c = case("location", Shape(B=42, T=8, A=16, D=16, C=2, W=3, S=16, U=3), torch.bfloat16)
    found, _ = sequence(c, where(library))
    for b in (0, 17, 41):
        alone = c._replace(
            embedded=c.embedded[b : b + 1],
            memory=las_kernels.Memory(*(x[b : b + 1] for x in c.memory)),
            masks=las_kernels.Masks(*(None if x is None else x[b : b + 1] for x in c.masks)),
        )
        for one, all_ in zip(sequence(alone, where(library))[0], found, strict=True):
            assert torch.equal(one[0], all_[b])


@pytest.mark.parametrize("processors", [1, 2, 7])
@pytest.mark.parametrize("limit", [1 << 17, 36_000, 34_000])
def test_neither_blocks_nor_where_weights_are_change_anything(library, processors, limit):
    """All weights, some and none in shared memory."""
    c = case("location", Shape(B=2, T=30, A=8, D=8, C=2, W=5, S=24), torch.float32)
    found, arguments = sequence(c, where(library, processors, limit))
    for one, right in zip(found, expected(arguments), strict=True):
        assert relative(one, right) < 1e-5
    kept = persistent_decoder.launch_plan((8, 24, 8, 0), 4, processors, limit, 0)
    assert kept.shared <= limit


def test_padding_is_not_read(library):
    c = case("location", Shape(B=3, T=20, S=8), torch.float32)
    clean, _ = sequence(c, where(library))
    padding = ~reference.padding_mask(c.memory.lengths, 20)[..., None]
    dirty = c.memory._replace(
        keys=c.memory.keys.masked_fill(padding, torch.nan),
        values=c.memory.values.masked_fill(padding, torch.nan),
    )
    for one, other in zip(
        sequence(c._replace(memory=dirty), where(library))[0], clean, strict=True
    ):
        assert torch.equal(one, other)


@pytest.fixture
def persistent(library, monkeypatch):
    """The backend of this name, emulated."""
    always = backends.BACKENDS[backends.PERSISTENT]._replace(
        why_not=lambda device, dtype: None, ops=lambda: eager.OPS
    )
    monkeypatch.setitem(backends.BACKENDS, backends.PERSISTENT, always)
    monkeypatch.setattr(persistent_decoder, "_launch_context", lambda device: where(library))


@pytest.mark.usefixtures("persistent")
@pytest.mark.parametrize("layers", [1, 2])  # of which two are not for one launch
@pytest.mark.parametrize("kind", KINDS)
def test_backend_and_every_gradient(kind, layers):
    c = case(kind, Shape(B=3, T=11, L=layers, H=2), torch.float32, dropout=True)
    exact = c.to(torch.float64)
    arguments = ("embedded", "memory", "decoder", "score", "masks")
    found = las_kernels.decode_sequence(
        *(getattr(c, x) for x in arguments), backend=backends.PERSISTENT
    )
    right = reference.decode_sequence(*(getattr(exact, x) for x in arguments))
    for one, other in zip(found, right, strict=True):
        assert relative(one, other) < 1e-5
    ours = gradients(found, c.sequence_leaves())
    for leaf, other in gradients(right, exact.sequence_leaves()).items():
        assert relative(ours[leaf], other) < 1e-4, leaf


# --- greedy search --------------------------------------------------------------------------


def search_case(kind: str, shape: Shape, dtype: torch.dtype, seed: int = 0, characters: int = 7):
    """A case and an output layer; longer utterances end later."""
    c = case(kind, shape, dtype, seed)
    c = Case(*(_detached(x) for x in c))
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


# --- plans, compilers, and where it cannot run ----------------------------------------------


def test_blocks_wait_once_their_weights_are_there():
    """Another thread reads what one has put into shared memory; today's first step reads none."""
    source = (jit_build.CUDA_SOURCES / "persistent_decoder.cu").read_text()
    start = source[source.index("unsigned generation = 0") - 400 : source.index("for (int u = 0")]
    assert start.rindex("load_resident<") < start.rindex("__syncthreads();")


@pytest.mark.parametrize("width", [1, 5, 320, 1024, 2048])
@pytest.mark.parametrize("characters", [0, 30, 5000])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_every_plan_fits_and_covers_all_rows(width, characters, itemsize):
    for processors in (1, 108, 132):
        sizes = (2 * width, width, width, characters)
        found = persistent_decoder.launch_plan(sizes, itemsize, processors, 227 * 1024, 76 * 1024)
        assert found.shared <= 227 * 1024
        assert found.chunk % 4 == 0
        rows = (4 * width, width, width if characters else 0, characters)
        for groups, count in zip(found.groups, rows, strict=True):
            assert groups * 4 * processors >= count
            assert count == 0 or (groups - 1) * 4 * processors < count


def test_the_weights_of_a_large_decoder_stay_on_the_chip_of_an_h100():
    attention = cuda_step.launch_plan((32, 1, 250, 512, 1024), 1, (10, 101), 132).shared
    found = persistent_decoder.launch_plan((1024, 1024, 512, 30), 2, 132, 227 * 1024, attention)
    assert min(found.at) >= 0


# float16 differs from bfloat16 in conversions only.
@pytest.mark.parametrize(("arch", "which"), [("80", 1), ("90a", 0), ("90a", 1)])
def test_the_source_compiles_without_spills(arch, which, tmp_path):
    spills = emulated.spills("persistent_decoder", arch, which, tmp_path)
    assert len(spills) == (4, 6)[which]
    assert set(spills) == {("0", "0")}
    # Blocks meet by a release and an acquire, not by a fence of every warp.
    ptx = "".join(path.read_text() for path in tmp_path.glob("*.ptx"))
    assert "red.release.gpu" in ptx and "ld.acquire.gpu" in ptx
    assert "membar" not in ptx and "fence" not in ptx


def test_blocks_that_wait_for_ever_are_noticed(tmp_path):
    source = tmp_path / "stuck.cpp"
    source.write_text(
        "#include <cuda_runtime.h>\n"
        'extern "C" int stuck(int all) { unsigned met = 0; emulator::launch([&] {'
        "  if (threadIdx.x > 0 || (blockIdx.x == 1 && !all)) return;"
        "  atomicAdd(&met, 1u); while (met < 2) emulator::yield();"
        "}, dim3(2), 32, 0, true); return cudaGetLastError(); }\n"
    )
    try:
        step = jit_build.Step(
            source, [jit_build.cxx(), "-std=c++17", "-fPIC", f"-I{emulated.EMULATOR}"]
        )
        found = jit_build.load("stuck_blocks", [step], [jit_build.cxx(), "-shared"])
    except jit_build.BuildError as error:
        pytest.skip(str(error))
    assert (found.stuck(1), found.stuck(0)) == (0, 719)


@pytest.fixture
def gpu() -> None:
    emulated.need(persistent_decoder.available(), "the CUDA decoder")


GPU_SHAPES = {
    **SHAPES,
    **{f"tensor cores, {name}": shape for name, shape in TILES.items()},
    "large, one utterance": Shape(B=1, T=250, A=512, D=1024, C=10, W=101, S=1024, U=20),
    "large, a batch": Shape(B=32, T=250, A=512, D=1280, C=10, W=101, S=1024, U=20),
}


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("dtype", TOLERANCES, ids=dtype_name)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", GPU_SHAPES.values(), ids=GPU_SHAPES)
def test_sequence_on_a_gpu(kind, shape, dtype):
    c = case(kind, shape, torch.float32, dropout=True)
    with torch.no_grad():
        for x in (*c.decoder.recurrent_weights, c.decoder.context_weight, c.decoder.query_weight):
            x.mul_(x.shape[1] ** -0.5)
    on = persistent_decoder._launch_context(torch.device("cuda"))
    found, arguments = sequence(c.to(dtype), on)
    for one, right in zip(found, expected(arguments), strict=True):
        assert relative(one, right) < 10 * TOLERANCES[dtype]
    for one, other in zip(found, sequence(c.to(dtype), on)[0], strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("dtype", TOLERANCES, ids=dtype_name)
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
