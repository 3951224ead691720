"""CSV, TSV and JSONL files of a user: read by the rules of their format, or one line."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from las.data import corpora
from las.data.corpora import prepare
from las.errors import LASError
from tests.data.test_corpora import one_line, sound

TABLES = {
    "a.csv": 'audio,text\r\nx/a.wav,ABE\r\n\r\n"x/b.wav","CAB, FADE"\r\n',
    "a.tsv": "audio\ttext\nx/a.wav\tABE\n\nx/b.wav\tCAB, FADE\n",
    "a.jsonl": '{"audio": "x/a.wav", "text": "ABE"}\n\n{"audio": "x/b.wav", "text": "CAB, FADE"}\n',
}


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path, name, bom):
    (tmp_path / name).write_bytes((bom + TABLES[name]).encode())
    sound(tmp_path / "x" / "a.wav")
    sound(tmp_path / "x" / "b.wav")
    items = corpora.folder(tmp_path / name)["a"]
    assert [(i.id, i.text, i.speaker) for i in items] == [
        ("x-a", "ABE", "x"),
        ("x-b", "CAB, FADE", "x"),
    ]
    assert prepare("a", items, tmp_path / "out", strict=True).utterances == 2


def test_tables_may_name_ids_speakers_and_absolute_paths(tmp_path):
    path = sound(tmp_path / "elsewhere" / "a.wav")
    table = tmp_path / "t.csv"
    table.write_text(f"speaker,id,text,audio\nEVE,one,ABE,{path}\n,,ABE,{path}\n")
    named, plain = corpora.folder(table)["t"]
    assert (named.id, named.speaker, named.path) == ("one", "EVE", path)
    assert plain.id.endswith("elsewhere-a") and not plain.id.startswith(("/", "-"))
    assert plain.speaker == "elsewhere"


def test_a_text_may_hold_line_breaks_and_separators(tmp_path):
    (tmp_path / "a.csv").write_text('audio,text\na.wav,"ABE\nCAB\x0bFADE"\n')
    (tmp_path / "a.jsonl").write_text('{"audio": "a.wav", "text": "ABE\u2028CAB\x85FADE"}\n')
    for name in ("a.csv", "a.jsonl"):
        (item,) = corpora.folder(tmp_path / name)["a"]
        assert item.text.split() == ["ABE", "CAB", "FADE"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "audio,text\na.wav,ABE\nb.wav\n", ["line 3", "lacks"]),
        ("a.csv", "audio,text\n,ABE\n", ["line 2", "lacks"]),
        ("a.csv", "audio,text\na.wav,ABE, CAB\n", ["line 2", "more fields", "double quotes"]),
        ("a.csv", 'audio,text\na.wav,"ABE\n', ["malformed", "line 2"]),
        ("a.csv", 'audio,text\na.wav,"ABE" CAB\n', ["malformed", "line 2"]),
        ("a.csv", "audio,text\na.wav," + "A" * 200_000 + "\n", ["malformed", "line 2"]),
        ("a.csv", "file,transcript\na.wav,ABE\n", ["header", "audio", "file"]),
        ("a.csv", "", ["header"]),
        ("a.csv", 'audio,text\na.wav,"A\nB"\n\nb.wav,"ABE\nCAB\n', ["malformed", "line 5"]),
        ("a.csv", 'audio,text\na.wav,"A\nB"\nb.wav\n', ["line 4", "lacks"]),
        ("a.tsv", "audio,text\na.wav,ABE\n", ["header"]),
        ("a.tsv", "audio\ttext\na.wav\tABE\tCAB\n", ["line 2", "more fields", "tab"]),
        ("a.tsv", "audio\ttext\n\nb.wav\n", ["line 3", "lacks"]),
        ("a.tsv", "client_id\tpath\tsentence\n", ["header", "las prepare commonvoice"]),
        ("a.jsonl", '{"audio": "a.wav", "text": ["A"]}\n', ["line 1", "`text`"]),
        ("a.jsonl", '{"audio": "a.wav", "text": "A"}\n\n{"audio"\n', ["line 3", "not JSON"]),
        ("a.jsonl", "[1]\n", ["line 1", "not a JSON object"]),
        ("a.jsonl", "[" * 100_000 + "\n", ["line 1", "not JSON"]),
        ("a.jsonl", '{"audio": "a.wav", "text": null}\n', ["line 1", "lacks"]),
    ],
)
def test_malformed_tables(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(LASError) as caught:
        corpora.folder(tmp_path / name)
    one_line(caught, tmp_path / name, *words)


def test_quotes_in_a_tsv_are_characters_like_others(tmp_path):
    lines = ["audio\ttext", 'a.wav\t"ABE" CAB', 'b.wav\t"ABE', 'c.wav\tA "B" E', 'd.wav\t"A, B"']
    (tmp_path / "a.tsv").write_text("\r\n".join(lines))
    texts = [item.text for item in corpora.folder(tmp_path / "a.tsv")["a"]]
    assert texts == ['"ABE" CAB', '"ABE', 'A "B" E', '"A, B"']


def test_a_row_that_is_not_utf_8_is_named_by_its_line(tmp_path):
    for name, text in TABLES.items():
        data = text.encode().replace(b"CAB", b"C\xffB")
        (tmp_path / name).write_bytes(data)
        with pytest.raises(LASError) as caught:
            corpora.folder(tmp_path / name)
        line = data[: data.index(b"\xff")].count(b"\n") + 1
        one_line(caught, tmp_path / name, f"line {line}", "UTF-8")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\0"), min_size=1),
            st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\0")),
        ),
        min_size=1,
    )
)
def test_what_is_written_by_a_format_s_rules_is_read(tmp_path_factory, kind, rows):
    path = tmp_path_factory.getbasetemp() / f"table.{kind}"
    named = [{"audio": f"x/{n}.wav", "id": id, "text": text} for n, (id, text) in enumerate(rows)]
    with path.open("w", encoding="utf-8", newline="") as file:
        if kind == "csv":
            writer = csv.DictWriter(file, ["id", "text", "audio"])
            writer.writeheader()
            writer.writerows(named)
        elif kind == "tsv":
            lines = (f"{row['id']}\t{row['text']}\t{row['audio']}\n" for row in named)
            file.write("id\ttext\taudio\n" + "".join(lines))
        else:
            file.writelines(json.dumps(row) + "\n" for row in named)
    items = corpora.folder(path)["table"]
    assert [(item.id, item.text) for item in items] == rows


def test_the_speaker_of_a_table_does_not_depend_on_where_one_stands(tmp_path, monkeypatch):
    folder = tmp_path / "eve"
    (folder / "ann").mkdir(parents=True)
    (folder / "t.csv").write_text("audio,text\na.wav,ABE\nann/b.wav,ABE\n../c.wav,ABE\n/d.wav,A\n")
    absolute = corpora.folder(folder / "t.csv")["t"]
    assert [item.speaker for item in absolute] == ["eve", "ann", tmp_path.name, "t"]
    monkeypatch.chdir(folder)
    relative = corpora.folder(Path("t.csv"))["t"]
    assert [(i.id, i.speaker) for i in relative] == [(i.id, i.speaker) for i in absolute]


def test_tables_that_are_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes("audio,text\na.wav,ABE\n".encode("utf-16"))
    (tmp_path / "b.csv").mkdir()
    for name, words in (("a.csv", "UTF-8"), ("b.csv", "directory"), ("c.csv", "No such file")):
        with pytest.raises(LASError) as caught:
            corpora.folder(tmp_path / name)
        one_line(caught, tmp_path / name, words)
