"""The decoder in one launch against the float64 reference: on a GPU, and in the emulator.

In the emulator all blocks run at once, their threads in ascending or descending order: what
depends on the order lacks a barrier.
"""

import emulated
import pytest
import torch
from cases import KINDS, Case, Shape, case, detached, dtype_name, gradients, relative
from emulated import where
from torch import Tensor

import las_kernels
from las_kernels import backends, eager, jit_build, reference
from las_kernels import sequence as recurrence
from las_kernels.cuda import attention_step as cuda_step
from las_kernels.cuda import persistent_decoder
from las_kernels.cuda.persistent_decoder import LaunchContext

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def sequence(c: Case, on: LaunchContext):
    """Results, and all that is kept, of the teacher-forced recurrence."""
    c = Case(*(detached(x) for x in c))
    projected = torch.nn.functional.linear(
        c.embedded, c.decoder.embedding_weight, c.decoder.biases[0]
    )
    arguments = (projected, c.memory, c.decoder, c.score, c.masks)
    return persistent_decoder.forward(*arguments, on), arguments


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


GPU_SHAPES = {
    **SHAPES,
    **{f"tensor cores, {name}": shape for name, shape in TILES.items()},
    "large, one utterance": Shape(B=1, T=250, A=512, D=1024, C=10, W=101, S=1024, U=20),
    "large, a batch": Shape(B=32, T=250, A=512, D=1280, C=10, W=101, S=1024, U=20),
}


@pytest.mark.usefixtures("decoder_gpu")
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
