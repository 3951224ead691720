"""Pieces of a file, and bytes that are not in it, are read as a file of their own."""

import io

from hypothesis import given
from hypothesis import strategies as st

from las.audio.spliced import Spliced


@given(data=st.data())
def test_spliced_is_a_file(data):
    whole = bytes(range(256)) * 2
    pieces, expected = [], b""
    for _ in range(data.draw(st.integers(0, 4))):
        a, b = sorted(data.draw(st.tuples(st.integers(0, 512), st.integers(0, 512))))
        inside = data.draw(st.booleans())
        pieces.append(range(a, b) if inside else whole[a:b])
        expected += whole[a:b]
    file, model = Spliced(io.BytesIO(whole), pieces), io.BytesIO(expected)
    for _ in range(data.draw(st.integers(1, 6))):
        if data.draw(st.booleans()):
            offset, whence = data.draw(st.integers(0, 600)), data.draw(st.sampled_from([0, 2]))
            offset = -min(offset, len(expected)) if whence == 2 else offset
            assert file.seek(offset, whence) == model.seek(offset, whence)
        else:
            count = data.draw(st.integers(0, 600))
            assert file.read(count) == model.read(count)
        assert file.tell() == model.tell()
