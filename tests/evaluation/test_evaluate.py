"""A model on a manifest: hypotheses that no batch changes, and the proof of it."""

import pytest
import soundfile
import torch
from speech import RATE, sentences, small_model, whistle, write_manifest

from las.audio.reader import load
from las.errors import LASError
from las.evaluation.evaluate import check_batching, provenance, transcribe_manifest
from las.transcription.transcriber import Transcriber

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("evaluation"), sentences(9))


def test_every_utterance_once_in_the_order_of_ids(manifest):
    calls = []
    found = transcribe_manifest(
        small_model(), manifest, CPU, batch_utterances=4, progress=calls.append
    )
    assert [u.id for u in found] == sorted(u.id for u in found)
    assert sorted(u.reference for u in found) == sorted(sentences(9))
    assert calls == [4, 8, 9]


def test_batches_change_no_text_and_equal_the_transcriber(manifest):
    model = small_model()
    whole = transcribe_manifest(model, manifest, CPU)
    for limits in ({"batch_utterances": 1}, {"batch_seconds": 3.0}, {"batch_utterances": 2}):
        assert transcribe_manifest(model, manifest, CPU, **limits) == whole
    transcriber = Transcriber(model, CPU)
    for utterance in whole:
        speaker, name = utterance.id.split("-")
        waveform = load(manifest.parent / "audio" / speaker / f"{name}.wav", RATE)
        assert transcriber.waveforms([waveform])[0].text == utterance.hypothesis
    assert len({u.hypothesis for u in whole}) > 1


def test_check_batching_finds_nothing(manifest):
    count, differ, largest = check_batching(small_model(), manifest, CPU)
    assert (count, differ) == (9, [])
    assert 0 <= largest < 1e-4


def test_check_batching_finds_a_model_that_looks_at_padding(manifest, monkeypatch):
    model = small_model()
    encode = model.encode

    def leaking(waveforms, samples):
        # Everything a batch holds counts as speech.
        return encode(waveforms, torch.full_like(samples, waveforms.shape[1]))

    monkeypatch.setattr(model, "encode", leaking)
    count, differ, largest = check_batching(model, manifest, CPU)
    assert count == 9 and differ and largest > 0.01


def test_files_and_characters_that_are_not_right(tmp_path):
    manifest = write_manifest(tmp_path, ["FADE CAB", "ABE"])
    model = small_model()
    model.text = type(model.text)(" ABC")
    with pytest.raises(LASError, match="outside the alphabet"):
        transcribe_manifest(model, manifest, CPU)
    gone = tmp_path / "audio" / "s0" / "u000.wav"
    gone.unlink()
    for check in (transcribe_manifest, check_batching):
        with pytest.raises(LASError, match=str(gone)):
            check(small_model(), manifest, CPU)
    soundfile.write(gone, whistle("FADE CAB"), RATE)
    assert len(transcribe_manifest(small_model(), manifest, CPU)) == 2


def test_provenance_says_what_ran_on_what(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/las", "evaluate", "a b"])
    found = provenance(CPU)
    assert found["command"] == "las evaluate 'a b'"
    assert torch.__version__ in found["versions"]
    assert "threads" in found["device"] and len(found["date"]) == 10
