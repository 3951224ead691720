"""Features against librosa, and that neither padding nor the batch moves a frame."""

import librosa
import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from las.config import FrontendConfig, SpecAugmentConfig
from las.model.features import Frontend, normalise, specaugment

PLAIN = FrontendConfig(specaugment=None)


@pytest.fixture(scope="module")
def frontend():
    return Frontend(PLAIN).eval()


def speech_like(samples: int) -> np.ndarray:
    """A gliding harmonic tone in noise: loud and quiet bands, as in speech."""
    rng = np.random.default_rng(samples)
    time = np.arange(samples) / 16000
    phase = 2 * np.pi * (120 * time + 30 * time**2)
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    return (0.1 * tone + 0.003 * rng.standard_normal(samples)).astype(np.float32)


def librosa_log_mel(waveform: np.ndarray) -> np.ndarray:
    """[T, 80] in float64 from librosa alone."""
    energies = librosa.feature.melspectrogram(
        y=waveform.astype(np.float64),
        sr=16000,
        n_fft=512,
        win_length=400,
        hop_length=160,
        n_mels=80,
        htk=True,
        norm=None,
        pad_mode="constant",
    )
    return np.log(np.maximum(energies, 1e-6)).T


# --- against librosa ------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:n_fft=512 is too large")
@pytest.mark.parametrize("samples", [1, 159, 160, 400, 1601, 16000, 50003])
def test_agrees_with_librosa(frontend, samples):
    # The logarithm is what the model sees. Where a bin of the spectrum lies at the foot of a
    # filter, its weight in single precision is off by more than 1e-4 of itself: in a few bands
    # of a few frames, and by nothing against the loudest band.
    waveform = speech_like(samples)
    expected = librosa_log_mel(waveform)
    batch = torch.from_numpy(waveform)[None]
    energies = np.maximum(frontend.mel(batch)[0].T.double().numpy(), 1e-6)
    assert energies.shape == expected.shape
    error = np.abs(np.log(energies) - expected)
    assert np.quantile(error, 0.998) <= 1e-4
    assert error.max() <= 5e-4
    loudest = np.exp(expected.max(1, keepdims=True))
    assert (np.abs(energies - np.exp(expected)) / loudest).max() <= 1e-5

    features, frames = frontend(batch, torch.tensor([samples]))
    assert frames.tolist() == [len(expected)]
    deviation = np.maximum(expected.std(0), 0.1)
    scaled = (expected - expected.mean(0)) / deviation
    np.testing.assert_allclose(features[0].numpy(), scaled, rtol=0, atol=5e-4)


def test_every_filter_has_a_bin(frontend):
    assert (frontend.mel.mel_scale.fb.sum(0) > 0).all()


def test_nothing_goes_into_a_checkpoint(frontend):
    assert frontend.state_dict() == {}


# --- batches --------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 6000), min_size=1, max_size=4), st.integers(0, 2000))
@settings(max_examples=40)
def test_padding_moves_no_valid_frame(frontend, noise, lengths, extra):
    waveforms, samples = noise(lengths, extra)
    features, frames = frontend(waveforms, samples)
    assert torch.equal(frames, frontend.frames(samples))
    for row, length in enumerate(lengths):
        alone, _ = frontend(waveforms[row : row + 1, :length], samples[row : row + 1])
        valid = int(frames[row])
        assert alone.shape[1] == valid
        assert (features[row, :valid] - alone[0]).abs().max() <= 1e-5
        assert (features[row, valid:] == 0).all()


@pytest.mark.parametrize("level", [1e-5, 1e-4, 1e-3])
def test_padding_moves_no_frame_of_near_silence(frontend, noise, level):
    # Logarithms near the floor are large and alike: where rounding of their mean shows most.
    lengths = [70000, 30000, 12345]
    waveforms, samples = noise(lengths, 50000)
    waveforms *= level
    waveforms[:, 9000:20000] = 0
    features, frames = frontend(waveforms, samples)
    for row, length in enumerate(lengths):
        alone, _ = frontend(waveforms[row : row + 1, :length], samples[row : row + 1])
        assert (features[row, : frames[row]] - alone[0]).abs().max() <= 1e-5


def test_statistics_of_valid_frames(frontend, noise):
    waveforms, samples = noise([16000, 8000, 3000])
    features, frames = frontend(waveforms, samples)
    for row, valid in zip(features.double(), frames.tolist(), strict=True):
        assert row[:valid].mean(0).abs().max() < 1e-5
        assert (row[:valid].var(0, correction=0) - 1).abs().max() < 1e-4


