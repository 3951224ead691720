"""The benchmarks run, and write what they say they do; how fast anything is, is not tested."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import common
from benchmarks.kernels import attention, decoder, greedy, sequence, shapes, timing
from benchmarks.system import decoding, listener, pipeline, training
from las_kernels import backends, reference

SMALLEST = ["--device", "cpu", "--smallest", "--methods", "eager,cpp,sdpa,threephase"]


def run(benchmark, folder: Path, *more: str) -> tuple[dict, str]:
    benchmark.main([*SMALLEST, "--output", str(folder), *more])
    (results,) = folder.iterdir()
    assert not list(results.glob("*.jsonl"))
    assert not list(results.glob("*.part*"))
    found = json.loads((results / f"{benchmark.NAME}.json").read_text())
    return found, (results / f"{benchmark.NAME}.md").read_text()


def check_rows(rows: list[dict]) -> None:
    for row in rows:
        if "skipped" in row:  # where there is no compiler
            assert row["method"] == "cpp"
        else:
            assert 0 < row["p20_us"] <= row["median_us"] <= row["p80_us"]
            assert row["threads"] == 1 or row["benchmark"] == "decoder"


def test_attention(tmp_path):
    found, table = run(attention, tmp_path)
    assert found["note"] == common.NOT_GPU
    assert common.NOT_GPU in table
    assert {"device", "date", "command", "torch", "triton", "python"} <= found.keys()
    check_rows(found["rows"])
    eager = [(r["kind"], r["pass"]) for r in found["rows"] if r["method"] == "eager"]
    kinds = ("additive", "location", "dot")
    assert sorted(eager) == sorted((kind, which) for kind in kinds for which in attention.PASSES)
    forward_only = {r["pass"] for r in found["rows"] if r["method"] == "cpp"}
    assert forward_only == {"forward"}
    assert table.count("| eager |") == 9
    assert "x eager" in table


def test_decoder(tmp_path):
    found, table = run(decoder, tmp_path)
    check_rows(found["rows"])
    methods = {(r["case"].split()[0], r["method"]) for r in found["rows"]}
    assert methods == {
        ("train", "eager"), ("train", "threephase"), ("search", "eager"), ("search", "cpp")
    }  # fmt: skip
    assert table.startswith("# benchmarks.kernels.decoder: CPU")


def test_decoding_without_others(tmp_path, monkeypatch):
    monkeypatch.delenv("LAS_PEERS", raising=False)
    decoding.main(["--device", "cpu", "--smallest", "--output", str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["decoding.json", "decoding.md"]
    found = json.loads((folder / "decoding.json").read_text())
    assert list(found["peers"]) == ["las"]
    assert {"device", "date", "command", "torch", "python", "sizes"} <= found.keys()
    steps = found["sizes"]["steps"]
    for row, rows in zip(found["rows"], (2, 2), strict=True):  # a beam of 2, a batch of 2
        assert (row["steps"], row["rows"]) == (steps, rows * steps)
        assert row["median_s"] > 0 and row["wall_s"] > 0


def test_a_missed_target_is_marked():
    row = {"kind": "location", "heap": "default", "threads": 1, "beam": 8, "batch": 1}
    row |= {"steps": 100, "rows": 800, "p20_s": 1.0, "p80_s": 3.0, "wall_s": 2.0, "rtf": 0.2}
    row |= {"median_s": 2.0, "others": 0.0, "method": "speechbrain", "target": 3.0}
    found = {"device": "d", "sizes": {"steps": 100}, "peers": {}}
    table = decoding.markdown(found | {"rows": [row | {"ratio": 2.9}, row | {"ratio": 3.1}]})
    assert [line.split(" | ")[-2] for line in table.splitlines()[-2:]] == ["3 missed", "3"]


def test_pipeline(tmp_path):
    pipeline.main(["--device", "cpu", "--smallest", "--threads", "1", "--output", str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    found = json.loads((folder / "pipeline.json").read_text())
    (row,) = found["rows"]
    assert row["search"] == "beam 8, ctc 0.3"
    assert row["rtf"] == pytest.approx(row["seconds"] / row["audio_s"])
    assert 0 < row["listener_share"] < 1 and 0 <= row["wer"] < 20
    assert " /" not in found["command"]  # no path of this machine
    assert "| beam 8, ctc 0.3 | 8 | 1 | bfloat16 |" in (folder / "pipeline.md").read_text()


def test_greedy(tmp_path):
    found, table = run(greedy, tmp_path)
    check_rows([{"threads": 1, **row} for row in found["rows"]])
    assert [(r["kind"], r["method"]) for r in found["rows"]] == [
        (kind, method) for kind in greedy.BOTH for method in ("eager", "cpp")
    ]
    assert table.count("| eager |") == 2


@pytest.mark.parametrize("kind", greedy.BOTH)
def test_greedy_writes_what_it_should(kind):
    """Always as many characters, never a blank or an end."""
    given = greedy.inputs_of(greedy.SMALLEST[0], kind, torch.device("cpu"))
    ids = greedy.step_by_step(reference.decode_step, given)
    assert ids.shape == (2, 3) and ids.min() > greedy.END


def test_sequence(tmp_path):
    found, table = run(sequence, tmp_path)
    check_rows([{"threads": 1, **row} for row in found["rows"]])
    assert [(r["kind"], r["method"]) for r in found["rows"]] == [
        (kind, method) for kind in sequence.BOTH for method in ("eager", "threephase")
    ]
    assert table.count("| eager |") == 2


@pytest.mark.parametrize("kind", sequence.BOTH)
def test_every_step_is_called_alike(kind):
    """Or something would be compiled twice; and no step has a slice of the queries to add up."""
    inputs = sequence.inputs_of(sequence.SMALLEST[0], kind, torch.device("cpu"))
    for x in sequence.leaves(inputs):
        x.requires_grad_()
    seen = []

    def attend(query, memory, score, previous):
        seen.append((query.grad_fn.name(), query.stride(), previous.is_contiguous()))
        return reference.attend(query, memory, score, previous)

    sequence.by_autograd(attend, *inputs)
    assert len(seen) == 2 and len(set(seen)) == 1
    assert seen[0][2]
    first = inputs[0].unbind(1)[0]
    assert first.grad_fn.name() == "UnbindBackward0"


@pytest.mark.parametrize("kind", sequence.BOTH)
def test_sequences_are_compared_by_the_same_gradients(kind):
    case = sequence.SMALLEST[0]._replace(dtype=torch.float64)
    inputs = sequence.inputs_of(case, kind, torch.device("cpu"))
    for x in sequence.leaves(inputs):
        x.requires_grad_()
    right = sequence.by_autograd(reference.attend, *inputs)
    found = sequence.in_three_phases(backends.BACKENDS["threephase"].ops(), *inputs)
    for one, other in zip(found, right, strict=True):
        torch.testing.assert_close(one, other)


def test_listener(tmp_path):
    listener.main(["--device", "cpu", "--smallest", "--output", str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    found = json.loads((folder / "listener.json").read_text())
    rows = {row["method"]: row for row in found["rows"]}
    assert list(rows) == list(listener.WAYS)
    assert rows.pop("streams")["skipped"] == "RuntimeError: it needs a GPU"
    for name, row in rows.items():
        # Packing, compiling and reversing hear the same.
        assert row["differs"] < 1e-5, name
        assert row["real_time"] == pytest.approx(row["audio_s"] / row["median_us"] * 1e6)
    table = (folder / "listener.md").read_text()
    assert "times real time" in table and "x now" in table


def test_training(tmp_path):
    settings = ["listener.width=8", "listener.layers=2", "attention.width=8", "speller.width=8"]
    settings += ["data.batch_utterances=2", "attention.taps=3"]
    training.main(
        [
            *("--device", "cpu", "--rounds", "1", "--batches", "2"),
            *("--backends", "reference,none,speechbrain", "--output", str(tmp_path), *settings),
        ]
    )
    (folder,) = tmp_path.iterdir()
    found = json.loads((folder / "training.json").read_text())
    assert {"device", "date", "command", "torch", "python"} <= found.keys()
    assert " /" not in found["command"]  # no path of this machine
    row, failed, peer = found["rows"]
    assert peer["backend"] == "speechbrain"
    assert (
        set(peer["phases"]) == set(row["phases"])
        if "phases" in peer
        else "speechbrain" in peer["skipped"]
    )
    assert set(row["phases"]) == set(training.PHASES) and min(row["phases"].values()) > 0
    assert row["seconds"] == pytest.approx(sum(row["phases"].values()))
    # Two lengths of the distribution, in batches of two.
    assert row["audio_s"] == pytest.approx(2 * (11.34 + 15.17), abs=0.01)
    assert row["real_time"] == pytest.approx(row["audio_s"] / row["seconds"])
    assert "the backends are" in failed["skipped"]
    table = (folder / "training.md").read_text()
    assert "| reference |" in table and "| none | not measured:" in table
    shares = [int(cell.strip(" %")) for cell in table.split("| reference |")[1].split("|")[2:8]]
    assert sum(shares) == pytest.approx(100, abs=3)


def test_training_on_a_cpu(tmp_path):
    training.main(["--device", "cpu", "--smallest", "--rounds", "1", "--output", str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    found = json.loads((folder / "training-cpu.json").read_text())
    rows = found["rows"]
    assert len(rows) == 2 * 2 + 1
    for row in rows:
        assert row["processor"] == found["device"]
        if "skipped" in row:  # torch's LSTM in bfloat16 on some processors
            assert (row["layers"], row["precision"]) == ("torch", "bfloat16")
            continue
        assert set(row["phases"]) == set(training.PHASES) and min(row["phases"].values()) > 0
        assert row["cpu_s"] == pytest.approx(sum(row["phases"].values()))
        assert row["audio_s"] == pytest.approx(row["processes"] * 2 * 0.6)
    table = (folder / "training-cpu.md").read_text()
    assert "| bundled | 2 x 0.6 | ours | float32 | 2 |" in table


def test_without_time_every_shape_is_named(tmp_path):
    found, table = run(attention, tmp_path, "--seconds", "-1")
    assert [row["skipped"] for row in found["rows"]] == ["no time left"] * 3
    assert "location: no time left" in table


def test_a_killed_run_keeps_its_rows(tmp_path, monkeypatch):
    def kill(*_):
        raise KeyboardInterrupt

    calls = iter([timing.time_on_cpu, kill])
    monkeypatch.setattr(timing, "time_on_cpu", lambda *a: next(calls)(*a))
    arguments = [*SMALLEST, "--methods", "eager", "--output", str(tmp_path)]
    with pytest.raises(KeyboardInterrupt):
        attention.main(arguments)
    (folder,) = tmp_path.iterdir()
    assert [path.name for path in folder.iterdir()] == ["attention.jsonl"]
    attention.main(["--render", "--device", "cpu", "--output", str(tmp_path)])
    rows = json.loads((folder / "attention.json").read_text())["rows"]
    assert [(row["method"], row["pass"]) for row in rows] == [("eager", "forward")]
    with pytest.raises(SystemExit, match=r"attention\.jsonl"):
        attention.main(["--render", "--device", "cpu", "--output", str(tmp_path)])


@pytest.mark.parametrize("benchmark", [attention, decoder, greedy, sequence])
def test_a_run_is_continued(benchmark, tmp_path, monkeypatch):
    given = ["--kinds", "additive", "--cases", benchmark.SMALLEST[0].name]
    before, _ = run(benchmark, tmp_path, *given, "--methods", "eager")
    assert {row["method"] for row in before["rows"]} == {"eager"}
    timed: list[str] = []
    clock = timing.time_on_cpu

    def told(calls, repeats):
        timed.extend(calls)
        return clock(calls, repeats)

    monkeypatch.setattr(timing, "time_on_cpu", told)
    found, _ = run(benchmark, tmp_path, *given, "--keep")
    assert "eager" not in timed
    assert found["rows"][: len(before["rows"])] == before["rows"]
    assert found["command"].startswith(before["command"] + "; ")
    run(benchmark, tmp_path, *given, "--keep", "--methods", "eager")
    assert "eager" not in timed


def test_what_was_skipped_is_tried_again(tmp_path):
    record = common.Record("x", tmp_path, {"command": "first"})
    rows = [{"case": "a", "method": name} for name in ("eager", "triton", "cuda")]
    record.add({**rows[0], "median_us": 1.0})
    record.add({**rows[1], "skipped": "RuntimeError: no"})
    with record.path.open("a") as file:
        file.write('{"case": "a", "method": "cu')  # a kill
    record = common.Record("x", tmp_path, {"command": "second"}, keep=True)
    assert [record.has(row) for row in rows] == [True, False, False]
    header, kept = common.read("x", tmp_path)
    assert header == {"command": "first; second"}
    assert kept == [{**rows[0], "median_us": 1.0}]


def test_what_there_is_not_is_named(tmp_path):
    with pytest.raises(SystemExit, match="no case 'B9'; there are: B2 T9 A8 D12"):
        attention.main([*SMALLEST, "--cases", "B9", "--output", str(tmp_path)])
    assert common.in_order(("a", "b", "c"), ("c", "x", "a")) == ["c", "a"]


def test_float32_is_not_rounded():
    flags = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [each.allow_tf32 for each in flags]
    try:
        for each in flags:
            each.allow_tf32 = True
        common.exact_float32()
        assert not any(each.allow_tf32 for each in flags)
    finally:
        for each, value in zip(flags, before, strict=True):
            each.allow_tf32 = value


@pytest.mark.parametrize("benchmark", [attention, decoder])
def test_the_code_for_gpus(benchmark, tmp_path, monkeypatch):
    """All but the clock and the memory counter, on a CPU."""
    taken = timing.Timing(2.0, 1.0, 3.0, 5)

    def clock(call, copies, graphed):
        for i in range(copies):
            call(i)
        return taken

    monkeypatch.setattr(timing, "time_on_gpu", clock)
    monkeypatch.setattr(timing, "copies_beyond_cache", lambda size: 3)
    monkeypatch.setattr(timing, "peak_bytes", lambda call: 1_500_000)
    given = ["--device", "cuda", "--methods", "eager,eager graphed,sdpa graphed,cuda"]
    monkeypatch.setattr(common, "device_name", lambda device: "NVIDIA H100 80GB HBM3")
    chosen = common.options(benchmark.NAME, [*given, "--output", str(tmp_path)], common.SELECTS)
    assert chosen.folder.name == "nvidia-h100-80gb-hbm3"
    record = common.Record(benchmark.NAME, chosen.folder, {"device": "a GPU"})
    measure = attention.run_on_gpu if benchmark is attention else decoder.measure
    for case in benchmark.SMALLEST:
        for kind in ("location", "dot"):
            measure(case, kind, record, chosen, 1e9, torch.device("cpu"))
    common.render(benchmark.NAME, chosen.folder)
    rows = json.loads((chosen.folder / f"{benchmark.NAME}.json").read_text())["rows"]
    measured = [row for row in rows if "skipped" not in row]
    assert {"eager", "eager graphed"} <= {row["method"] for row in measured}
    for row in measured:
        assert row["fraction"] == pytest.approx(row["bound_us"] / 2)
        assert row["peak_bytes"] == 1_500_000
    assert {row["method"] for row in rows if "skipped" in row} <= {"cuda"}
    table = (chosen.folder / f"{benchmark.NAME}.md").read_text()
    assert "x eager graphed" in table
    assert "| 1.5 |" in table


def test_ratios_and_percentiles():
    took = timing.summary([0.004, 0.001, 0.002, 0.003, 0.005], calls=10)
    assert took == timing.Timing(300.0, pytest.approx(180.0), pytest.approx(420.0), 5)
    base = {"case": "a", "pass": "forward", "p20_us": 1.0, "p80_us": 1.0}
    rows = [{**base, "method": "eager", "median_us": 12.0}]
    rows += [{**base, "method": "fast", "median_us": 3.0}]
    rows += [{**base, "pass": "both", "method": "fast", "median_us": 1.0}]
    lines = common.markdown("x", {"device": "d"}, rows).splitlines()
    assert lines[-3].endswith("| eager | 12.0 | 1.0 - 1.0 | 1.00 |")
    assert lines[-2].endswith("| fast | 3.0 | 1.0 - 1.0 | 4.00 |")
    assert lines[-1].endswith("| fast | 1.0 | 1.0 - 1.0 |  |")


def test_the_quietest_attempt_counts(monkeypatch):
    busy = iter([0.5, 0.05, 0.3, 0.0, 0.05])  # waits, is disturbed, then is left alone
    monkeypatch.setattr(timing, "others", lambda: next(busy))
    count = []
    found, others = timing.time_when_quiet({"a": count.append}, repeats=3)
    assert others == 0.05
    assert len(count) == 2 * (3 + 2)
    assert found["a"].repeats == 3
    busy = iter([0.9, 0.4])
    assert timing.time_when_quiet({"a": count.append}, repeats=3, patience=0.0)[1] == 0.9


def test_librispeech_lengths():
    lengths = shapes.librispeech(32)
    assert lengths == tuple(sorted(lengths, reverse=True))
    seconds = torch.tensor(lengths) / shapes.FRAMES_PER_SECOND
    assert 12 < seconds.mean() < 13.5  # 5.31 hours of 1519 utterances are 12.6 s each
    assert seconds.min() > 1.8
    assert seconds.max() < 17.5
    case = attention.GPU_CASES[0]
    _, memory, *_ = shapes.random_inputs(case._replace(A=2, D=2), "dot", torch.device("cpu"))
    assert memory.lengths.sum() == case.frames < case.B * case.T


def test_bytes_of_the_bound():
    case = shapes.Case("", 32, 200, 512, 1024)
    memory = 2 * 32 * 200 * (512 + 1024)  # 19.7 MB
    assert memory < attention.bytes_bound(case, "additive", "forward") < 1.01 * memory
    assert 3 * memory < attention.bytes_bound(case, "location", "both") < 3.05 * memory
    one = decoder.bytes_bound(case, "forward")
    weights = 2 * (4 * 1024 * 2048 + 512 * 1024)
    assert memory + weights < one < 1.05 * (memory + weights)
    assert decoder.bytes_bound(case._replace(U=7), "forward") == 7 * one
