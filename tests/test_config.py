"""Settings and what follows from them."""

import pytest
from pydantic import ValidationError

from las.config import AttentionConfig, ListenerConfig, RunConfig


def test_settings_do_not_change():
    with pytest.raises(ValidationError):
        RunConfig().training.epochs = 3


@pytest.mark.parametrize(
    ("reduction", "stack", "pairings", "ctc_pairings", "ctc_layer"),
    [
        (1, 1, 0, 0, 3),
        (2, 1, 1, 1, 3),
        (4, 1, 2, 2, 3),
        (8, 1, 3, 2, 2),
        (2, 2, 0, 0, 3),
        (4, 2, 1, 1, 3),
        (8, 2, 2, 1, 1),
        (4, 4, 0, 0, 3),
        (8, 4, 1, 0, 0),
    ],
)
def test_pairings(reduction, stack, pairings, ctc_pairings, ctc_layer):
    listener = ListenerConfig(layers=4, reduction=reduction, stack=stack)
    assert listener.pairings == pairings
    assert listener.ctc_pairings == ctc_pairings
    assert listener.ctc_layer == ctc_layer


def test_heads_may_be_any_divisor():
    assert AttentionConfig(width=12, heads=3).heads == 3
