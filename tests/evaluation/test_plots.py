"""Pictures: what is in them, that they reach the disk, and what is no log."""

import json

import numpy as np
import pytest
from PIL import Image

from las.config import FrontendConfig
from las.errors import LASError
from las.evaluation import plots


@pytest.fixture(scope="module")
def waveform():
    return 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)


def alignment(steps: int, frames: int = 25) -> np.ndarray:
    weights = np.random.default_rng(1).random((steps, frames))
    return weights / weights.sum(1, keepdims=True)


# --- attention ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "steps", "marks"),
    [
        ("A CAT", 6, ["A", "\u2423", "C", "A", "T", "end"]),
        ("A CAT", 5, ["A", "\u2423", "C", "A", "T"]),  # cut off by the step limit
        ("", 1, ["end"]),
    ],
)
def test_each_step_has_its_character(waveform, text, steps, marks):
    weights = alignment(steps)
    figure = plots.attention(waveform, weights, text, FrontendConfig())
    above, below = figure.axes
    assert above.get_title() == (text or "(nothing written)")
    assert [label.get_text() for label in below.get_yticklabels()] == marks
    assert below.get_yticks().tolist() == list(range(steps))
    assert below.get_xlabel() == "time [s]"
    assert below.get_ylabel() == "character"
    (image,) = below.images
    np.testing.assert_array_equal(image.get_array(), weights)
    assert image.get_extent() == [0.0, 1.0, steps - 0.5, -0.5]


def test_attention_reaches_a_png_file(waveform, tmp_path):
    figure = plots.attention(waveform, alignment(4), "CAT", FrontendConfig())
    plots.save(figure, tmp_path / "new" / "attention.png")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["attention.png"]
    with Image.open(tmp_path / "new" / "attention.png") as image:
        assert image.format == "PNG"
        width, height = image.size
        assert width == 1100
        assert height > 300
        assert len(image.convert("RGB").getcolors(width * height)) > 100


def test_silence_can_be_drawn(tmp_path):
    figure = plots.attention(np.zeros(4000, np.float32), alignment(1), "", FrontendConfig())
    plots.save(figure, tmp_path / "silence.png")
    assert (tmp_path / "silence.png").stat().st_size > 0


# --- learning curves ------------------------------------------------------------------------

STEPS = [{"step": n, "epoch": 1, "attention": 3 / n, "ctc": 4 / n} for n in range(1, 6)]
DEV = {"step": 5, "epoch": 1, "dev": {"wer": 40.0, "cer": 0.0, "attention": 0.7, "ctc": 0.9}}


@pytest.fixture
def log(tmp_path):
    def log(*rows: object, end: str = "") -> object:
        path = tmp_path / "log.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows) + end)
        return path

    return log


def lines(axes) -> dict[str, tuple[list[float], list[float]]]:
    return {line.get_label(): tuple(map(list, line.get_data())) for line in axes.lines}


def test_learning_curves_hold_the_log(log, tmp_path):
    figure = plots.learning_curves(log(*STEPS, DEV))
    left, right = figure.axes
    losses, errors = lines(left), lines(right)
    assert losses["attention"] == ([1, 2, 3, 4, 5], [3 / n for n in range(1, 6)])
    assert losses["ctc"] == ([1, 2, 3, 4, 5], [4 / n for n in range(1, 6)])
    assert losses["attention, dev"] == ([5], [0.7])
    assert losses["ctc, dev"] == ([5], [0.9])
    # No error at all is drawn at 0.1 %, where a logarithm can show it.
    assert errors == {"WER": ([5], [40.0]), "CER": ([5], [0.1])}
    assert left.get_ylabel() == "loss [nats a character]"
    assert right.get_ylabel() == "dev error rate [%]"
    for suffix in ("png", "svg"):
        plots.save(figure, tmp_path / f"curves.{suffix}")
        assert (tmp_path / f"curves.{suffix}").stat().st_size > 1000


def test_the_same_picture_has_the_same_bytes(log, tmp_path):
    for name in ("a.png", "b.png"):
        plots.save(plots.learning_curves(log(*STEPS, DEV)), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_curves_before_the_first_validation(log, tmp_path):
    plots.save(plots.learning_curves(log(*STEPS)), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_an_unfinished_last_line_is_left_out(log):
    figure = plots.learning_curves(log(*STEPS, end='{"step": 6, "att'))
    assert lines(figure.axes[0])["attention"][0] == [1, 2, 3, 4, 5]


# --- errors ---------------------------------------------------------------------------------


def failure(path) -> str:
    with pytest.raises(LASError) as caught:
        plots.learning_curves(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_log(tmp_path):
    assert "cannot read" in failure(tmp_path / "log.jsonl")


def test_a_log_without_steps(log):
    assert "no steps yet" in failure(log())
    assert "no steps yet" in failure(log(DEV))


@pytest.mark.parametrize("row", [[1, 2], "text", {"loss": 1}, 3])
def test_lines_of_something_else(log, row):
    assert "not a training log" in failure(log(*STEPS, row))


@pytest.mark.parametrize("data", [b"step,loss\n1,2\n", b"\xff\xfe\x00\n", b"\n"])
def test_what_is_no_json(tmp_path, data):
    path = tmp_path / "log.jsonl"
    path.write_bytes(data)
    assert "not a training log" in failure(path)


def test_an_unknown_kind_of_picture(log, tmp_path):
    with pytest.raises(LASError, match=r"curves\.doc: cannot draw 'doc'; use one of .*png"):
        plots.save(plots.learning_curves(log(*STEPS)), tmp_path / "curves.doc")
    assert not (tmp_path / "curves.doc").exists()
