"""What stands beside an utterance in a batch of beam search changes nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from las.config import SearchConfig
from las.decoding.search import search
from tests.decoding.reference_search import (
    HistoryLM,
    encode,
)

EVERYTHING = SearchConfig(
    beam=4,
    n_best=3,
    ctc=0.3,
    lm_weight=0.4,
    length_power=0.6,
    length_bonus=0.2,
    coverage=0.1,
    end_threshold=1.5,
    max_back=1.5,
    max_ahead=4.0,
    no_repeat_ngram=4,
)


@pytest.mark.parametrize(
    "config", [SearchConfig(beam=3, n_best=2), EVERYTHING], ids=["plain", "all"]
)
@given(lengths=st.lists(st.integers(1, 9000), min_size=2, max_size=4), extra=st.integers(0, 3000))
@settings(max_examples=12)
@torch.inference_mode()
def test_a_batch_its_order_and_its_padding_change_nothing(tiny, noise, config, lengths, extra):
    model = tiny(" 'ABC", 3)
    lm = HistoryLM(len(model.text))
    waveforms, samples = noise(lengths, extra)
    batch = search(model, model.encode(waveforms, samples), config, lm)
    backwards = search(model, model.encode(waveforms.flip(0), samples.flip(0)), config, lm)[::-1]
    for row, length in enumerate(lengths):
        single = model.encode(waveforms[row : row + 1, :length], samples[row : row + 1])
        (alone,) = search(model, single, config, lm)
        for other in (batch[row], backwards[row]):
            assert [h.text for h in other] == [h.text for h in alone]
            assert [h.finished for h in other] == [h.finished for h in alone]
            for a, b in zip(other, alone, strict=True):
                assert a.score == pytest.approx(b.score, rel=1e-3, abs=1e-3)
                torch.testing.assert_close(a.alignment, b.alignment, rtol=0, atol=1e-3)


def test_the_batches_under_test_are_varied(tiny, noise):
    model = tiny(" 'ABC", 3)
    encoded = encode(model, noise, [9000, 500, 3000, 7000, 1])
    found = search(model, encoded, EVERYTHING, HistoryLM(len(model.text)))
    assert len({hypotheses[0].text for hypotheses in found}) >= 3
    assert all(len({h.text for h in hypotheses}) == len(hypotheses) for hypotheses in found)