def test_normalise_by_hand():
    features = torch.tensor([[[1.0], [3.0], [99.0]], [[5.0], [6.0], [10.0]]])
    result = normalise(features, torch.tensor([2, 3]))
    expected = torch.tensor([[[-1.0], [1.0], [0.0]], [[-2.0], [-1.0], [3.0]]])
    expected[1] /= (14 / 3) ** 0.5
    torch.testing.assert_close(result, expected)


def test_normalise_ignores_what_lies_on_padding():
    features = torch.randn(1, 6, 3)
    dirty = features.clone()
    dirty[:, 4:] = float("nan")
    lengths = torch.tensor([4])
    torch.testing.assert_close(normalise(dirty, lengths), normalise(features, lengths))


@pytest.mark.parametrize("samples", [1, 100, 159])
def test_a_clip_of_one_frame_is_finite(frontend, noise, samples):
    features, frames = frontend(*noise([samples]))
    assert frames.tolist() == [1]
    assert (features == 0).all()  # one frame is its own mean


def test_silence_is_finite(frontend):
    features, _ = frontend(torch.zeros(1, 4000), torch.tensor([4000]))
    assert features.abs().max() < 1e-6


# --- SpecAugment ----------------------------------------------------------------------------

MASKS = SpecAugmentConfig(
    frequency_masks=1, frequency_width=5, time_masks=1, time_width=12, time_share=0.5
)


def holes(mask: torch.Tensor) -> list[int]:
    """Widths of the runs of True."""
    text = "".join("x" if m else " " for m in mask.tolist())
    return [len(run) for run in text.split()]


@given(
    st.integers(0, 10**6),
    st.lists(st.integers(1, 40), min_size=1, max_size=3),
    st.integers(0, 8),
)
def test_masks_stay_in_valid_frames_and_width(seed, lengths, extra):
    torch.manual_seed(seed)
    features = torch.ones(len(lengths), max(lengths) + extra, 20)
    masked = specaugment(features, torch.tensor(lengths), MASKS)
    assert masked.shape == features.shape
    assert set(masked.unique().tolist()) <= {0.0, 1.0}
    for row, length in zip(masked, lengths, strict=True):
        assert (row[length:] == 1).all()
        in_time = holes((row[:length] == 0).all(1))
        in_frequency = holes((row[:length] == 0).all(0))
        assert len(in_time) <= 1
        assert sum(in_time) <= min(12, 0.5 * length)
        assert len(in_frequency) <= 1
        assert sum(in_frequency) <= 5


@given(
    st.integers(0, 10**6),
    st.lists(st.integers(10, 300), min_size=1, max_size=5),
    st.builds(
        SpecAugmentConfig,
        frequency_masks=st.integers(0, 3),
        frequency_width=st.integers(1, 20),
        time_masks=st.integers(0, 3),
        time_width=st.integers(1, 100),
        time_share=st.floats(0.1, 0.99),
    ),
)
def test_masks_are_those_of_torchaudio_one_after_another(seed, lengths, config):
    features = torch.ones(len(lengths), max(lengths), 20)
    torch.manual_seed(seed)
    expected = features.clone()
    mask = torchaudio.functional.mask_along_axis
    for row, length in zip(expected, lengths, strict=True):
        valid = row[None, :length]  # [1, T, F]
        for _ in range(config.frequency_masks):
            valid = mask(valid, config.frequency_width, 0.0, axis=2)
        for _ in range(config.time_masks):
            valid = mask(valid, config.time_width, 0.0, axis=1, p=config.time_share)
        row[:length] = valid[0]
    torch.manual_seed(seed)
    assert torch.equal(specaugment(features, torch.tensor(lengths), config), expected)


def test_masks_are_drawn_and_count_is_honoured():
    config = SpecAugmentConfig(frequency_masks=3, frequency_width=4, time_masks=0)
    features = torch.ones(1, 50, 200)
    most = 0
    for seed in range(30):
        torch.manual_seed(seed)
        bands = holes((specaugment(features, torch.tensor([50]), config)[0] == 0).all(0))
        assert len(bands) <= 3
        most = max(most, len(bands))
    assert most == 3


def test_each_utterance_has_its_own_masks():
    masked = specaugment(torch.ones(4, 50, 40), torch.full((4,), 50), SpecAugmentConfig())
    assert len({row.numpy().tobytes() for row in masked}) == 4


def test_seeded_in_training_and_off_otherwise(noise):
    frontend = Frontend(FrontendConfig())
    waveforms, samples = noise([16000, 9000])

    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return frontend(waveforms, samples)[0]

    frontend.eval()
    plain = run(1)
    assert torch.equal(plain, Frontend(PLAIN).train()(waveforms, samples)[0])
    assert torch.equal(plain, run(2))
    frontend.train()
    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    changed = run(1) != plain
    assert changed.any()
    assert (run(1)[changed] == 0).all()
