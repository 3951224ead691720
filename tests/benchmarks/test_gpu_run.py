"""``benchmarks/gpu.sh`` as a user gives its commands, on the pretended GPU, in small."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from benchmarks import targets
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import counters, parts, probe, report, store

ROOT = Path(__file__).parents[2]
SECONDS = 3000  # a busy machine may take them


def command(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess:
    given = ["--folder", str(folder), "--seconds", str(SECONDS), "--into", str(folder / "reports")]
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": str(folder / "out"), **more}
    return subprocess.run(
        ["sh", str(ROOT / "benchmarks/gpu.sh"), *words, *given],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
    )


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory) -> dict[str, tuple[Path, str]]:
    """What each command says, with the folder, in the order in which they are given."""
    folder = tmp_path_factory.mktemp("gpu")
    said = {}
    for words in (("smoke",), (), ("headline",)):
        done = command(folder, *words, "--pretend")
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        said[" ".join(words) or "all"] = (folder, done.stdout)
    return said


def started(said: str) -> list[str]:
    """Parts that ran, each with how it ended."""
    return re.findall(r"== (.*?: \w+)", said)


def test_smoke_tries_everything(rehearsal):
    _, said = rehearsal["smoke"]
    wanted = ["machine", *(f"build {kind}" for kind in parts.LIBRARIES)]
    wanted += [f"check {name}" for name in parts.CHECKS]
    wanted += [f"smallest {part.name}" for part in (*parts.HEADLINE, parts.TILES)]
    assert sorted(started(said)) == sorted(f"{name}: done" for name in wanted)
    assert "smoke: clean" in said


def test_without_a_word_the_rest_follows_and_the_reports(rehearsal):
    folder, said = rehearsal["all"]
    wanted = ["machine", *(part.name for part in parts.HEADLINE), "tests", "tile sizes", "summary"]
    assert started(said) == [f"{name}: done" for name in wanted]  # smoke was clean before
    assert re.search(r"attention: B2 T9 A8 D12 additive float32 forward triton graphed: \d", said)
    assert "summary: | attention, forward and backward, against graphed eager |" in said
    device = folder / "reports" / "pretended-gpu"
    for name in ("attention", "bounds", "decoder", "greedy", "sequence", "training", "tuning"):
        assert json.loads((device / f"{name}.json").read_text())["device"] == "Pretended GPU"
        assert "Pretended GPU" in (device / f"{name}.md").read_text()
    assert (device / "sequence.png").exists()
    sequence = json.loads((device / "sequence.json").read_text())
    assert [row["method"] for row in sequence["rows"]] == [
        "triton graphed", "eager graphed", "compile graphed"
    ]  # fmt: skip
    assert sequence["command"].count("python -m benchmarks.kernels.sequence") == 2
    assert sequence["float32"] == "never as TF32"


def test_what_is_measured_is_not_measured_again(rehearsal):
    _, said = rehearsal["headline"]
    assert started(said) == ["machine: done", "summary: done"]


def test_the_archive_shows_the_same_anywhere(rehearsal, tmp_path, capsys):
    folder, _ = rehearsal["headline"]
    archive = folder / "out" / "results.tgz"
    assert report.show(archive, tmp_path) == 0
    assert "benchmarks/gpu.sh smoke" in capsys.readouterr().out
    there = {path.name: path.read_text() for path in tmp_path.glob("*/*.json")}
    wanted = {path.name: path.read_text() for path in folder.glob("reports/*/*.json")}
    assert there == wanted
    inside = store.unpack(archive, lambda _: True)
    assert {Path("junit.xml"), Path("machine.json"), Path("logs/tests.log")} <= set(inside)
    assert b'failures="0"' in inside[Path("junit.xml")]


def test_what_was_cut_off_is_shown_too(tmp_path):
    place = store.Store(tmp_path / "run", tmp_path / "results.tgz")
    device = place.folder / "results" / "nvidia-h200"
    device.mkdir(parents=True)
    header = {"device": "NVIDIA H200", "capability": "9.0", "date": "2027-01-02", "command": "x"}
    header |= {"torch": "2.11", "triton": "3.6", "cuda": "13.0"}
    row = {"benchmark": "greedy", "case": "B1 T250", "kind": "additive", "method": "eager"}
    row |= {"median_us": 9.5, "p20_us": 9.0, "p80_us": 10.0}
    text = f"{json.dumps(header)}\n{json.dumps(row)}\n" + json.dumps(row)[:20]
    (device / "greedy.jsonl").write_text(text)
    place.pack()
    report.show(place.archive, tmp_path / "reports")
    folder = tmp_path / "reports" / "nvidia-h200"
    assert json.loads((folder / "greedy.json").read_text())["rows"] == [row]
    assert "| eager | 9.5 |" in (folder / "greedy.md").read_text()
    assert any("greedy B1 T250 additive: eager 9.5" in line for line in report.lines(folder))


def test_an_archive_that_is_none_is_refused(tmp_path):
    (tmp_path / "results.tgz").write_text("no archive")
    with pytest.raises(SystemExit, match=r"error: .*results\.tgz"):
        report.show(tmp_path / "results.tgz", tmp_path)


# --- what is missing ----------------------------------------------------------------------------


def test_without_a_gpu_it_says_so_in_one_line(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = command(tmp_path, "smoke")
    assert done.returncode == 1
    assert done.stderr.strip() == "error: torch finds no GPU"
    assert "Traceback" not in done.stdout


def test_a_torch_without_cuda_is_not_a_machine_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is a build without CUDA" in probe.look()["error"]


def test_without_an_interpreter_it_says_so(tmp_path):
    done = command(tmp_path, PYTHON="no-such-python")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no-such-python not found")


def run(folder: Path, **more) -> gpu.Run:
    place = store.Store(folder / "run", folder / "results.tgz")
    return gpu.Run(place, parts.Context(place.folder), 60.0, **more)


def test_packages_that_are_missing_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(probe, "NEEDED", ("torch", "no_pytest", "no_triton"))
    with pytest.raises(SystemExit, match="error: it needs no_pytest, no_triton: pip install"):
        run(tmp_path).start()
    part = parts.Part("training", 1, "training", needs=("no_pydantic", "yaml"))
    assert run(tmp_path).wanted(part) == []
    assert "left out, training: it needs no_pydantic" in capsys.readouterr().out


def test_an_old_card_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    assert probe.look() == {"error": "it needs a GPU of compute capability 8.0; Tesla T4 has 7.5"}


def test_without_nvcc_the_others_are_measured():
    context = parts.Context(Path("x"), without="nvcc is not here")
    (attention,) = [part for part in parts.HEADLINE if part.name == "attention"]
    given = parts.arguments(attention, context)
    assert given[given.index("--methods") + 1] == "triton graphed,eager graphed,triton,eager"
    (training,) = [part for part in parts.HEADLINE if part.name == "training"]
    given = parts.arguments(training, context)
    assert given[given.index("--backends") + 1] == "auto,reference"


def test_smoke_measures_anew():
    for part in (*parts.HEADLINE, parts.TILES):
        assert "--keep" not in parts.arguments(part, parts.Context(Path("x"), smallest=True))


def test_wheels_that_were_brought_are_used(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "before")
    probe.unpack_wheels(tmp_path, tmp_path / "site")
    assert os.environ["PYTHONPATH"] == "before"
    with zipfile.ZipFile(tmp_path / "brought-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("brought_along.py", "here = True")
    assert probe.lacks(("brought_along",)) == ["brought_along"]
    probe.unpack_wheels(tmp_path, tmp_path / "site")
    assert probe.lacks(("brought_along",)) == []
    assert os.environ["PYTHONPATH"] == f"{tmp_path / 'site'}:before"


# --- what a part is -----------------------------------------------------------------------------


def test_the_headline_measures_what_the_targets_want():
    """Every case and method that the README's table is made of."""
    wanted = {
        "sequence": ({*targets.WHOLE}, {"eager", "triton", "eager graphed", "compile graphed"}),
        "attention": (
            {targets.BEAMS, "B64 T250", "B64 N8 T250"},
            {"eager graphed", *targets.STEPS},
        ),
        "decoder": ({targets.TRAIN}, {"eager", "eager graphed", *targets.TRAINED}),
        "greedy": ({"B1 T250", "B32 T250"}, {"eager", "persistent", *targets.STEPS}),
    }
    for module, (cases, methods) in wanted.items():
        some = [part for part in parts.HEADLINE if part.module == module]
        there = {case for part in some for case in part.sizes[1].split(",")}
        assert there == cases
        assert methods <= {method for part in some for method in part.methods}


