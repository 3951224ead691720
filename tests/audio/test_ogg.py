"""Ogg files of which pages are missing are refused."""

import pytest

from tests.audio.test_reader import refused, speech_like, write


def pages(data):
    starts = []
    place = 0
    while place < len(data):
        starts.append(place)
        count = data[place + 26]
        place += 27 + count + sum(data[place + 27 : place + 27 + count])
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_with_pages_that_are_missing(tmp_path, subtype):
    path = write(tmp_path / "a.ogg", speech_like(20.0), format="OGG", subtype=subtype)
    found = pages(path.read_bytes())
    assert len(found) >= 5
    path.write_bytes(b"".join(found[:3] + found[4:]))
    refused(path, "pages are missing")
    path.write_bytes(b"".join(found[2:]))
    refused(path, "its first pages are missing")
    path.write_bytes(b"".join(found[:-1]))
    refused(path, "its last page is missing")
    path.write_bytes(b"".join(found)[:-7])
    refused(path, "its last page is incomplete")
    path.write_bytes(b"".join(found[:3]) + b"junk" * 500 + b"".join(found[3:]))
    refused(path, "there is no page at byte")


def test_one_link_that_is_cut_short_among_several(tmp_path):
    one = write(tmp_path / "1.ogg", speech_like(20.0)).read_bytes()
    path = tmp_path / "a.ogg"
    path.write_bytes(one + b"".join(pages(one)[:-1]) + one)
    refused(path, "its last page is missing")
