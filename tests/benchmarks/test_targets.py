"""The README's table of a GPU says what the files of the benchmarks say, also what was missed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import common, targets
from benchmarks.kernels import attention, decoder, greedy, sequence

ROOT = Path(__file__).parents[2]
README = "before\n<!-- gpu -->\nold\n<!-- end -->\nafter\n"
HEADER = {
    "device": "NVIDIA H200", "date": "2027-01-02T03:04:05+00:00", "torch": "2.11.0",
    "triton": "3.6.0", "cuda": "13.0", "capability": "9.0",
}  # fmt: skip


def row(case: str, method: str, median_us: float, kind: str = "additive", **more) -> dict:
    return {"case": case, "kind": kind, "method": method, "median_us": median_us, **more}


def write(folder: Path, name: str, rows: list[dict], **more) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({**HEADER, "rows": rows, **more}))


def table(results: Path) -> dict[str, list[str]]:
    text = targets.text(README, results)
    assert text.startswith("before\n<!-- gpu -->\n") and text.endswith("<!-- end -->\nafter\n")
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {f"{i} {cells[0]}": cells[1:] for i, cells in enumerate(lines[1:])}


def test_the_readme_is_up_to_date():
    command = [sys.executable, "-m", "benchmarks.targets", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_gpu_nothing_is_claimed(tmp_path):
    folder = tmp_path / "cpu"
    write(folder, "attention", [row("B64 T250", "cpp", 1.0)])
    header = json.loads((folder / "attention.json").read_text())
    del header["capability"]
    (folder / "attention.json").write_text(json.dumps(header))
    assert targets.text(README, tmp_path) == README.replace("old", targets.NONE)


def test_the_worst_case_and_the_best_method_count(tmp_path):
    rows = [
        row("B32 T200 U50", "eager graphed", 100.0), row("B32 T200 U50", "triton graphed", 10.0),
        row("B64 T250 U50", "eager graphed", 90.0), row("B64 T250 U50", "triton graphed", 30.0),
        row("B64 T250 U50", "eager", 200.0, peak_bytes=1000),
        row("B64 T250 U50", "triton", 60.0, peak_bytes=10),
        row("B64 T250 U50", "compile graphed", 1.0, skipped="no"),
    ]  # fmt: skip
    write(tmp_path / "h200", "sequence", rows)
    found = list(table(tmp_path).values())
    assert found[0][:2] == ["at least 4.0 x", "**3.0 x** missed"]
    assert found[1][1] == "not measured"  # one of the cases lacks its baseline
    assert found[3][:2] == ["at least 10.0 x", "**100.0 x** met"]
    assert "Measured on one NVIDIA H200 (torch 2.11.0" in targets.text(README, tmp_path)


def test_bounds(tmp_path):
    rows = [
        row("B16 N8 T200", "cuda graphed", 20.0), row("B16 N8 T200", "triton graphed", 10.0),
        row("B16 N8 T200", "eager graphed", 80.0),
        row("B64 T250", "cuda graphed", 10.0, **{"pass": "forward"}, fraction=0.9, bound_us=9.0,
            warm_us=7.5),
    ]  # fmt: skip
    write(tmp_path / "h200", "attention", rows)
    bounds = {"copy": 4.3e12, "tanh": 2e12, "launch": 5.0, "graph_node": 1.0, "barrier": 1.25}
    write(tmp_path / "h200", "bounds", [], bounds=bounds)
    found = list(table(tmp_path).values())
    assert found[2] == ["at least 80%", "**90%** met", "warm 120%"]
    assert found[4][1] == "**8.0 x** met"
    assert found[5][1] == f"**{16 * 8 * 200 * 512 / 2e12 / 1e-5:.0%}** met"
    assert "copying 4.30 TB/s, 2.00 10^12 tanh" in targets.text(README, tmp_path)


def test_search_training_and_transcription(tmp_path):
    rows = [
        row("B1 T250", "eager", 900.0), row("B1 T250", "persistent", 50.0),
        row("B1 T250", "cuda graphed", 80.0), row("B1 T250", "triton graphed", 110.0),
    ]  # fmt: skip
    write(tmp_path / "h200", "greedy", rows)
    trained = {"auto": 5100.0, "reference": 900.0, "speechbrain": 9000.0}  # the last is not ours
    speeds = [{"backend": name, "real_time": speed} for name, speed in trained.items()]
    write(tmp_path / "h200", "training", [*speeds, {"backend": "persistent", "skipped": "no"}])
    beam = {"search": "beam 8, ctc 0.3"}
    write(
        tmp_path / "h200", "pipeline", [{**beam, "rtf": 0.001}, {"search": "greedy", "rtf": 1e-9}]
    )
    found = list(table(tmp_path).values())
    assert found[10][1] == "**18.0 x** met"
    assert found[11][1] == "**1.6 x** missed"  # against the quicker of the two graphs
    assert found[-2][1] == "**5,100 x** met"
    assert found[-1][1] == "**1,000 x** missed"


def test_the_decoder_is_the_one_that_trains(tmp_path):
    took = {"eager": 100.0, "eager graphed": 30.0, "auto": 50.0, "triton graphed": 10.0}
    took |= {"triton": 20.0, "persistent": 15.0}  # which nobody gets without asking
    rows = [row(targets.TRAIN, method, us, **{"pass": "both"}) for method, us in took.items()]
    write(tmp_path / "h200", "decoder", rows)
    found = [cells[1] for name, cells in table(tmp_path).items()]
    assert found[7:10] == ["**2.0 x** missed", "**10.0 x** met", "**3.0 x** met"]


def test_what_the_targets_look_for_is_measured():
    """Names of cases and methods are those of the benchmarks."""
    assert {case.name for case in sequence.GPU_CASES} >= set(targets.WHOLE)
    assert {case.name for case in attention.GPU_CASES} >= {targets.BEAMS, "B64 T250"}
    assert targets.TRAIN in {case.name for case in decoder.GPU_CASES}
    assert {case.name for case in greedy.GPU_CASES} >= {"B1 T250", "B32 T250"}
    (train,) = [case for case in decoder.GPU_CASES if case.name == targets.TRAIN]
    assert decoder.methods("cuda", train).keys() >= {*targets.TRAINED, "eager", "eager graphed"}


def test_it_rewrites_the_readme(tmp_path, monkeypatch, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(README)
    monkeypatch.setattr(targets, "README", readme)
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["targets", "--check"])
    with pytest.raises(SystemExit) as stopped:
        targets.main()
    assert stopped.value.code == 1 and readme.read_text() == README
    monkeypatch.setattr(sys, "argv", ["targets"])
    targets.main()
    assert targets.NONE in readme.read_text()
    targets.main()
    assert capsys.readouterr().out.count("rewritten") == 1
