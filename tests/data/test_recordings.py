"""What `las prepare` accepts, batches of every command read, by the same reader and messages."""

import struct

import numpy as np
import pytest
import soundfile
from lhotse import CutSet
from speech import whistle

from las.audio import reader
from las.data import corpora, recordings
from las.data.dataset import evaluation_batches
from las.data.manifests import read_manifest
from las.errors import LASError
from las.text.characters import Characters
from tests.audio.test_reader import run_ffmpeg

SAMPLES = whistle("FADE CAB", rate=16000)
LIBSNDFILE = {
    "gsm.wav": {"subtype": "GSM610"},
    "ima.wav": {"subtype": "IMA_ADPCM"},
    "ms.wav": {"subtype": "MS_ADPCM"},
    "g721.wav": {"subtype": "G721_32"},
    "nms.wav": {"subtype": "NMS_ADPCM_32"},
    "ulaw.wav": {"subtype": "ULAW"},
    "g723.au": {"subtype": "G723_24"},
    "alac.caf": {"subtype": "ALAC_16"},
    "dwvw.aiff": {"subtype": "DWVW_16"},
    "vox.wav": {"format": "VOC"},
}
FFMPEG = {
    "g726.wav": ("-ar", "8000", "-c:a", "g726", "-b:a", "32k"),
    "a.m4a": (),
    "xingless.mp3": ("-write_xing", "0"),
    "flac.ogg": ("-c:a", "flac"),
}


def prepared(path):
    items = [corpora.Item("a", path, "FADE CAB", "s")]
    return corpora.prepare("p", items, path.parent).manifest


def batch(manifest, workers=0):
    (found,) = evaluation_batches(
        read_manifest(manifest), Characters(), sample_rate=16000, workers=workers
    )
    return found


@pytest.mark.parametrize("name", [*LIBSNDFILE, *FFMPEG, "zero.wav", "twice.wav", "inverted.wav"])
def test_what_is_prepared_is_read(tmp_path, name):
    path = tmp_path / name
    if name in FFMPEG:
        soundfile.write(tmp_path / "in.wav", SAMPLES, 16000)
        run_ffmpeg("-i", tmp_path / "in.wav", *FFMPEG[name], path)
    elif name == "inverted.wav":
        soundfile.write(path, np.stack([SAMPLES, -SAMPLES], 1), 16000)
    else:
        soundfile.write(path, SAMPLES, 16000, **LIBSNDFILE.get(name, {}))
    if name == "zero.wav":
        data = path.read_bytes()
        path.write_bytes(
            data.replace(b"data" + struct.pack("<I", 2 * len(SAMPLES)), b"data\0\0\0\0")
        )
    if name == "twice.wav":
        path.write_bytes(path.read_bytes() * 2)
    found = batch(prepared(path))
    waveform = reader.load(path)
    assert found.samples.tolist() == [pytest.approx(len(waveform), abs=2)]
    assert abs(len(waveform) - len(SAMPLES) * (1 + (name == "twice.wav"))) < 3000
    assert np.std(waveform) > 0.5 * np.std(SAMPLES)
    n = min(len(waveform), int(found.samples))
    heard = found.waveforms[0].numpy()
    if reader.info(path).sample_rate == 16000:
        np.testing.assert_array_equal(heard[:n], waveform[:n])
    else:  # lhotse's resampler is torchaudio's
        assert np.corrcoef(heard[:n], waveform[:n])[0, 1] > 0.99


def test_a_file_that_has_moved(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, SAMPLES, 16000)
    manifest = prepared(path)
    path.rename(tmp_path / "b.wav")
    for workers in (0, 1):
        found = batch(manifest, workers)
        assert isinstance(found, LASError)
        assert str(found) == f"{path}: no such file; prepare the data again"


def test_a_file_that_is_damaged_says_so_as_elsewhere(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, SAMPLES, 16000)
    manifest = prepared(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(reader.AudioError) as caught:
        reader.load(path)
    assert str(batch(manifest)) == f"{path}: {caught.value.what}; prepare the data again"


@pytest.mark.parametrize("change", ["longer", "shorter"])
@pytest.mark.parametrize("speed", [1.0, 0.9])
def test_a_file_that_is_another(tmp_path, change, speed):
    path = tmp_path / "a.wav"
    soundfile.write(path, SAMPLES, 16000)
    (cut,) = read_manifest(prepared(path))
    other = np.tile(SAMPLES, 2) if change == "longer" else SAMPLES[:9000]
    soundfile.write(path, other, 16000)
    if speed != 1.0:
        cut = cut.perturb_speed(speed)
    with pytest.raises(LASError) as caught:
        recordings.waveform(cut, 8000)
    assert str(caught.value).startswith(f"{path}: has changed: ")
    assert str(caught.value).endswith("; prepare the data again")


def test_the_file_that_is_to_blame_among_several(tmp_path):
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, SAMPLES, 16000)
    items = [corpora.Item(name, tmp_path / name, "FADE", "s") for name in ("a.wav", "b.wav")]
    first, second = read_manifest(corpora.prepare("p", items, tmp_path).manifest)
    (tmp_path / "b.wav").unlink()
    with pytest.raises(LASError, match=r"b\.wav: no such file; prepare"):
        recordings.waveform(first.append(second), 16000)


@pytest.mark.parametrize("name", ["a.flac", "a.mp3"])
def test_stretches_of_a_recording(tmp_path, name):
    path = tmp_path / name
    stereo = np.stack([SAMPLES, 0.5 * SAMPLES], 1)
    soundfile.write(path, np.tile(stereo, (3, 1)), 16000)
    (cut,) = read_manifest(prepared(path))
    whole = cut.load_audio()
    for start, length in ((0.0, 0.5), (0.25, 0.5), (1.0, None)):
        part = cut.truncate(offset=start, duration=length)
        at = int(start * 16000)
        np.testing.assert_array_equal(part.load_audio(), whole[:, at : at + part.num_samples])


def test_silence_with_a_text_is_listed(tmp_path):
    quiet = 2e-4 * np.random.default_rng(0).normal(size=16000)
    click = np.zeros(16000)
    click[800] = 0.008
    for name, samples in {
        "zeros.wav": np.zeros(16000),
        "quiet.wav": quiet,
        "click.wav": click,
        "inverted.wav": np.stack([SAMPLES, -SAMPLES], 1),
        "soft.wav": 3e-3 * SAMPLES,
    }.items():
        soundfile.write(tmp_path / name, samples, 16000, subtype="FLOAT")
        (tmp_path / name).with_suffix(".txt").write_text("ABE")
    (items,) = corpora.folder(tmp_path).values()
    done = corpora.prepare("p", items, tmp_path / "out")
    assert [s.id for s in done.skipped] == ["click", "quiet", "zeros"]
    assert done.counts() == {"silent audio": 3}
    assert [cut.id for cut in CutSet.from_jsonl(done.manifest)] == ["inverted", "soft"]
