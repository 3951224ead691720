"""Building on demand: once, again where the cache is broken, and a reason where it cannot be."""

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from las_kernels import jit_build

SOURCE = 'extern "C" int answer() { return %d; }\n'


@pytest.fixture
def compiler(tmp_path, monkeypatch) -> Path:
    """A compiler that notes every call, in an empty cache of a folder with a space in its name."""
    try:
        real = jit_build.cxx()
        jit_build._ninja()
    except jit_build.BuildError as error:
        pytest.skip(str(error))
    wrapper = tmp_path / "noting compiler"
    wrapper.write_text(f'#!/bin/sh\necho "$*" >> "{tmp_path}/calls"\nexec "{real}" "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("LAS_KERNELS_CACHE", os.fspath(tmp_path / "the cache"))
    return wrapper


def load(compiler: Path, answer: int = 42, flags: tuple[str, ...] = ()) -> int:
    source = compiler.parent / "answer $1.cpp"
    written = compiler.parent / f"source {threading.get_ident()}"
    written.write_text(SOURCE % answer)
    written.replace(source)  # another thread may be compiling it: it must never be there in part
    step = jit_build.Step(source, [os.fspath(compiler), "-fPIC", *flags])
    return jit_build.load("answer", [step], [os.fspath(compiler), "-shared"]).answer()


def compilations(compiler: Path) -> int:
    calls = (compiler.parent / "calls").read_text().splitlines()
    return sum(" -c " in call for call in calls)


def libraries(compiler: Path) -> list[Path]:
    return sorted((compiler.parent / "the cache").glob("*/answer.so"))


def test_a_library_is_built_once(compiler):
    assert load(compiler) == 42
    assert load(compiler) == 42
    assert compilations(compiler) == 1
    (library,) = libraries(compiler)
    assert sorted(path.name for path in library.parent.iterdir()) == [
        "answer.sha256",
        "answer.so",
        "lock",
    ]


def test_the_source_the_flags_the_compiler_and_the_processor_are_in_the_key(compiler, monkeypatch):
    assert load(compiler) == 42
    assert load(compiler, 43) == 43
    assert load(compiler, flags=("-O1",)) == 42
    monkeypatch.setattr(jit_build, "_processor", lambda: "another one")
    assert load(compiler) == 42
    compiler.write_text(compiler.read_text() + "# a new release\n")
    assert load(compiler) == 42
    (compiler.parent / "some.h").write_text("// beside the source\n")
    assert load(compiler) == 42
    assert compilations(compiler) == len(libraries(compiler)) == 6


@pytest.mark.parametrize("damage", ["truncated", "empty", "no library", "no checksum", "swapped"])
def test_a_broken_entry_is_built_again(compiler, damage):
    assert load(compiler) == 42
    (library,) = libraries(compiler)
    content = library.read_bytes()
    library.unlink()  # the file that is loaded stays as it is; what follows is a new one
    if damage == "truncated":
        library.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        library.write_bytes(b"")
    elif damage == "swapped":
        library.write_bytes(content[::-1])
    elif damage == "no checksum":
        library.write_bytes(content)
        library.with_suffix(".sha256").unlink()
    assert load(compiler) == 42
    assert compilations(compiler) == 2
    assert jit_build._whole(library)


def test_builders_wait_for_each_other(compiler):
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: load(compiler), range(4))) == [42] * 4
    assert compilations(compiler) == 1


def test_a_failed_build_says_why_and_leaves_nothing(compiler):
    with pytest.raises(
        jit_build.BuildError, match=r"answer does not build: .*error: .*nonsense"
    ) as e:
        load(compiler, flags=("-include", "nonsense.h"))
    assert "\n" not in str(e.value)
    assert libraries(compiler) == []
    (folder,) = (compiler.parent / "the cache").iterdir()
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_a_library_that_cannot_be_loaded(compiler):
    source = compiler.parent / "missing.cpp"
    source.write_text('void nowhere(); extern "C" void f() { nowhere(); }\n')
    step = jit_build.Step(source, [os.fspath(compiler), "-fPIC"])
    link = [os.fspath(compiler), "-shared", "-Wl,-z,now"]
    with pytest.raises(jit_build.BuildError, match="nowhere"):
        jit_build.load("missing", [step], link)


def test_without_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(jit_build.BuildError, match="no-such-compiler"):
        jit_build.cxx()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(jit_build.BuildError, match=r"no C\+\+ compiler"):
        jit_build.cxx()
    step = jit_build.Step(tmp_path / "a.cu", ["nvcc"])
    with pytest.raises(jit_build.BuildError, match="nvcc"):
        jit_build.load("a", [step], ["nvcc", "-shared"])


def test_a_cache_that_cannot_be_written(compiler, monkeypatch):
    monkeypatch.setenv("LAS_KERNELS_CACHE", os.fspath(compiler / "below a file"))
    with pytest.raises(jit_build.BuildError, match="below a file"):
        load(compiler)


def test_the_cache_s_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("LAS_KERNELS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path))
    assert jit_build.cache() == tmp_path / "las_kernels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/somebody")
    assert jit_build.cache() == Path("/somebody/.cache/las_kernels")
    monkeypatch.setenv("LAS_KERNELS_CACHE", "/elsewhere")
    assert jit_build.cache() == Path("/elsewhere")


def test_a_user_without_a_home(monkeypatch):
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("LAS_KERNELS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    with pytest.raises(jit_build.BuildError, match="LAS_KERNELS_CACHE"):
        jit_build.cache()


def test_the_kernel_s_own_source_builds(monkeypatch, tmp_path):
    """From nothing, as on a user's machine."""
    try:
        steps = [jit_build.cpu_step(jit_build.CPU_SOURCES / "attention_step.cpp")]
        jit_build._ninja()
    except jit_build.BuildError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("LAS_KERNELS_CACHE", os.fspath(tmp_path))
    assert shutil.which(steps[0].command[0])
    assert jit_build.load("cpu_attention_step", steps, jit_build.torch_link()).las_attend


def test_a_struct_of_another_size_is_refused(compiler):
    """Fields that Python packs and C++ reads must be the same ones."""
    source = compiler.parent / "sized.cpp"
    source.write_text('extern "C" long answer() { return 42; }\n')
    step = jit_build.Step(source, [os.fspath(compiler), "-fPIC"])
    link = [os.fspath(compiler), "-shared"]
    jit_build.load("sized", [step], link, {"answer": 42})
    with pytest.raises(jit_build.BuildError, match="sized: answer is 42 bytes, 50 are packed"):
        jit_build.load("sized", [step], link, {"answer": 50})


def test_every_module_that_packs_a_struct_has_its_size_compared():
    for module in Path(jit_build.__file__).parent.rglob("*.py"):
        text = module.read_text()
        if "struct.Struct(" in text:
            assert "_size" in text or "cuda_step.built(" in text, module.name


def test_a_library_is_looked_for_once(caplog):
    asked = []

    def load():
        asked.append(1)
        raise jit_build.BuildError("no compiler")

    library = jit_build.Library("the kernel", load, "plain PyTorch it is")
    assert library.available() == library.available() == "no compiler"
    with pytest.raises(RuntimeError, match="the kernel cannot run: no compiler"):
        library()
    assert len(asked) == 1
    assert caplog.messages == ["plain PyTorch it is: no compiler"]
    library.forget()
    library.available()
    assert len(asked) == 2


def test_a_reason_that_is_no_failure_is_not_logged(caplog):
    library = jit_build.Library("the kernel", lambda: "no GPU", "plain PyTorch it is")
    assert library.available() == "no GPU"
    assert not caplog.records
