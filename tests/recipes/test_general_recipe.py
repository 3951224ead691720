"""The general model's recipe: errors in one line, and a configuration that fits the mini one."""

import gzip
import json
import runpy
import shutil
import string
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from speech import sentences, small_model, whistle, write_manifest

from las import config_files as configuration
from las.config import SearchConfig
from las.data.manifests import read_manifest
from las.decoding.presets import stored_search
from las.lm.config import LMModelConfig
from las.lm.lstm import LanguageModel
from las.model.folder import read_info
from las.model.las import LAS
from las.text.characters import outside

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes/general"


def test_copies_are_named_apart_and_nothing_else_changes(tmp_path):
    for name, ids in {"a": "xy", "b": "z"}.items():
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps({"id": id, "duration": 1.5}) + "\n" for id in ids)
    arguments = ["out.jsonl.gz", "1", "a.jsonl.gz", "3", "b.jsonl.gz"]
    subprocess.run([sys.executable, RECIPE / "mix.py", *arguments], cwd=tmp_path, check=True)
    with gzip.open(tmp_path / "out.jsonl.gz", "rt") as file:
        cuts = [json.loads(line) for line in file]
    assert [cut["id"] for cut in cuts] == ["x", "y", "z", "z_copy1", "z_copy2"]
    assert {cut["duration"] for cut in cuts} == {1.5}


def test_sentences_of_a_test_set_are_left_out(tmp_path):
    for name, texts in {"labelled": ["A B", "C", "A B C"], "test": ["C", "D"]}.items():
        write_manifest(tmp_path / name, texts).rename(tmp_path / f"{name}.jsonl.gz")
    arguments = ["out.jsonl.gz", "2", "labelled.jsonl.gz", "--without", "test.jsonl.gz"]
    subprocess.run([sys.executable, RECIPE / "mix.py", *arguments], cwd=tmp_path, check=True)
    found = [cut.supervisions[0].text for cut in read_manifest(tmp_path / "out.jsonl.gz")]
    assert found == ["A B", "A B C"] * 2


def with_noise(*arguments) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, RECIPE / "noise.py", *arguments, "--decibels", "20"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_noise_is_as_loud_as_asked_and_the_words_stay(tmp_path):
    manifest = write_manifest(tmp_path, sentences(3))
    done = with_noise(manifest, tmp_path / "noisy.jsonl.gz")
    assert done.returncode == 0, done.stderr
    noisy = list(read_manifest(tmp_path / "noisy.jsonl.gz"))
    for before, after in zip(read_manifest(manifest), noisy, strict=True):
        assert before.id == after.id
        assert before.supervisions[0].text == after.supervisions[0].text
        samples = before.load_audio()[0]
        noise = after.load_audio()[0] - samples
        level = 10 * np.log10((samples**2).mean() / (noise**2).mean())
        assert level == pytest.approx(20, abs=0.3)


def test_noise_for_a_manifest_that_is_not_there(tmp_path):
    done = with_noise(tmp_path / "none.jsonl.gz", tmp_path / "noisy.jsonl.gz")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def joined(*arguments) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, RECIPE / "join.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_joined_utterances_hold_those_they_are_made_of(tmp_path):
    texts = [a + b for a in "ABCDEF" for b in "GHIJKLM"]
    manifest = write_manifest(tmp_path, texts)
    output = tmp_path / "joined.jsonl.gz"
    done = joined(output, manifest, "--rounds", "3", "--share", "0.8")
    assert done.returncode == 0, done.stderr
    singles = {cut.supervisions[0].text: cut for cut in read_manifest(manifest)}
    assert set(singles) == set(texts)
    found = list(read_manifest(output))
    assert len({cut.id for cut in found}) == len(found)
    times = Counter(word for cut in found for word in cut.supervisions[0].text.split())
    assert set(times) <= set(texts) and max(times.values()) <= 3
    assert 0.5 * 3 * len(texts) < sum(times.values()) < 0.9 * 3 * len(texts)
    speakers = set()
    for cut in found:
        parts = [singles[word] for word in cut.supervisions[0].text.split()]
        assert len(parts) > 1
        speaking = {part.supervisions[0].speaker for part in parts}
        speakers.add(cut.supervisions[0].speaker)
        assert cut.supervisions[0].speaker == (speaking.pop() if len(speaking) == 1 else None)
        samples = cut.load_audio()[0]
        first, last = (parts[k].load_audio()[0] for k in (0, -1))
        np.testing.assert_allclose(samples[: first.size], first, atol=1e-4)
        np.testing.assert_allclose(samples[-last.size :], last, atol=1e-4)
        silence = cut.duration - sum(part.duration for part in parts)
        assert 0.1 <= silence / (len(parts) - 1) <= 0.9
        assert cut.duration < 18 + 0.9 * len(parts)
    assert None in speakers and len(speakers) > 1  # of several, and of one
    before = gzip.decompress(output.read_bytes())
    assert joined(output, manifest, "--rounds", "3", "--share", "0.8").returncode == 0
    assert gzip.decompress(output.read_bytes()) == before


