"""The command `las prepare`: what it counts, skips and holds out."""

from lhotse import CutSet
from speech import (
    error_line,
    write_folder,
)


def test_prepare_counts_what_it_leaves_out(las, tmp_path):
    mine = write_folder(tmp_path / "mine", ["ABE", "CAB", "FADE 7", ""])
    status, out, err = las("prepare", "folder", mine, tmp_path / "out")
    assert (status, err) == (0, "")
    first, *skipped = out.splitlines()
    assert "mine.jsonl.gz: 2 utterances" in first and first.endswith(" s, 2 speakers")
    assert sorted(line.strip() for line in skipped) == [
        "skipped 1: characters outside the alphabet (listed in mine.skipped.jsonl)",
        "skipped 1: empty text (listed in mine.skipped.jsonl)",
    ]
    status, _, err = las("prepare", "folder", mine, tmp_path / "out", "--strict")
    assert status == 1 and "u002.wav: characters outside the alphabet" in error_line(err)


def test_prepare_of_a_folder_with_one_bad_text_and_hidden_files(las, tmp_path):
    mine = write_folder(tmp_path / "mine", ["ABE", "CAB"])
    (mine / "s0" / "u000.txt").write_bytes(b"\xff")
    (mine / "s0" / "._u000.wav").write_bytes(b"\0\5\x16\7")
    status, out, err = las("prepare", "folder", mine, tmp_path / "out")
    assert (status, err) == (0, "")
    first, *skipped = out.splitlines()
    assert "mine.jsonl.gz: 1 utterance," in first
    assert sorted(line.strip() for line in skipped) == [
        "skipped 1: hidden (listed in mine.skipped.jsonl)",
        "skipped 1: unreadable text (listed in mine.skipped.jsonl)",
    ]


def test_prepare_of_common_voice(las, tmp_path):
    audio = write_folder(tmp_path / "en" / "clips", ["ABE", "CAB"]) / "s0" / "u000.wav"
    audio.rename(tmp_path / "en" / "clips" / "a.wav")
    for part in ("train", "dev"):
        (tmp_path / "en" / f"{part}.tsv").write_text(
            'client_id\tpath\tsentence\neve\ta.wav\t"Abe\n'
        )
    status, out, _ = las("prepare", "commonvoice", tmp_path / "en", tmp_path / "out")
    assert status == 0 and ["train.jsonl.gz" in line for line in out.splitlines()] == [True, False]
    arguments = (tmp_path / "en", tmp_path / "out", "--part", "dev")
    status, out, _ = las("prepare", "commonvoice", *arguments)
    assert status == 0 and len(out.splitlines()) == 1 and "dev.jsonl.gz: 1 utterance," in out


def test_prepare_carves_out_speakers(las, tmp_path):
    mine = write_folder(tmp_path / "mine", ["ABE", "CAB", "FADE", "BEAD"])
    for name in ("a", "b"):
        status, _, _ = las(
            "prepare", "folder", mine, tmp_path / name, "--dev-speakers", 1, "--seed", 3
        )
        assert status == 0

    def speakers(name):
        return {c.supervisions[0].speaker for c in CutSet.from_jsonl(tmp_path / name)}

    train, dev = speakers("a/mine.jsonl.gz"), speakers("a/mine-dev.jsonl.gz")
    assert len(train) == len(dev) == 1 and not train & dev
    assert speakers("b/mine-dev.jsonl.gz") == dev
    status, _, err = las("prepare", "folder", mine, tmp_path / "c", "--dev-speakers", 2)
    assert status == 1 and "--dev-speakers: cannot take 2 speakers of 2; use" in error_line(err)


def test_prepare_of_what_is_not_there(las, tmp_path):
    for corpus in ("librispeech", "an4", "folder"):
        status, _, err = las("prepare", corpus, tmp_path / "missing", tmp_path / "out")
        assert status == 1 and f"{tmp_path / 'missing'}: no such folder; check" in error_line(err)


def test_prepare_shards(las, tmp_path):
    mine = write_folder(tmp_path / "mine", ["ABE", "CAB", "FADE", "BEAD"])
    arguments = ("prepare", "folder", mine, tmp_path / "out", "--shards", "--dev-speakers", 1)
    status, out, err = las(*arguments, "--shard-size", 1, "--flac")
    assert (status, err) == (0, "")
    shards, manifest = out.splitlines()
    assert "mine.shards: 2 utterances, " in shards and "mine-dev.jsonl.gz: 2 utt" in manifest
    folder = tmp_path / "out/mine.shards"
    assert {cut.sampling_rate for cut in CutSet.from_shar(in_dir=folder)} == {8000}
    assert len(list(folder.glob("recording.*.tar"))) == 2
    status, _, err = las("prepare", "folder", mine, tmp_path / "out", "--flac")
    assert status == 1 and "--flac: manifests leave the audio where it is" in error_line(err)
