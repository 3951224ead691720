"""What is written is read again by programs that others made."""

import csv
import io
import json

import pysrt
import pytest
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from las.transcription.types import Segment, Transcription, Word
from las.transcription.writers import FORMATS, render, write
from las.transcription.writers.subtitles import timestamp


def transcription(*segments):
    """Of (start, end, text)."""
    made = [
        Segment(
            id=index,
            seek=0,
            start=start,
            end=end,
            text=text,
            tokens=[2, 3],
            temperature=0.0,
            avg_logprob=-0.25,
            compression_ratio=1.0,
            words=[Word(text, start, end, 0.5)],
        )
        for index, (start, end, text) in enumerate(segments)
    ]
    return Transcription(" ".join(s.text for s in made), made, "en", 4000.0)


EMPTY = transcription()
TWO = transcription(
    (0.0, 1.5, "TURN ON THE RADIO"),
    (3599.9996, 3661.007, "AND NOW A TEXT THAT TAKES MORE THAN ONE LINE OF SUBTITLES"),
)


def test_txt():
    assert render(TWO, "txt").splitlines() == [segment.text for segment in TWO.segments]
    assert render(EMPTY, "txt") == ""


def test_srt():
    assert render(TWO, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\nTURN ON THE RADIO\n\n"
        "2\n01:00:00,000 --> 01:01:01,007\n"
        "AND NOW A TEXT THAT TAKES MORE THAN ONE\nLINE OF SUBTITLES\n\n"
    )
    assert render(EMPTY, "srt") == ""


def test_vtt():
    assert render(TWO, "vtt") == (
        "WEBVTT\n\n00:00.000 --> 00:01.500\nTURN ON THE RADIO\n\n"
        "01:00:00.000 --> 01:01:01.007\n"
        "AND NOW A TEXT THAT TAKES MORE THAN ONE\nLINE OF SUBTITLES\n"
    )
    assert render(EMPTY, "vtt") == "WEBVTT\n"


def test_tsv():
    rows = list(csv.reader(io.StringIO(render(TWO, "tsv")), delimiter="\t"))
    assert rows == [
        ["start", "end", "text"],
        ["0", "1500", "TURN ON THE RADIO"],
        ["3600000", "3661007", TWO.segments[1].text],
    ]
    assert render(EMPTY, "tsv") == "start\tend\ttext\n"


def test_json():
    plain = json.loads(render(TWO, "json"))
    assert plain == TWO.to_dict(word_timestamps=False)
    assert "words" not in plain["segments"][0]
    assert json.loads(render(TWO, "json", word_timestamps=True)) == TWO.to_dict()
    assert json.loads(render(EMPTY, "json"))["segments"] == []


def test_json_of_no_number_is_an_error_and_not_a_file_that_others_refuse(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write(transcription((0.0, float("nan"), "A")), tmp_path / "x.json", "json")
    assert list(tmp_path.iterdir()) == []


def whispers_timestamp(seconds, always_include_hours=False, decimal_marker="."):
    """As openai/whisper defines it (whisper/utils.py)."""
    milliseconds = round(seconds * 1000.0)
    hours = milliseconds // 3_600_000
    milliseconds -= hours * 3_600_000
    minutes = milliseconds // 60_000
    milliseconds -= minutes * 60_000
    seconds = milliseconds // 1_000
    milliseconds -= seconds * 1_000
    hours_marker = f"{hours:02d}:" if always_include_hours or hours > 0 else ""
    return f"{hours_marker}{minutes:02d}:{seconds:02d}{decimal_marker}{milliseconds:03d}"


@given(st.floats(0.0, 4e5), st.booleans(), st.sampled_from(".,"))
def test_timestamps_are_whispers(seconds, hours, mark):
    assert timestamp(seconds, hours, mark) == whispers_timestamp(seconds, hours, mark)


texts = st.lists(st.text("ABCXYZ'", min_size=1, max_size=15), min_size=1, max_size=12).map(" ".join)
segments = st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.001, 10.0), texts), max_size=8)


@given(segments, st.floats(0.0, 400_000.0))
def test_subtitles_are_read_by_others(drawn, clock):
    made = []
    for pause, length, text in drawn:
        made.append((round(clock + pause, 3), round(clock + pause + length, 3), text))
        clock = made[-1][1]
    whole = transcription(*made)
    for found in (_pysrt(render(whole, "srt")), _webvtt(render(whole, "vtt"))):
        assert [" ".join(text.split("\n")) for *_, text in found] == [t for *_, t in made]
        assert all(len(line) <= 42 for *_, text in found for line in text.split("\n"))
        times = [(round(start, 3), round(end, 3)) for start, end, _ in found]
        assert times == [(start, end) for start, end, _ in made]


def _pysrt(text):
    items = pysrt.from_string(text, error_handling=pysrt.ERROR_RAISE)
    assert [item.index for item in items] == list(range(1, len(items) + 1))
    return [(i.start.ordinal / 1000, i.end.ordinal / 1000, i.text) for i in items]


def _webvtt(text):
    def seconds(time):
        hours, minutes, rest = time.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(rest)

    captions = webvtt.from_string(text).captions
    return [(seconds(c.start), seconds(c.end), c.text) for c in captions]


def test_an_arrow_in_a_text_is_no_time():
    whole = transcription((0.0, 1.0, "A --> B"))
    assert [text for *_, text in _pysrt(render(whole, "srt"))] == ["A -> B"]
    assert [text for *_, text in _webvtt(render(whole, "vtt"))] == ["A -> B"]


def test_written_whole_under_their_names(tmp_path):
    for kind in FORMATS:
        path = tmp_path / "folder" / f"x.{kind}"
        write(TWO, path, kind)
        assert path.read_bytes() == render(TWO, kind).encode()
    assert len(list((tmp_path / "folder").iterdir())) == len(FORMATS)
