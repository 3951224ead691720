"""Batches: each utterance once an epoch, the same for the same seed, resumable at any of them."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speech import RATE, sentences, whistle, write_manifest

from las.config import DataConfig
from las.data import corpora
from las.data.augmentation import mp3_kilobits, perturb_speed
from las.data.codec import KILOBITS, through_mp3
from las.data.dataset import Batch, evaluation_batches, training_batches
from las.data.manifests import read_manifest
from las.errors import LASError
from las.text.characters import Characters

TEXT = Characters()
COUNT = 41


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("data"), sentences(COUNT))


def batches(manifest, epoch=0, seed=1, skip=0, rank=0, world=1, group=None, **changes):
    config = DataConfig(**({"batch_seconds": 8.0, "batch_utterances": 5, "workers": 0} | changes))
    found = list(
        training_batches(
            read_manifest(manifest),
            COUNT,
            TEXT,
            config,
            sample_rate=RATE,
            seed=seed,
            epoch=epoch,
            skip=skip,
            rank=rank,
            world=world,
            group=group,
        )
    )
    assert all(isinstance(batch, Batch) for batch in found)
    return found


def names(found):
    return [batch.ids for batch in found]


def same(a, b):
    """Whether two lists of batches are equal to the bit."""
    return len(a) == len(b) and all(
        x.ids == y.ids
        and x.texts == y.texts
        and torch.equal(x.waveforms, y.waveforms)
        and torch.equal(x.samples, y.samples)
        and torch.equal(x.tokens, y.tokens)
        and torch.equal(x.token_lengths, y.token_lengths)
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("epoch", [0, 1, 5])
@pytest.mark.parametrize(("seconds", "utterances"), [(8.0, 5), (3.0, 100), (1000.0, 7)])
def test_batches_obey_limits_and_hold_everything_once(manifest, epoch, seconds, utterances):
    found = batches(manifest, epoch, batch_seconds=seconds, batch_utterances=utterances)
    ids = sorted(chain.from_iterable(names(found)))
    assert ids == sorted(cut.id for cut in read_manifest(manifest)) and len(ids) == COUNT
    for batch in found:
        assert len(batch.ids) <= utterances
        # The last to come may be longer than the others; as long as they are, all would fit.
        samples = sorted(batch.samples.tolist())
        assert len(samples) == 1 or len(samples) * samples[-2] <= seconds * RATE
    assert max(len(batch.ids) for batch in found) > 1


def test_a_batch_is_what_the_files_hold(manifest):
    cuts = {cut.id: cut for cut in read_manifest(manifest)}
    for batch in batches(manifest, 1):
        assert batch.waveforms.dtype == torch.float32
        assert batch.waveforms.shape == (len(batch.ids), int(batch.samples.max()))
        for row, id in enumerate(batch.ids):
            samples, _ = soundfile.read(cuts[id].recording.sources[0].source, dtype="float32")
            length = int(batch.samples[row])
            assert torch.equal(batch.waveforms[row, :length], torch.from_numpy(samples))
            assert not batch.waveforms[row, length:].any()
            ids = batch.tokens[row, : int(batch.token_lengths[row])].tolist()
            assert TEXT.decode(ids) == batch.texts[row] == cuts[id].supervisions[0].text
            assert not batch.tokens[row, len(ids) :].any()


def test_same_seed_and_epoch_same_batches(manifest):
    for epoch in (0, 1):
        assert same(
            batches(manifest, epoch, speeds=[0.9, 1.0, 1.1]),
            batches(manifest, epoch, speeds=[0.9, 1.0, 1.1]),
        )


def test_another_epoch_or_seed_gives_another_order(manifest):
    orders = [str(names(batches(manifest, epoch, seed))) for epoch in (1, 2, 3) for seed in (1, 2)]
    assert len(set(orders)) == len(orders)


def test_short_utterances_come_first_as_long_as_asked(manifest):
    def durations(epoch, short_first):
        found = batches(manifest, epoch, short_first=short_first)
        return torch.cat([batch.samples for batch in found]).tolist()

    for epoch in (0, 1):
        assert durations(epoch, 2) == sorted(durations(epoch, 2))
    assert durations(2, 2) != sorted(durations(2, 2))
    assert durations(0, 0) != sorted(durations(0, 0))


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("workers", [0, 1])
def test_skipping_gives_exactly_the_tail(manifest, epoch, workers):
    whole = batches(manifest, epoch, speeds=[0.9, 1.0, 1.1])
    for skip in (1, len(whole) // 2, len(whole)):
        tail = batches(manifest, epoch, skip=skip, workers=workers, speeds=[0.9, 1.0, 1.1])
        assert same(tail, whole[skip:])


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize(("world", "group"), [(2, 2), (3, 3), (2, 4), (2, 3), (3, 2)])
def test_processes_share_the_batches_of_one(manifest, epoch, world, group):
    whole = names(batches(manifest, epoch))
    for skip in (0, group):
        shares = [
            names(batches(manifest, epoch, rank=rank, world=world, group=group, skip=skip))
            for rank in range(world)
        ]
        # A step takes the next of its batches from each process in turn.
        found = []
        for start in range(0, len(whole) - skip, group):
            turns = range(min(group, len(whole) - skip - start))
            found += [shares[turn % world].pop(0) for turn in turns]
        assert found == whole[skip:] and not any(shares)


# --- speed ----------------------------------------------------------------------------------


def test_speed_changes_the_length_by_the_factor(manifest):
    lengths = {cut.id: cut.num_samples for cut in read_manifest(manifest)}
    for speed in (0.9, 1.1, 2.0):
        for batch in batches(manifest, 1, speeds=[speed]):
            for id, samples in zip(batch.ids, batch.samples.tolist(), strict=True):
                original = lengths[id.removesuffix(f"_sp{speed}")]
                assert abs(samples - original / speed) <= 1


def test_speeds_are_drawn_by_utterance_and_epoch(manifest):
    def drawn(epoch, seed=1):
        found = batches(manifest, epoch, seed, speeds=[0.9, 1.0, 1.1])
        ids = chain.from_iterable(names(found))
        return {id.partition("_sp")[0]: id.partition("_sp")[2] for id in ids}

    first = drawn(0)
    assert set(first.values()) == {"", "0.9", "1.1"}
    assert first == drawn(0)
    assert first != drawn(1) and first != drawn(0, seed=2)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100), epoch=st.integers(0, 100))
def test_every_speed_is_as_likely(manifest, seed, epoch):
    cuts = list(read_manifest(manifest))
    speeds = [0.9, 1.0, 1.1]
    counts = Counter(
        perturb_speed(cut, speeds, seed, epoch).duration / cut.duration for cut in cuts
    )
    slow = sum(n for ratio, n in counts.items() if ratio > 1.05)
    fast = sum(n for ratio, n in counts.items() if ratio < 0.95)
    # Chances of a fair draw of 41 to fall outside are below 1 in 10,000 an example.
    assert 2 <= slow <= 28 and 2 <= fast <= 28


def waveforms(found):
    """Valid samples by utterance."""
    return {
        id: row[:length].numpy()
        for batch in found
        for id, row, length in zip(batch.ids, batch.waveforms, batch.samples, strict=True)
    }


@pytest.mark.parametrize("speeds", [[1.0], [0.9, 1.0, 1.1]])
def test_a_share_passes_through_mp3_and_the_rest_stays(manifest, speeds):
    plain = waveforms(batches(manifest, 3, speeds=speeds))
    found = waveforms(batches(manifest, 3, speeds=speeds, mp3=0.5))
    changed = 0
    for id, samples in found.items():
        possible = [through_mp3(plain[id], RATE, kilobits) for kilobits in KILOBITS]
        if np.array_equal(samples, plain[id]):
            continue
        assert any(np.array_equal(samples, other) for other in possible)
        changed += 1
    # Chances of a fair draw of 41 to fall outside are below 1 in 10,000.
    assert 8 <= changed <= 33
    assert set(found) == set(plain)


def test_all_or_nothing_passes_through_mp3(manifest):
    plain = waveforms(batches(manifest))
    assert all(
        not np.array_equal(w, plain[id]) for id, w in waveforms(batches(manifest, mp3=1.0)).items()
    )
    assert all(
        np.array_equal(w, plain[id]) for id, w in waveforms(batches(manifest, mp3=0.0)).items()
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_mp3_follows_from_seed_epoch_and_utterance(manifest, workers):
    whole = batches(manifest, 2, mp3=0.5)
    assert same(whole, batches(manifest, 2, mp3=0.5, workers=workers))
    assert same(whole[3:], batches(manifest, 2, mp3=0.5, workers=workers, skip=3))


def test_a_share_has_noise_and_the_rest_stays(manifest):
    plain = waveforms(batches(manifest, 3))
    noisy = waveforms(batches(manifest, 3, noise=0.5))
    changed = {id for id, samples in noisy.items() if not np.array_equal(samples, plain[id])}
    assert 8 <= len(changed) <= 33
    again = waveforms(batches(manifest, 4, noise=1.0))
    assert not any(np.array_equal(samples, plain[id]) for id, samples in again.items())
    for id in changed:
        difference = noisy[id] - plain[id]
        level = 10 * np.log10((plain[id] ** 2).mean() / (difference**2).mean())
        assert 9.8 <= level <= 50.2


def test_noise_goes_through_mp3_as_the_speech_does(manifest):
    noisy = waveforms(batches(manifest, 3, noise=1.0))
    for id, samples in waveforms(batches(manifest, 3, noise=1.0, mp3=1.0)).items():
        assert any(np.array_equal(samples, through_mp3(noisy[id], RATE, k)) for k in KILOBITS)


@pytest.mark.parametrize("workers", [0, 1])
def test_noise_follows_from_seed_epoch_and_utterance(manifest, workers):
    whole = batches(manifest, 2, noise=0.5)
    assert same(whole, batches(manifest, 2, noise=0.5, workers=workers))
    assert same(whole[3:], batches(manifest, 2, noise=0.5, workers=workers, skip=3))
    assert not same(whole, batches(manifest, 2, noise=0.5, seed=2, workers=workers))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100), epoch=st.integers(0, 100))
def test_every_bit_rate_is_as_likely(manifest, seed, epoch):
    (cut, *_) = read_manifest(manifest)
    cuts = [cut.with_id(f"{seed}-{i}") for i in range(1000)]
    drawn = Counter(mp3_kilobits(cut, 0.7, seed, epoch) for cut in cuts)
    assert set(drawn) == {0, *KILOBITS}
    # Over five standard deviations.
    assert abs(drawn[0] - 300) < 75 and all(abs(drawn[k] - 140) < 56 for k in KILOBITS)
    assert Counter(mp3_kilobits(cut, 0.0, seed, epoch) for cut in cuts) == {0: 1000}
    assert 0 not in Counter(mp3_kilobits(cut, 1.0, seed, epoch) for cut in cuts)


def test_mp3_at_a_sample_rate_it_does_not_have(manifest):
    config = DataConfig(mp3=0.1, workers=0)
    with pytest.raises(LASError, match=r"data\.mp3: not possible at 6000 Hz"):
        training_batches(
            read_manifest(manifest), COUNT, TEXT, config, sample_rate=6000, seed=1, epoch=0
        )


# --- formats, and files that change ---------------------------------------------------------


def prepared(folder, name, samples, rate, **settings):
    path = folder / name
    soundfile.write(path, samples, rate, **settings)
    items = [corpora.Item("a", path, "ABE", "s")]
    return corpora.prepare("p", items, folder).manifest


def only(manifest, **changes):
    arguments = {"sample_rate": 16000} | changes
    (batch,) = evaluation_batches(read_manifest(manifest), TEXT, **arguments)
    return batch


@pytest.mark.parametrize(("rate", "channels"), [(16000, 8), (44100, 1), (44100, 2), (96000, 8)])
def test_any_rate_and_channels_become_mono_at_the_rate_of_the_model(tmp_path, rate, channels):
    mono = whistle("FADE CAB", rate=rate)
    gains = np.linspace(0.2, 1.8, channels, dtype=np.float32)  # of mean 1
    samples = mono[:, None] * gains if channels > 1 else mono
    manifest = prepared(tmp_path, "a.wav", samples, rate, subtype="FLOAT")
    batch = only(manifest)
    expected = round(len(mono) * 16000 / rate)
    assert (
        batch.waveforms.shape == (1, int(batch.samples)) and abs(int(batch.samples) - expected) <= 1
    )
    found = batch.waveforms[0].numpy()
    time = np.arange(len(found)) / 16000
    reference = np.interp(time, np.arange(len(mono)) / rate, mono)
    assert np.corrcoef(found, reference)[0, 1] > 0.98
    assert np.std(found) == pytest.approx(np.std(mono), rel=0.05)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.flac", {}),
        ("a.sph", {"format": "NIST"}),
        ("a.ogg", {"format": "OGG", "subtype": "VORBIS"}),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
        ("a.mp3", {"format": "MP3"}),
        ("a.aiff", {}),
    ],
)
def test_formats(tmp_path, name, settings):
    samples = whistle("FADE CAB", rate=16000)
    batch = only(prepared(tmp_path, name, samples, 16000, **settings))
    found = batch.waveforms[0].numpy()
    assert len(found) == len(samples)
    assert np.corrcoef(found, samples)[0, 1] > 0.95


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["deleted", "text", "shorter"])
def test_a_file_that_changed_gives_an_error_that_names_it(tmp_path, workers, damage):
    manifest = prepared(tmp_path, "a.wav", whistle("FADE CAB"), RATE)
    path = tmp_path / "a.wav"
    if damage == "deleted":
        path.unlink()
    elif damage == "text":
        path.write_text("a text\n" * 1000)
    else:
        soundfile.write(path, whistle("A"), RATE)
    found = only(manifest, workers=workers)
    assert isinstance(found, LASError)
    assert str(path) in str(found) and len(str(found).splitlines()) == 1


def test_evaluation_takes_the_longest_first(manifest):
    found = list(
        evaluation_batches(read_manifest(manifest), TEXT, sample_rate=RATE, batch_utterances=4)
    )
    samples = torch.cat([batch.samples for batch in found]).tolist()
    assert samples == sorted(samples, reverse=True) and len(samples) == COUNT