def test_nothing_to_join_is_one_line(tmp_path):
    single = write_manifest(tmp_path, ["A"])
    for manifest, why in ((tmp_path / "none.jsonl.gz", "none.jsonl.gz"), (single, "no two")):
        done = joined(tmp_path / "joined.jsonl.gz", manifest)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        assert why in done.stderr
        assert not (tmp_path / "joined.jsonl.gz").exists()


def run_recipe(root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", root / "recipes/general/run.sh", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "PYTHONPATH": ":".join(sys.path)},
        check=False,
    )


def corpora(folder: Path) -> dict[str, Path]:
    """Folders and a text as the publishers' layouts have them, with nothing in them."""
    for name in ("L/train-clean-5", "L/dev-clean", "an4/etc", "ocean/train", "cv/train"):
        (folder / name).mkdir(parents=True)
    (folder / "books.txt").write_text("A BOOK\n")
    given = {"librispeech": "L", "an4": "an4", "speechocean": "ocean", "text": "books.txt"}
    return {f"--{name}": folder / path for name, path in given.items()}


def words(given: dict[str, Path]) -> list[object]:
    return [word for pair in given.items() for word in pair]


@pytest.mark.parametrize("option", ["--librispeech", "--an4", "--speechocean", "--text"])
def test_what_is_missing_is_named(tmp_path, option):
    given = corpora(tmp_path)
    left_out = given.pop(option)
    wrong = [
        (words(given), f"{option} is missing"),
        ([*words(given), option, tmp_path / "none"], f"{option}: no such "),
        ([*words(given), option, left_out, "--frm", "lm"], "unknown argument '--frm'"),
        ([*words(given), option, left_out, "--from", "end"], "no stage 'end'"),
        ([*words(given), option, left_out, "--processes", "two"], "'two' is no number"),
    ]
    if option != "--text":
        other = tmp_path / ("cv" if option == "--an4" else "an4")
        wrong.append(([*words(given), option, other], "no such folder: "))
    for arguments, reason in wrong:
        done = run_recipe(ROOT, *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        assert reason in done.stderr


def test_help_is_no_error():
    done = run_recipe(ROOT, "--help")
    assert done.returncode == 0 and "--librispeech DIR" in done.stdout and not done.stderr


def write_an4(root: Path, speakers: int) -> None:
    """A corpus in AN4's layout: an utterance a speaker to train on, and one to test."""
    (root / "etc").mkdir(parents=True)
    for part, folder in (("train", "an4_clstk"), ("test", "an4test_clstk")):
        ids, lines = [], []
        for index in range(speakers if part == "train" else 1):
            name = f"{folder}/{part}{index}/an{index}-{part}{index}-b"
            path = root / "wav" / f"{name}.sph"
            path.parent.mkdir(parents=True)
            soundfile.write(path, whistle("ABE", index, 16000), 16000, format="NIST")
            ids.append(f"{name}\n")
            lines.append(f"<s> ABE </s> ({Path(name).name})\n")
        (root / "etc" / f"an4_{part}.fileids").write_text("".join(ids))
        (root / "etc" / f"an4_{part}.transcription").write_text("".join(lines))


def test_its_first_stage_keeps_speakers_apart(tmp_path):
    demo = ROOT / "recipes/demo/corpus"
    shutil.copytree(RECIPE, tmp_path / "recipes/general")
    parts = {
        "LibriSpeech/train-clean-5": "train/10[123]",
        "LibriSpeech/dev-clean": "dev/301",
        "ocean/train": "train/104",
        "cv/train": "train/1[1-5]?",
        "more/train": "train/106",
    }
    for part, pattern in parts.items():
        for speaker in demo.glob(pattern):
            shutil.copytree(speaker, tmp_path / part / speaker.name)
    for part, pattern in (("dev", "302"), ("train", "105")):
        for speaker in (demo / part).glob(pattern):
            target = tmp_path / "recipes/demo/corpus" / part / speaker.name
            shutil.copytree(speaker, target)
    write_an4(tmp_path / "an4", speakers=9)
    (tmp_path / "books.txt").write_text("A BOOK")
    done = run_recipe(
        tmp_path, "--librispeech", tmp_path / "LibriSpeech", "--an4", tmp_path / "an4",
        "--speechocean", tmp_path / "ocean", "--commonvoice", tmp_path / "cv",
        "--labelled", tmp_path / "more", "--text", tmp_path / "books.txt", "--to", "prepare",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    data = tmp_path / "recipes/general/data"
    speakers = {
        name: {cut.supervisions[0].speaker for cut in read_manifest(data / f"{name}.jsonl.gz")}
        for name in ("train", "dev", "commonvoice/train-dev", "librispeech/dev-clean")
    }
    assert len(speakers["commonvoice/train-dev"]) == 40
    assert "train-106" in speakers["train"]
    for name, found in speakers.items():
        assert found and (name == "train" or not found & speakers["train"])
    lines = (data / "text.txt").read_text().splitlines()
    assert lines[0] == "A BOOK" and lines.count("ABE") == 8  # one of nine speakers trains
    assert lines.count("B O O K") == 20 and len(lines) > 100_000  # codes and numbers


def test_lines_of_codes_are_of_the_alphabet_and_repeat(tmp_path):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        arguments = [RECIPE / "codes.py", tmp_path / name, "3000", seed]
        subprocess.run([sys.executable, *arguments], check=True)
    text = (tmp_path / "a").read_text()
    assert text.count("\n") == 3000 and not outside(text.replace("\n", " "))
    assert text == (tmp_path / "b").read_text() != (tmp_path / "c").read_text()
    counts = Counter(text.split())
    letters = [counts[letter] for letter in string.ascii_uppercase]
    assert min(letters) > 0.6 * max(letters)  # evenly
    assert counts["NINETEEN"] and counts["TWELFTH"] and counts["O'CLOCK"] and counts["OH"]


def test_codes_with_wrong_arguments_is_one_line(tmp_path):
    for arguments in ([], ["x", "many"], [str(tmp_path), "3"]):
        done = subprocess.run(
            [sys.executable, RECIPE / "codes.py", *arguments],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("dtype", "most", "moved"), [("int8", 0.6, 5e-3), ("float16", 0.7, 1e-3)])
def test_what_is_bundled_is_small_searches_as_stored_and_says_the_same(
    tmp_path, dtype, most, moved
):
    settings = RECIPE / "conf/search.yaml"
    model = small_model()
    model.save_pretrained(tmp_path / "model", {"data": "none"})
    lm = LanguageModel(LMModelConfig(alphabet=model.config.alphabet, width=4, embedding=4))
    lm.save_pretrained(tmp_path / "lm")
    more = [] if dtype == "int8" else ["--dtype", dtype]
    done = bundle(tmp_path / "model", tmp_path / "lm", settings, tmp_path / "bundle", *more)
    assert done.returncode == 0, done.stderr
    found, _ = stored_search(tmp_path / "bundle")
    assert found == configuration.load(SearchConfig, settings)
    assert (tmp_path / "bundle/lm/model.safetensors").is_file()
    info = read_info(tmp_path / "bundle")
    assert info["data"] == "none" and info["recipe"] == "recipes/general"
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("bundle", "model")]
    assert sizes[0] < most * sizes[1]
    stored = LAS.from_pretrained(tmp_path / "bundle").state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(stored[name], value, atol=moved, rtol=1e-3)


def test_a_bundle_without_a_model_is_one_line(tmp_path):
    settings = RECIPE / "conf/search.yaml"
    done = bundle(tmp_path / "none", tmp_path, settings, tmp_path / "bundle")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "bundle").exists()


