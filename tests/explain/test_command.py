"""`las explain`: what it writes, and what it refuses."""

from speech import error_line, run_main

from tests.explain.pages import SAMPLES, Page


def test_the_command(monkeypatch, capsys, tmp_path, page):
    path = SAMPLES / "501-1-0004.wav"
    for folder in ("one", "two"):
        code, out, err = run_main(
            *(monkeypatch, capsys, "explain", path),
            *("--output-dir", tmp_path / folder, "--device", "cpu", "--greedy"),
        )
        assert (code, err) == (0, "")
        assert out.splitlines()[0] == "TURN ON THE KITCHEN RADIO"
        names = sorted(p.name for p in (tmp_path / folder).iterdir())
        assert names == ["501-1-0004.explain.html", "501-1-0004.explain.png"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert (tmp_path / "one" / names[0]).read_text(encoding="utf-8") == page


def test_the_search_is_that_of_the_options(monkeypatch, capsys, tmp_path):
    run_main(
        *(monkeypatch, capsys, "explain", SAMPLES / "501-1-0004.wav"),
        *("--output-dir", tmp_path, "--beam", 4, "--ctc", 0.3),
    )
    page = Page((tmp_path / "501-1-0004.explain.html").read_text(encoding="utf-8"))
    assert "beam 4, ctc 0.3" in page.text


def test_a_bad_file_gives_one_line_and_no_page(monkeypatch, capsys, tmp_path):
    (tmp_path / "bad.wav").write_text("text")
    code, out, err = run_main(
        monkeypatch, capsys, "explain", tmp_path / "bad.wav", "--output-dir", tmp_path / "out"
    )
    assert (code, out) == (1, "")
    assert "bad.wav: not an audio file" in error_line(err)
    assert not (tmp_path / "out").exists()
