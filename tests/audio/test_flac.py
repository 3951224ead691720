"""FLAC files that go on after what they announce are read to their end."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from las.audio import flac
from las.audio.reader import load
from tests.audio.test_reader import speech_like, write


def announcing(data, samples):
    packed = int.from_bytes(data[18:26], "big") >> 36 << 36 | samples
    return data[:18] + packed.to_bytes(8, "big") + data[26:]


@pytest.mark.parametrize("seconds", [0.3, 20.0])
@pytest.mark.parametrize("announced", [1, 2000, -1])
def test_flac_that_announces_less(tmp_path, seconds, announced):
    path = write(tmp_path / "a.flac", samples := speech_like(seconds))
    data = path.read_bytes()
    path.write_bytes(announcing(data, announced % len(samples)))
    np.testing.assert_allclose(load(path), samples, atol=2**-15)
    path.write_bytes(data + b"TAG" + bytes(125))
    np.testing.assert_allclose(load(path), samples, atol=2**-15)


@given(st.integers(1000, 60000), st.sampled_from([8000, 16000, 44100, 12345, 96000]))
@settings(max_examples=30)
def test_the_last_frame_of_a_flac_is_found(count, rate):
    stream = io.BytesIO()
    noise = np.random.default_rng(count).normal(scale=0.1, size=count)
    soundfile.write(stream, noise, rate, format="FLAC")
    data = stream.getvalue()
    assert flac.samples(stream, len(data), data[:42]) == count
    assert flac.parts(stream, len(data)) is None