def test_what_a_benchmark_did_not_measure_is_told(tmp_path, monkeypatch, capsys):
    class Benchmark:
        @staticmethod
        def main(arguments):
            folder = Path(arguments[arguments.index("--output") + 1]) / "card"
            folder.mkdir(parents=True)
            rows = [{"case": "a", "method": "eager"}, {"case": "a", "method": "b", "skipped": "no"}]
            (folder / "greedy.json").write_text(json.dumps({"rows": rows}))

    monkeypatch.setitem(sys.modules, "benchmarks.kernels.greedy", Benchmark)
    (greedy,) = [part for part in parts.HEADLINE if part.name == "greedy"]
    assert parts.measure(greedy, parts.Context(tmp_path)) == 1
    assert capsys.readouterr().out == "missing: a b: no\n"


def test_parts_can_be_programs(tmp_path):
    """Where a copy of a process cannot use the GPU."""
    some = run(tmp_path, copies=False)
    some.context = some.context._replace(smallest=True, without="no nvcc")
    what = some.job("summary", 60).what
    assert what[:3] == [sys.executable, "-m", "benchmarks.gpu"]
    assert gpu.main(what[3:]) == 0
    assert subprocess.run(what, cwd=ROOT).returncode == 0


NCU = """==PROF== Connected to process 1
"ID","Kernel Name","gpu__time_duration.sum","launch__registers_per_thread"
"","","ns","register/thread"
"0","void las::attention_split_kernel<1, 4>(AttentionParams)","21500","98"
"1","attention_fwd_combine_kernel","3500","40"
"""


