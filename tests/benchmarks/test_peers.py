"""Recognisers of others: what they write is spoken, asked for, kept and scored alike."""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from speech import small_model

from benchmarks.peers import las_transcribe, score
from benchmarks.peers.recogniser import Recogniser
from benchmarks.peers.spoken import spoken
from las.errors import LASError
from las.text.characters import outside

HERE = Path(score.__file__).parent
FAKE = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from hearing import serve
def transcribe(pcm):
    print("a library prints")
    if len(pcm) == 4:
        print("oh no", file=sys.stderr)
        sys.exit(3)
    return f"Heard {{len(pcm) // 2}}."
serve([], "a fake", transcribe)
"""


# --- texts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("Mr. O'Neil \u2013 it's \u201cfine\u201d, OK?", "MISTER O'NEIL IT'S FINE OKAY"),
        ("in 1865, 1905, 1900, 2000 and 2026", None),
        ("the 1860s", "THE EIGHTEEN SIXTIES"),
        ("1,865 men, 21st, 30th", None),
        ("$5 or $1.50 & 10%", "FIVE DOLLARS OR ONE DOLLARS FIFTY AND TEN PERCENT"),
        ("3.14", "THREE POINT ONE FOUR"),
        ("007", "ZERO ZERO SEVEN"),
        ("a\u00b2 \u20ac \u4e2d", "A TWO"),
    ],
)
def test_spoken(written, words):
    more = {
        "in 1865, 1905, 1900, 2000 and 2026": "IN EIGHTEEN SIXTY FIVE NINETEEN OH FIVE NINETEEN "
        "HUNDRED TWO THOUSAND AND TWENTY TWENTY SIX",
        "1,865 men, 21st, 30th": "ONE THOUSAND EIGHT HUNDRED SIXTY FIVE MEN TWENTY FIRST THIRTIETH",
    }
    assert spoken(written) == (words or more[written])


@given(st.text(max_size=40))
def test_what_is_spoken_is_in_the_alphabet_and_stays(text):
    once = spoken(text)
    assert not outside(once)
    assert spoken(once) == once


# --- programs -------------------------------------------------------------------------------


@pytest.fixture
def fake(tmp_path):
    path = tmp_path / "fake.py"
    path.write_text(FAKE)
    return [sys.executable, str(path)]


def test_a_program_answers(fake):
    recogniser = Recogniser("fake", fake)
    assert recogniser.about["how"] == "a fake"
    answer = recogniser.hear(bytes(200))
    assert answer["text"] == "Heard 100."
    assert 0 <= answer["cpu_s"] < 1
    with pytest.raises(LASError, match="fake: the recogniser has died: oh no"):
        recogniser.hear(bytes(4))
    with pytest.raises(LASError, match="died"):
        recogniser.hear(bytes(200))


def test_a_program_that_does_not_start():
    with pytest.raises(LASError, match="x: the recogniser has died: ModuleNotFoundError"):
        Recogniser("x", [sys.executable, "-c", "import no_such_module"])


# --- scores ---------------------------------------------------------------------------------


@pytest.fixture
def words(tmp_path):
    """A list of three recordings of 100, 200 and 300 samples a hundredfold."""
    rows = ["audio,text,id"]
    for number in (1, 2, 3):
        soundfile.write(tmp_path / f"{number}.wav", [0.1] * (10000 * number), 16000)
        rows.append(f"{number}.wav,heard {number}0000,u{number}")
    path = tmp_path / "set" / "list.csv"
    path.parent.mkdir()
    path.write_text("\n".join(row.replace(",heard", ",HEARD") for row in rows))
    for number in (1, 2, 3):
        (tmp_path / f"{number}.wav").rename(path.parent / f"{number}.wav")
    return path


def run(words, tmp_path, monkeypatch, fake, *more):
    monkeypatch.setattr(score, "commands", lambda _: {"fake": fake})
    folders = ["--output", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    score.main([str(words), *folders, *more])
    return json.loads((tmp_path / "out" / "fake-set-list.json").read_text())


def test_scores_without_texts(words, tmp_path, monkeypatch, fake):
    found = run(words, tmp_path, monkeypatch, fake)
    assert found["wer"] == 0
    assert found["words"] == 9  # HEARD TEN THOUSAND and so on
    assert found["speech_s"] == pytest.approx(60000 / 16000)
    assert found["cpu_s_per_s"] == pytest.approx(found["cpu_s"] / found["speech_s"])
    assert (found["set"], found["of"], found["search"]) == ("set-list", 3, "a fake")
    assert {"command", "device", "date", "versions"} <= found.keys()
    assert found["command"].startswith("python -m benchmarks.peers.score set/list.csv")
    assert "HEARD" not in json.dumps(found).upper()
    assert str(tmp_path) not in json.dumps(found)
    table = (tmp_path / "out" / "README.md").read_text()
    assert "| set-list | fake | 3 of 3 | 0.00 (0.00 to 0.00) |" in table


def test_a_run_goes_on(words, tmp_path, monkeypatch, fake):
    found = run(words, tmp_path, monkeypatch, fake, "--every", "2")
    assert [u["id"] for u in found["utterances"]] == ["u1", "u3"]
    assert found["every"] == 2 and "--every 2" in found["command"]
    kept = tmp_path / "work" / "fake-set-list.jsonl"
    lines = kept.read_text().splitlines()
    assert len(lines) == 3
    # What is kept is taken as it is; the last line was cut off, u2 was never asked for.
    changed = lines[1].replace("10000", "20000")
    kept.write_text("\n".join([lines[0], changed, lines[2][:20]]))
    found = run(words, tmp_path, monkeypatch, fake)
    assert [u["substitutions"] for u in found["utterances"]] == [1, 0, 0]
    # Of another version nothing is.
    kept.write_text("\n".join(['{"versions": {}}', changed]))
    assert run(words, tmp_path, monkeypatch, fake)["wer"] == 0


def test_what_is_not_there_is_said(tmp_path, capsys):
    for name in ("pocketsphinx", "whisper"):
        (tmp_path / name / "bin").mkdir(parents=True)
    (tmp_path / "whisper" / "bin" / "python").touch()
    arguments = ["m.jsonl.gz", "--peers", str(tmp_path), "--whisper", str(tmp_path)]
    assert list(score.commands(score.parse(arguments))) == ["las"]
    said = capsys.readouterr().out
    assert "pocketsphinx: skipped: no environment" in said
    assert "whisper: skipped: no model folder with a model.bin" in said
    (tmp_path / "model.bin").touch()
    command = score.commands(score.parse(arguments))["whisper"]
    assert command[1:] == [str(HERE / "whisper_transcribe.py"), str(tmp_path)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no.jsonl.gz"], "no.jsonl.gz: no such manifest"),
        (["no.csv"], "no.csv"),
        (["x.csv", "--every", "0"], "--every is 0"),
    ],
)
def test_errors_are_a_line(arguments, said):
    with pytest.raises(SystemExit) as stop:
        score.main(arguments)
    assert str(stop.value).startswith(f"error: {said}")
    assert "\n" not in str(stop.value)


class Whisper:
    def __init__(self, folder, **options):
        assert folder.endswith("MODEL")
        assert options["device"] == "cpu" and options["local_files_only"]

    def transcribe(self, samples, language, **options):
        assert samples.dtype == "float32" and language == "en"
        parts = [f" {len(samples)} samples,", f" the last {samples[-1]}."]
        return (SimpleNamespace(text=text) for text in parts), None


class Sphinx:
    def __init__(self, samprate, loglevel):
        assert samprate == 16000

    def start_utt(self):
        self.found = None

    def process_raw(self, pcm, full_utt):
        assert full_utt
        self.found = SimpleNamespace(hypstr=f"{len(pcm)} bytes") if any(pcm) else None

    def end_utt(self):
        pass

    def hyp(self):
        return self.found


@pytest.mark.parametrize(
    ("name", "there", "heard"),
    [
        ("whisper", {"faster_whisper": {"WhisperModel": Whisper}}, "2 samples, the last -0.5."),
        ("pocketsphinx", {"pocketsphinx": {"Decoder": Sphinx}}, "4 bytes"),
    ],
)
def test_programs_of_others_against_pretended_packages(tmp_path, monkeypatch, name, there, heard):
    served = []
    there = there | {"hearing": {"serve": lambda *all: served.append(all), "RATE": 16000}}
    for module, has in there.items():
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**has))
    (tmp_path / "MODEL").mkdir()
    (tmp_path / "MODEL/model.bin").write_bytes(bytes(9))
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "MODEL")])
    runpy.run_path(str(HERE / f"{name}_transcribe.py"), run_name="__main__")
    ((_, how, transcribe),) = served
    assert ("MODEL (9 bytes)" in how) == (name == "whisper")
    assert transcribe(b"\0\0\0\xc0") == heard
    assert name == "whisper" or transcribe(bytes(4)) == ""


def test_our_own_program(tmp_path):
    small_model().save_pretrained(tmp_path)
    how, transcribe = las_transcribe.prepare(str(tmp_path))
    assert how.startswith("listen-attend-spell") and "(greedy)" in how
    assert isinstance(transcribe(bytes(32000)), str)
