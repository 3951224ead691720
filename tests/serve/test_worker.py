"""Files that are decoded together become the texts that they become alone."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")

from las.serve.metrics import Metrics
from las.serve.worker import MOST_OPEN, Worker
from las.transcription.transcript import Failure

SECONDS = 60


def finished(worker, paths):
    """Submit files before the worker starts, so that they meet; then all results."""
    jobs = [worker.submit(path) for path in paths]
    worker.start()
    worker.stop()
    return [job.result.result(timeout=0) for job in jobs]


def told(transcript):
    """All that is said of a file, but for round-off."""
    chunks = [
        (c.start, c.end, c.hypotheses[0].ids.tolist(), [(w.word, round(w.end, 6)) for w in c.words])
        for c in transcript.chunks
    ]
    return transcript.text, transcript.seconds, chunks


@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@given(data=st.data(), seconds=st.sampled_from([0.5, 6.0, 60.0]))
def test_company_changes_nothing(transcriber, sounds, alone, data, seconds):
    paths = data.draw(st.lists(st.sampled_from(sounds), min_size=1, max_size=8))
    found = finished(Worker(transcriber, Metrics(), seconds), paths)
    assert list(map(told, found)) == [told(alone[path]) for path in paths]


def test_a_batch_holds_chunks_of_many_files_and_fits(transcriber, sounds, monkeypatch):
    batches = []
    metrics = Metrics()
    worker = Worker(transcriber, metrics, 8.0)
    decoded = worker._decoded

    def noted(chunks):
        batches.append([len(chunk.samples) for chunk in chunks])
        return decoded(chunks)

    monkeypatch.setattr(worker, "_decoded", noted)
    finished(worker, sounds * 2)
    assert max(map(len, batches)) > 2
    assert all(len(s) == 1 or transcriber.fits(s, None, 8.0) for s in batches)
    sampled = metrics.registry.get_sample_value
    assert sampled("las_batch_chunks_sum") == sum(map(len, batches))
    assert sampled("las_batch_files_sum") > sampled("las_batch_files_count")


def test_a_short_file_does_not_wait_for_a_long_one(transcriber, sounds, alone):
    long = max(sounds, key=lambda path: len(alone[path].chunks))
    short = min(sounds, key=lambda path: alone[path].seconds)
    worker, order = Worker(transcriber, Metrics(), 5.0), []
    jobs = {name: worker.submit(path) for name, path in (("long", long), ("short", short))}
    for name, job in jobs.items():
        job.result.add_done_callback(lambda _, name=name: order.append(name))
    worker.start()
    worker.stop()
    assert order == ["short", "long"]


def test_no_more_files_are_open_than_allowed(transcriber, sounds, alone, monkeypatch):
    worker, most = Worker(transcriber, Metrics()), 0
    decoded = worker._decode

    def noted():
        nonlocal most
        most = max(most, len(worker._open))
        decoded()

    monkeypatch.setattr(worker, "_decode", noted)
    found = finished(worker, [sounds[0]] * (MOST_OPEN + 3))
    assert most == MOST_OPEN and {told(f)[0] for f in found} == {alone[sounds[0]].text}


@pytest.mark.parametrize("part", ["decode", "add", "result"])
def test_a_failure_stays_with_its_file(transcriber, sounds, alone, monkeypatch, capsys, part):
    bad = sounds[1]
    length = next(c.end - c.start for c in alone[bad].chunks)
    method = getattr(transcriber, part)

    def fails(first, *rest):
        chunks = first if part == "decode" else rest[:1] if part == "add" else []
        path = None if part == "decode" else first.path
        if path == bad or any(len(chunk.samples) == length for chunk in chunks):
            raise RuntimeError("out of memory")
        return method(first, *rest)

    monkeypatch.setattr(transcriber, part, fails)
    worker = Worker(transcriber, Metrics())
    jobs = [worker.submit(path) for path in sounds]
    worker.start()
    worker.stop()
    for path, job in zip(sounds, jobs, strict=True):
        if path == bad:
            with pytest.raises(RuntimeError, match="out of memory"):
                job.result.result(timeout=0)
        else:
            assert told(job.result.result(timeout=0)) == told(alone[path])
    assert "error: RuntimeError: out of memory\n" in capsys.readouterr().err


def test_a_bad_file_is_a_failure_and_an_abandoned_one_is_left_out(
    transcriber, sounds, alone, tmp_path, monkeypatch
):
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    worker = Worker(transcriber, Metrics())
    jobs = [worker.submit(path) for path in (bad, sounds[1], sounds[2])]
    jobs[1].abandon()
    worker.start()
    worker.stop()
    failure = jobs[0].result.result(timeout=0)
    assert isinstance(failure, Failure) and failure.reason.startswith(f"{bad}: ")
    assert jobs[1].result.cancelled() and jobs[1].recording.samples == 0
    assert told(jobs[2].result.result(timeout=0)) == told(alone[sounds[2]])


def test_files_that_arrive_together_are_decoded_together(transcriber, sounds, alone):
    metrics = Metrics()
    worker = Worker(transcriber, metrics, wait=SECONDS)  # until there are enough
    worker.start()
    jobs = [worker.submit(path) for path in [sounds[0]] * MOST_OPEN]
    assert {job.result.result(SECONDS).text for job in jobs} == {alone[sounds[0]].text}
    worker.stop()
    assert metrics.registry.get_sample_value("las_batch_files_sum") == MOST_OPEN
    assert metrics.registry.get_sample_value("las_batch_files_count") == 1


def test_calls_are_made_between_batches(transcriber, sounds, alone, capsys):
    worker = Worker(transcriber, Metrics(), 4.0)
    decode, seen = worker._decoded, []
    worker._decoded = lambda chunks: seen.append("batch") or decode(chunks)
    job = worker.submit(sounds[2])
    calls = [worker.call(lambda: seen.append("call") or 5) for _ in range(2)]
    failing, gone = worker.call(lambda: 1 / 0), worker.call(lambda: seen.append("gone"))
    gone.abandon()
    worker.start()
    worker.stop()
    assert [call.result.result(timeout=0) for call in calls] == [5, 5]
    assert isinstance(failing.result.exception(timeout=0), ZeroDivisionError)
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert gone.result.cancelled() and "gone" not in seen
    assert job.result.result(timeout=0).text == alone[sounds[2]].text
    first, second = (index for index, what in enumerate(seen) if what == "call")
    assert "batch" in seen[first:second]  # a file does not wait for all calls
    worker = Worker(transcriber, Metrics())  # of which nothing is transcribed
    worker.start()
    assert worker.call(lambda: 6).result.result(timeout=SECONDS) == 6
    worker.stop()
