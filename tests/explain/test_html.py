"""The page of an explanation is whole, valid, readable and closed."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from las.explain import figure as explain_figure
from las.explain import html
from las.explain.types import Explanation
from tests.explain.pages import Page


def test_the_page_is_whole_and_accessible(page, explanation):
    assert page.startswith("<!DOCTYPE html>\n")
    parsed = Page(page)
    assert parsed.all("html")[0]["lang"] == "en"
    assert len(parsed.all("title")) >= 1 and len(parsed.all("h1")) == 1
    (drawing,) = [svg for svg in parsed.all("svg") if svg.get("role") == "img"]
    assert "TURN ON THE KITCHEN RADIO" in (drawing["aria-label"] or "")
    assert all(audio_tag["aria-label"] for audio_tag in parsed.all("audio"))
    assert len(parsed.all("button", "word")) == len(explanation.sections[0].words)
    assert len(parsed.all("rect", "row")) == len(explanation.sections[0].characters)
    for word in explanation.sections[0].words:
        assert f"{word.start:.2f}\u2013{word.end:.2f} s" in parsed.text
    for alternative in explanation.sections[0].alternatives:
        assert alternative.text in parsed.text
    rows = parsed.all("rect", "row")
    assert [int(row["data-row"] or -1) for row in rows] == list(range(len(rows)))
    for _, values in parsed.tags:  # what is referred to is there
        for value in values.values():
            for name in re.findall(r"(?:^|url\()#([\w]+)", value or ""):
                assert f'id="{name}"' in page


def test_the_page_asks_for_nothing_from_outside(page):
    parsed = Page(page)
    for tag, values in parsed.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            link = values.get(name)
            assert link is None or link.startswith(("data:", "#")), (tag, link)
    assert re.findall(r"(?:https?:)?//[\w.]+", re.sub(r"base64,[\w+/=]+", "", page)) == []
    assert "@import" not in page and "fetch(" not in page
    (policy,) = [m for m in parsed.all("meta") if m.get("http-equiv")]
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_contrast_of_texts_and_their_grounds():
    style = (Path(html.__file__).parent / "assets" / "explain.css").read_text()
    light, dark = (
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", s)) for s in style.split("@media", 1)
    )

    def luminance(colour: str) -> float:
        values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    assert set(light) == set(dark)
    texts, grounds = ("ink", "soft", "accent", "good", "fair", "poor"), ("paper", "ground")
    pairs = [*itertools.product(texts, grounds), ("ink", "lit"), ("ink", "chosen")]
    for colours, (text, ground) in itertools.product((light, dark), [*pairs, ("ink", "marked")]):
        high, low = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)
    assert set(explain_figure.COLOURS.values()) <= set(light.values())


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script> & \"'.wav", "caf\udce9.wav", "\u6f22.wav"]
)
def test_names_are_escaped(explanation, name):
    odd = Explanation(**{**vars(explanation), "name": name, "model": name})
    page = html.page(odd)
    page.encode("utf-8")
    assert "<script>alert" not in page
    assert len(Page(page).all("script")) == 1
    shown = name.encode("utf-8", "replace").decode()
    assert shown in Page(page).text