def bundle(*arguments: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, RECIPE / "bundle.py", *arguments], capture_output=True, text=True
    )


def test_where_errors_come_from(tmp_path, monkeypatch, capsys):
    texts = sentences(6)
    manifest = write_manifest(tmp_path / "speech", texts)
    train = write_manifest(tmp_path / "train", texts[:2] * 3)
    small_model().save_pretrained(tmp_path / "model")
    report = tmp_path / "errors.json"
    script = RECIPE / "errors.py"
    monkeypatch.setattr(
        sys,
        "argv",
        [str(script), *map(str, [tmp_path / "model", manifest, report, "--train", train])],
    )
    runpy.run_path(str(script), run_name="__main__")
    found = json.loads(report.read_text())
    words = [word for text in texts for word in text.split()]
    assert found["words"] == len(words)
    assert 0 <= found["utterances"]["search errors"] <= found["utterances"]["wrong"] <= 6
    assert sum(row["words"] for row in found["groups"]["speaker"]) == len(words)
    counts = Counter(word for text in texts[:2] * 3 for word in text.split())
    unseen = sum(counts[word] == 0 for word in words)
    groups = {row["of"]: row["words"] for row in found["groups"]["times in the training"]}
    assert groups.get("under 1", 0) == unseen
    assert "times in the training" in capsys.readouterr().out
