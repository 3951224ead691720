"""Simulated rooms: an echo that follows the direct sound, as loud as before."""

import numpy as np
import pytest

from las.data.rooms import ROOMS, add_room, impulse_response

RATE = 16000


@pytest.mark.parametrize("room", [0, ROOMS // 2, ROOMS - 1])
def test_the_direct_sound_comes_first_and_is_loudest(room):
    response = impulse_response(room, RATE)
    assert response.dtype == np.float32 and response[0] == 1.0
    assert np.abs(response[1:]).max() <= 1.0
    assert len(response) < 2 * RATE


def test_rooms_differ_and_each_is_the_same_again():
    first, second = impulse_response(0, RATE), impulse_response(1, RATE)
    assert len(first) != len(second) or not np.array_equal(first, second)
    impulse_response.cache_clear()
    assert np.array_equal(first, impulse_response(0, RATE))


def test_a_click_gets_a_tail_and_keeps_its_place_and_power():
    click = np.zeros(RATE, np.float32)
    click[1000] = 0.5
    heard = add_room(click, RATE, 3)
    assert heard.dtype == np.float32 and heard.shape == click.shape
    assert not heard[:999].any() or np.abs(heard[:999]).max() < 1e-6
    assert np.abs(heard).argmax() == 1000
    assert np.abs(heard[1001:]).max() > 1e-3
    assert np.square(heard).mean() == pytest.approx(np.square(click).mean(), rel=1e-3)


def test_silence_stays_silent():
    assert not add_room(np.zeros(100, np.float32), RATE, 0).any()
