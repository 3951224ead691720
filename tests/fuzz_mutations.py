"""Valid audio files in every container, and seeded ways to damage them; for fuzz_audio.py."""

import io
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator

# Name of the file -> channels, Hz, soundfile's settings.
CONTAINERS: dict[str, tuple[int, int, dict[str, str]]] = {
    "pcm16.wav": (1, 16000, {}),
    "pcm24-stereo.wav": (2, 44100, {"subtype": "PCM_24"}),
    "float.wav": (1, 16000, {"subtype": "FLOAT"}),
    "double.wav": (2, 8000, {"subtype": "DOUBLE"}),
    "ulaw.wav": (1, 8000, {"subtype": "ULAW"}),
    "adpcm.wav": (1, 16000, {"subtype": "IMA_ADPCM"}),
    "extensible.wav": (2, 16000, {"format": "WAVEX"}),
    "rf64.wav": (1, 16000, {"format": "RF64"}),
    "a.w64": (1, 16000, {}),
    "a.flac": (1, 16000, {}),
    "stereo24.flac": (2, 48000, {"subtype": "PCM_24"}),
    "a.mp3": (1, 16000, {}),
    "stereo.mp3": (2, 44100, {}),
    "a.sph": (1, 16000, {"format": "NIST"}),
    "a.aiff": (1, 16000, {}),
    "float.aiff": (1, 16000, {"subtype": "FLOAT"}),
    "a.au": (1, 16000, {}),
    "a.caf": (1, 16000, {}),
}

