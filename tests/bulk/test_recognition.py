"""The rows of a block are what `las transcribe` writes for the same files."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech import run_main, small_model, write_manifest

from las.audio import reader
from las.bulk.blocks import Files, of_files, of_manifest, shards
from las.bulk.recognition import Recogniser, Settings
from las.config import SearchConfig
from las.model.folder import bundled
from tests.bulk.compare import alike, within

SAMPLES = bundled().parent / "samples"


def settings(model=None, lm=None, search=None, words=True):
    return Settings(model, lm, None, search or SearchConfig(), "auto", words)


def of_transcribe(monkeypatch, capsys, folder, *arguments):
    """What `las transcribe` writes, by name, and its errors."""
    command = ["transcribe", *arguments, "-f", "json", "-o", folder]
    _, _, err = run_main(monkeypatch, capsys, *command)
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in folder.iterdir()}
    return found, [line[7:] for line in err.splitlines() if line.startswith("error: ")]


def check(rows, alone):
    assert {Path(row["path"]).stem for row in rows} == alone.keys()
    assert len(rows) == len(alone)
    for row in rows:
        assert within(alone[Path(row["path"]).stem], row)
        words = [word for segment in row["segments"] for word in segment.get("words", [])]
        if words:
            assert row["confidence"] == pytest.approx(np.mean([w["probability"] for w in words]))


def test_samples_long_and_bad_files(tmp_path, monkeypatch, capsys):
    long = np.concatenate([reader.load(path) for path in sorted(SAMPLES.glob("5*"))] * 2)
    soundfile.write(tmp_path / "long.flac", long, reader.SAMPLE_RATE)
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "short.flac").write_bytes((tmp_path / "long.flac").read_bytes()[:5000])
    paths = [*SAMPLES.glob("5*"), *tmp_path.iterdir(), tmp_path / "gone.wav"]
    (block,) = of_files(paths, 100)
    result = Recogniser(settings(), "cpu")(block)
    alone, errors = of_transcribe(
        monkeypatch, capsys, tmp_path / "out", *block.names, "--greedy", "--word-timestamps"
    )
    check(result.rows, alone)
    assert [row["path"] for row in result.rows] == [
        name for name in block.names if Path(name).stem in alone
    ]
    assert [row["error"] for row in result.errors] == errors and len(errors) == 3
    assert result.seconds == pytest.approx(1.5 * len(long) / reader.SAMPLE_RATE, rel=0.01)


def test_the_stored_search(tmp_path, monkeypatch, capsys):
    block = Files((str(SAMPLES / "501-1-0004.wav"),))
    search = SearchConfig(beam=8, ctc=0.3, lm_weight=0.3, word_penalty=1.0)
    result = Recogniser(settings(lm=Path("lm"), search=search, words=False), "cpu")(block)
    alone, _ = of_transcribe(monkeypatch, capsys, tmp_path / "out", *block.names)
    check(result.rows, alone)
    assert 0 < result.rows[0]["confidence"] < 1


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("part"), ["ABE CAB", "FADE", "DAB ACE", "BEAD"])


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    small_model().save_pretrained(folder)
    return Recogniser(settings(folder), "cpu")


@pytest.fixture(scope="module")
def by_id(manifest, recogniser):
    """Rows of the files of the manifest, by the ids of their utterances."""
    from las.data.manifests import read_manifest

    files = {cut.recording.sources[0].source: cut.id for cut in read_manifest(manifest)}
    result = recogniser(Files(tuple(files)))
    assert not result.errors
    return {files[row["path"]]: row for row in result.rows}


def test_a_manifest_gives_what_its_files_give(manifest, recogniser, by_id):
    blocks = of_manifest(manifest, 3)
    rows = [row for block in blocks for row in recogniser(block).rows]
    assert [len(block.lines) for block in blocks] == [3, 1]
    assert alike(rows, [{**by_id[row["id"]], "id": row["id"]} for row in rows])
    assert {row["id"] for row in rows} == by_id.keys()
    singles = [row for single in blocks[0].singles() for row in recogniser(single).rows]
    assert alike(singles, rows[:3])


def test_a_part_of_a_file_is_transcribed_alone(manifest, recogniser, tmp_path):
    from las.data.manifests import read_manifest

    cut = next(iter(read_manifest(manifest)))
    part = cut.truncate(offset=0.2, duration=0.4, preserve_id=True)
    tiny = cut.truncate(offset=0.2, duration=0.01).with_id("tiny")
    path = tmp_path / "parts.jsonl"
    path.write_text("".join(json.dumps(one.to_dict()) + "\n" for one in (part, tiny)))
    (block,) = of_manifest(path, 8)
    result = recogniser(block)
    soundfile.write(tmp_path / "part.wav", part.load_audio()[0], part.sampling_rate, "FLOAT")
    (alone,) = recogniser(Files((str(tmp_path / "part.wav"),))).rows
    (row,) = result.rows
    assert alike(row, {**alone, "path": cut.recording.sources[0].source, "id": cut.id})
    (error,) = result.errors
    assert error["id"] == "tiny" and error["error"].startswith("utterance tiny: audio: ")


def test_a_shard_gives_what_its_files_give(manifest, recogniser, by_id, tmp_path):
    from las.data.manifests import read_manifest

    cuts = read_manifest(manifest).to_eager()
    cuts.to_shar(tmp_path, fields={"recording": "flac"}, shard_size=3)
    blocks = [block for shard in shards(tmp_path) for block in of_manifest(shard, 1)]
    assert len(blocks) == 2
    rows = [row for block in blocks for row in recogniser(block).rows]
    expected = [{**by_id[row["id"]], "id": row["id"], "path": row["path"]} for row in rows]
    assert alike(rows, expected)
    assert {row["id"] for row in rows} == by_id.keys()
    assert {row["path"] for row in rows} == {block.path for block in blocks}
    assert alike([recogniser(single).rows[0] for single in blocks[0].singles()], rows[:3])


def test_a_damaged_shard_gives_what_is_before_the_damage(manifest, recogniser, by_id, tmp_path):
    from las.data.manifests import read_manifest

    read_manifest(manifest).to_eager().to_shar(tmp_path, fields={"recording": "flac"})
    (shard,) = shards(tmp_path)
    (block,) = of_manifest(shard, 1)
    tar = Path(block.path)
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    result = recogniser(block)
    assert 0 < len(result.rows) < 4
    (error,) = result.errors
    assert error["path"] == str(tar)
    assert error["error"].startswith(f"{tar}: damaged") and "\n" not in error["error"]
