"""Pictures of an explanation hold its values."""

import numpy as np
from PIL import Image

from las.evaluation import plots
from las.explain import figure as explain_figure


def test_images_hold_the_values(explanation, tmp_path):
    (section,) = explanation.sections
    (tmp_path / "a.png").write_bytes(explain_figure.attention_image(section))
    with Image.open(tmp_path / "a.png") as image:
        alpha = np.asarray(image)[..., 3] / 255
    assert alpha.shape == section.attention.shape
    np.testing.assert_allclose(alpha**2, section.attention / section.attention.max(), atol=0.005)
    (tmp_path / "s.png").write_bytes(explain_figure.spectrogram_image(section))
    with Image.open(tmp_path / "s.png") as image:
        assert image.size == section.spectrogram.shape[::-1]


def test_the_picture(explanation, tmp_path):
    (section,) = explanation.sections
    figure = explain_figure.figure(explanation, section)
    words, sound, ctc, attention = figure.axes
    assert [t.get_text().split("\n")[0] for t in words.texts] == section.text.split()
    assert len(ctc.texts) == len(section.ctc)
    labels = [label.get_text() for label in attention.get_yticklabels()]
    assert "".join(labels).replace("\u2423", " ") == section.text + "end"
    assert sound.get_xlim() == attention.get_xlim() == (section.start, section.end)
    for name in ("a.png", "b.png"):
        plots.save(explain_figure.figure(explanation, section), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
