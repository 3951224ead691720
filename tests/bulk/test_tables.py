"""Both formats hold the same rows."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow", reason="[bulk] is not installed")

import pyarrow.parquet as pq

from las.bulk import tables

text = st.text('aé\u2028\n\t"\\\0😀', max_size=6)
number = st.floats(allow_nan=False, allow_infinity=False)
word = st.fixed_dictionaries({"word": text, "start": number, "end": number, "probability": number})
SEGMENT = {
    "id": st.integers(0, 9),
    "seek": st.integers(0, 10**9),
    "start": number,
    "end": number,
    "text": text,
    "tokens": st.lists(st.integers(0, 10**5), max_size=3),
    "temperature": st.just(0.0),
    "avg_logprob": number,
    "compression_ratio": number,
}


def results(words):
    segment = {**SEGMENT, "words": st.lists(word, max_size=2)} if words else SEGMENT
    row = {
        "path": text,
        "id": st.none() | text,
        "text": text,
        "segments": st.lists(st.fixed_dictionaries(segment), max_size=2),
        "language": text,
        "duration": number,
        "confidence": st.none() | number,
        "warnings": st.lists(text, max_size=2),
    }
    return st.lists(st.fixed_dictionaries(row), max_size=3)


@settings(max_examples=30)
@given(st.booleans().flatmap(lambda words: st.tuples(st.just(words), results(words))))
def test_both_formats_hold_the_rows(tmp_path_factory, drawn):
    words, rows = drawn
    folder = tmp_path_factory.mktemp("tables")
    for kind in tables.FORMATS:
        tables.write_results(folder / kind, kind, rows, words)
        assert tables.FORMATS[kind].count(folder / kind) == len(rows)
    assert [json.loads(line) for line in (folder / "jsonl").open(encoding="utf-8")] == rows
    parquet = pq.read_table(folder / "parquet")
    assert parquet.to_pylist() == rows
    assert parquet.schema.equals(tables.schema(words))  # also of a part without rows


@settings(max_examples=30)
@given(st.lists(st.fixed_dictionaries({"path": text, "id": st.none() | text, "error": text})))
def test_errors_too(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("errors")
    for kind in tables.FORMATS:
        tables.write_errors(folder / kind, kind, rows)
    assert [json.loads(line) for line in (folder / "jsonl").open(encoding="utf-8")] == rows
    assert pq.read_table(folder / "parquet").to_pylist() == rows