_TAGS = re.compile(
    rb"RIFF|RF64|ds64|fmt |data|fact|LIST|PEAK|FORM|COMM|SSND|fLaC|OggS|vorbis|OpusHead|\.snd"
    rb"|caff|desc|ID3|Xing|Info|sample_count|sample_rate|channel_count|NIST_1A"
)
_SIZES = (0, 1, 2, 3, 7, 8, 255, 256, 65535, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
_RATES = (0, 1, 1999, 2000, 7999, 15999, 16001, 192000, 655350, 2**31 - 1, 2**32 - 1)


SAMPLES = Path(__file__).parents[1] / "las" / "samples"


def originals(waveform: np.ndarray) -> dict[str, bytes]:
    """The waveform [S] at 16 kHz in every container, by name; the same bytes every time.

    Ogg files are those that ship: libsndfile gives each one that it writes a random number.
    """
    found = {
        "vorbis.ogg": (SAMPLES / "509-1-0004.ogg").read_bytes(),
        "a.opus": (SAMPLES / "505-1-0004.opus").read_bytes(),
    }
    for name, (channels, rate, settings) in CONTAINERS.items():
        places = np.arange(0, len(waveform) - 1, 16000 / rate)
        samples = np.interp(places, np.arange(len(waveform)), waveform)
        stream = io.BytesIO()
        settings = {"format": Path(name).suffix[1:].upper(), **settings}
        soundfile.write(stream, np.stack([samples] * channels, 1), rate, **settings)
        data = bytearray(stream.getvalue())
        peak = data.find(b"PEAK")
        if peak >= 0:
            data[peak + 12 : peak + 16] = bytes(4)  # the time of writing
        found[name] = bytes(data)
    return dict(sorted(found.items()))


def _place(random: Generator, data: bytearray) -> int:
    """A place in a file; half of the time among its headers."""
    near = min(len(data), 256)
    return int(random.integers(near if random.random() < 0.5 else len(data))) if data else 0


def _span(random: Generator, data: bytearray) -> tuple[int, int]:
    """A stretch of a file, short more often than long."""
    start = _place(random, data)
    size = int(2 ** random.uniform(0, np.log2(len(data) + 1)))
    return start, min(len(data), start + size)


def _number(random: Generator) -> bytes:
    """A number that is at some edge, in some width and byte order."""
    value = int(random.choice(_SIZES))
    kind = str(random.choice(["<H", ">H", "<I", ">I", "<Q", ">Q"]))
    return struct.pack(kind, value % 2 ** (8 * struct.calcsize(kind)))


def flip_bits(random: Generator, data: bytearray) -> None:
    for _ in range(int(2 ** random.uniform(0, 8))):
        if data:
            data[_place(random, data)] ^= 1 << int(random.integers(8))


def set_bytes(random: Generator, data: bytearray) -> None:
    start, end = _span(random, data)
    data[start:end] = random.bytes(end - start)


def truncate(random: Generator, data: bytearray) -> None:
    del data[_place(random, data) :]


def zero(random: Generator, data: bytearray) -> None:
    start, end = _span(random, data)
    data[start:end] = bytes(end - start)


def cut(random: Generator, data: bytearray) -> None:
    start, end = _span(random, data)
    del data[start:end]


def duplicate(random: Generator, data: bytearray) -> None:
    start, end = _span(random, data)
    data[start:start] = data[start:end] * int(random.integers(1, 5))


def move(random: Generator, data: bytearray) -> None:
    start, end = _span(random, data)
    block = data[start:end]
    del data[start:end]
    place = _place(random, data)
    data[place:place] = block


def header_field(random: Generator, data: bytearray) -> None:
    place = int(random.integers(0, min(len(data), 128) + 1)) // 2 * 2
    number = _number(random)
    data[place : place + len(number)] = number


def chunk_lie(random: Generator, data: bytearray) -> None:
    """Another number within the 16 bytes after a name that formats put before their numbers."""
    found = [match.end() for match in _TAGS.finditer(data)]
    if found:
        place = int(random.choice(found)) + int(random.integers(0, 5)) * 4
        number = _number(random)
        data[place : place + len(number)] = number


def rate_lie(random: Generator, data: bytearray) -> None:
    rate = int(random.choice(_RATES))
    for old in (8000, 16000, 44100, 48000):
        for pack in ("<I", ">I"):
            place = data.find(struct.pack(pack, old), 0, 512)
            if place >= 0:
                data[place : place + 4] = struct.pack(pack, rate)
                return
    digits = re.search(rb"-i \d+", data[:1024])
    if digits:  # NIST SPHERE's header is text
        data[digits.start() : digits.end()] = b"-i " + str(rate).encode()


def channels_lie(random: Generator, data: bytearray) -> None:
    count = int(random.choice([0, 3, 8, 255, 256, 1024, 1025, 65535]))
    places = {b"RIFF": (22, "<H"), b"RF64": (58, "<H"), b"FORM": (20, ">H"), b".snd": (20, ">I")}
    place, kind = places.get(bytes(data[:4]), (int(random.integers(8, 64)), ">H"))
    number = struct.pack(kind, count)
    data[place : place + len(number)] = number


def not_numbers(random: Generator, data: bytearray) -> None:
    """NaN, infinities, denormals and huge numbers among the samples."""
    kind = str(random.choice(["<f4", ">f4", "<f8"]))
    values = np.array([np.nan, np.inf, -np.inf, 1e38, 1e-40, -1e10], kind)
    for _ in range(int(random.integers(1, 50))):
        number = random.choice(values).tobytes()
        place = int(random.integers(44, max(45, len(data)))) // 4 * 4
        data[place : place + len(number)] = number


def huge_sizes(random: Generator, data: bytearray) -> None:
    """All bits of a few bytes that tell lengths."""
    found = [match.end() for match in _TAGS.finditer(data)] or [0]
    place = int(random.choice(found)) + int(random.integers(0, 24))
    data[place : place + int(random.integers(1, 9))] = b"\xff" * 8


def text_fields(random: Generator, data: bytearray) -> None:
    """Numbers in a header of text, as NIST SPHERE has."""
    found = list(re.finditer(rb"\d+", data[:1024]))
    if found:
        match = found[int(random.integers(len(found)))]
        other = [b"-1", b"0", b"9" * 30, b"1e9", b"x", b"\0", b"18446744073709551616"]
        data[match.start() : match.end()] = other[int(random.integers(len(other)))]


def id3(random: Generator, data: bytearray) -> None:
    """A tag in front, whose size may lie."""
    size = random.integers(0, 128, 4).astype(np.uint8).tobytes()
    flags = int(random.choice([0, 0x10, 0xFF]))
    body = random.bytes(int(random.integers(0, 300)))
    data[0:0] = b"ID3\x04\x00" + bytes([flags]) + size + body


def append(random: Generator, data: bytearray) -> None:
    data += random.bytes(int(2 ** random.uniform(0, 12)))


def noise(random: Generator, data: bytearray) -> None:
    """Nothing but random bytes, behind the first few of the file."""
    keep = int(random.choice([0, 4, 12, 44, 128]))
    data[keep:] = random.bytes(int(random.integers(0, 20000)))


def empty(random: Generator, data: bytearray) -> None:
    data.clear()


MUTATIONS: dict[Callable[[Generator, bytearray], None], float] = {
    flip_bits: 3,
    set_bytes: 2,
    truncate: 2,
    zero: 2,
    cut: 2,
    duplicate: 2,
    move: 1,
    header_field: 3,
    chunk_lie: 3,
    rate_lie: 2,
    channels_lie: 2,
    not_numbers: 2,
    huge_sizes: 2,
    text_fields: 1,
    id3: 1,
    append: 1,
    noise: 0.5,
    empty: 0.2,
}
"""Mutations and how often each is drawn, relative to the others."""


def mutate(random: Generator, data: bytes) -> tuple[bytes, list[str]]:
    """One to four mutations on top of each other, and their names."""
    share = np.array(list(MUTATIONS.values()))
    count = int(random.choice([1, 2, 3, 4], p=[0.55, 0.25, 0.12, 0.08]))
    chosen = random.choice(len(share), count, p=share / share.sum())
    mutated, names = bytearray(data), []
    for mutation in (list(MUTATIONS)[index] for index in chosen):
        mutation(random, mutated)
        names.append(mutation.__name__)
    return bytes(mutated[: 1 << 22]), names