def test_counters_are_read():
    rows = list(counters.report(NCU))
    assert list(counters.report(NCU * 2)) == rows * 2
    assert rows == [
        {"kernel": "attention_split_kernel", "ns": "21500", "registers": "98"},
        {"kernel": "attention_fwd_combine_kernel", "ns": "3500", "registers": "40"},
    ]
    assert counters.told(rows[1]) == "counters: attention_fwd_combine_kernel: ns 3500, registers 40"
    assert list(counters.report("==ERROR== no permission")) == []
    assert "--metrics" in counters.command(["python"])


def test_a_rehearsal_writes_where_no_results_are(monkeypatch):
    """Neither among those that were measured, nor in the place of a run that goes on."""
    seen = []
    monkeypatch.setattr(gpu, "measure", lambda chosen: seen.append(chosen) or 0)
    monkeypatch.setattr(probe, "unpack_wheels", lambda *_: None)
    for name in ("TRITON_INTERPRET", "TORCHINDUCTOR_COMPILE_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    for name in ("PYTORCH_NVML_BASED_CUDA_CHECK", "PYTHONUNBUFFERED"):
        monkeypatch.setenv(name, "1")
    gpu.main([])
    gpu.main(["--pretend"])
    real, pretended = seen
    assert real.into == ROOT / "benchmarks/results" and real.folder == ROOT / "build/gpu"
    assert pretended.folder != real.folder
    assert pretended.into.is_relative_to(pretended.folder)


def collected(selection: parts.Selection) -> list[str]:
    environment = {**os.environ, "LAS_KERNELS_TEST_DEVICE": "cpu"}
    arguments = parts.pytest_arguments(selection, "--collect-only")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        capture_output=True, text=True, env=environment, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_selections_reach_what_trains_and_searches():
    """In bfloat16: the sequence, both CUDA kernels, the tensor cores and greedy search."""
    every = parts.Selection(
        tuple({file for x in parts.CHECKS.values() for file in x.files}), " or ".join(
            f"({x.words})" for x in parts.CHECKS.values()
        )
    )  # fmt: skip
    for selection in (every, parts.TESTS):
        ids = [name for name in collected(selection) if "bfloat16" in name]
        for words in (
            "test_sequence_and_every_gradient", "test_sequence_in_half_precision",
            "test_step_and_every_gradient", "test_on_a_gpu", "test_sequence_on_a_gpu",
            "test_greedy_search_on_a_gpu", "tensor cores",
        ):  # fmt: skip
            assert any(words in name for name in ids), words
        assert not any("fp16" in name for name in collected(selection))
    watched = [
        name for x in parts.SANITIZED.values() if "persistent" in x.files[0]
        for name in collected(x)
    ]  # fmt: skip
    assert any("tensor cores" in name and "greedy" in name for name in watched)
