"""Files become texts; neither their order nor their neighbours nor bad files among them matter."""

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from speech import RATE, sentences, small_model, whistle, write_folder

from las.transcribe import Failure, Transcriber, Transcript

SECONDS = (0.1, 120.0)


@pytest.fixture(scope="module")
def transcriber():
    return Transcriber(small_model().train(), torch.device("cpu"))


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = write_folder(tmp_path_factory.mktemp("files"), sentences(8, seed=3))
    return sorted(folder.rglob("*.wav"))


@pytest.fixture(scope="module")
def single(transcriber, paths):
    """Each file alone."""
    found = {path: next(iter(transcriber.files([path]))) for path in paths}
    assert all(isinstance(result, Transcript) for result in found.values())
    assert len({result.text for result in found.values()}) > 1
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), seconds=st.floats(*SECONDS))
def test_neighbours_and_order_change_nothing(transcriber, paths, single, data, seconds):
    order = data.draw(st.lists(st.sampled_from(paths), min_size=1, max_size=10))
    found = list(transcriber.files(order, batch_seconds=seconds))
    assert [result.path for result in found] == order
    for result in found:
        alone = single[result.path]
        assert result.text == alone.text
        assert result.hypothesis.score == pytest.approx(alone.hypothesis.score, abs=1e-3)
        torch.testing.assert_close(
            result.hypothesis.alignment, alone.hypothesis.alignment, atol=1e-4, rtol=1e-3
        )


def test_batches_hold_no_more_than_asked(transcriber, paths, monkeypatch):
    sizes = []
    n_best = transcriber.n_best

    def noted(batch):
        sizes.append((len(batch), max(map(len, batch)) / RATE))
        return n_best(batch)

    monkeypatch.setattr(transcriber, "n_best", noted)
    list(transcriber.files(paths, batch_seconds=4.0))
    assert sum(count for count, _ in sizes) == len(paths)
    assert all(count == 1 or count * longest <= 4.0 for count, longest in sizes)
    assert max(count for count, _ in sizes) > 1


def test_bad_files_among_good_ones(transcriber, paths, single, tmp_path):
    text = tmp_path / "text.wav"
    text.write_text("a text\n" * 100)
    missing = tmp_path / "missing.wav"
    for seconds in SECONDS:
        order = [missing, paths[0], text, paths[1], tmp_path]
        found = list(transcriber.files(order, batch_seconds=seconds))
        assert [result.path for result in found] == order
        assert [type(result) for result in found] == [
            Failure,
            Transcript,
            Failure,
            Transcript,
            Failure,
        ]
        assert [found[1].text, found[3].text] == [single[paths[0]].text, single[paths[1]].text]
        for result in found[::2]:
            assert result.reason.startswith(str(result.path))
            assert len(result.reason.splitlines()) == 1


def test_nothing_and_nothing_but_failures(transcriber, tmp_path):
    assert list(transcriber.files([])) == []
    assert [type(r) for r in transcriber.files([tmp_path, tmp_path])] == [Failure, Failure]


def test_what_a_transcript_tells(transcriber, tmp_path):
    path = tmp_path / "a.wav"
    samples = whistle("ABE CAB", rate=16000)
    soundfile.write(path, np.stack([samples, samples], 1), 16000)
    (result,) = transcriber.files([path])
    assert result.seconds == pytest.approx(len(samples) / 16000, abs=1e-3)
    assert result.waveform.shape == (round(len(samples) / 2),)
    frames = transcriber.model.encode(
        torch.from_numpy(result.waveform)[None], torch.tensor([len(result.waveform)])
    ).memory.lengths
    assert result.hypothesis.alignment.shape[2] == int(frames)
