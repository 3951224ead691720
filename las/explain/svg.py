"""The drawing of a section in the page: SVG over two images with one pixel per value.

It has no ``style`` attributes: a page with a strict policy would ignore them.
"""

import base64
from html import escape

import numpy as np

from las.explain.figure import attention_image, level, mark, spectrogram_image
from las.explain.types import Character, Explanation, Section

_LEFT, _RIGHT = 66, 66  # pixels beside the plots
_NARROW = 1016  # what fits the page's width; what is longer scrolls
_WORDS, _SPECTROGRAM, _AXIS, _CTC = 30, 190, 22, 26  # heights
_KILOHERTZ = (0.25, 0.5, 1, 2, 4, 8)


class _Scale:
    """Seconds to pixels, and the positions of the parts."""

    def __init__(self, section: Section) -> None:
        seconds = section.end - section.start
        rows = max(1, len(section.characters))
        self.start, self.end = section.start, section.end
        self.width = float(np.clip(150 * seconds, _NARROW, 2600))
        self.second = self.width / seconds
        self.row = float(np.clip(900 / rows, 8, 17))
        self.spectrogram = _WORDS + 6
        self.axis = self.spectrogram + _SPECTROGRAM
        self.ctc = self.axis + _AXIS
        self.attention = self.ctc + _CTC
        self.foot = self.attention + rows * self.row
        self.height = self.foot + _AXIS + 8

    def x(self, time: float) -> float:
        return _LEFT + (time - self.start) * self.second


def drawing(explanation: Explanation, section: Section, number: int, playable: bool) -> str:
    """One SVG element.

    Args:
        explanation: the whole.
        section: what to draw of it.
        number: of the section; ids within the page are made unique by it.
        playable: whether words can be clicked.
    """
    scale = _Scale(section)
    label = (
        f"Spectrogram of {section.end - section.start:.2f} seconds of audio and the attention of "
        f"{len(section.characters)} characters: {section.text or 'no text'}"
    )
    size = f'width="{scale.width + _LEFT + _RIGHT:.0f}" height="{scale.height:.0f}"'
    parts = [
        f'<svg {size} role="img" aria-label="{_text(label)}">',
        _images(section, scale, number),
        f'<g clip-path="url(#inside{number})">',
        *_words(section, scale, playable),
        "</g>",
        _spectrogram(explanation, section, scale, number),
        *_time(scale, scale.axis),
        *_spikes(section, scale),
        *_attention(section, scale, number),
        *_time(scale, scale.foot),
        _line(
            "playhead",
            0,
            scale.spectrogram,
            scale.foot,
            f' data-from="{scale.start:.3f}" data-to="{scale.end:.3f}" data-left="{_LEFT}" '
            f'data-scale="{scale.second:.4f}"',
        ),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part)


def _text(text: str) -> str:
    return escape(text.encode("utf-8", "replace").decode("utf-8"))


def _line(kind: str, x: float, top: float, bottom: float, more: str = "") -> str:
    return (
        f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"{more}/>'
    )


def _image(name: str, data: bytes, width: int, height: int) -> str:
    source = "data:image/png;base64," + base64.b64encode(data).decode()
    return (
        f'<image id="{name}" width="{width}" height="{height}" preserveAspectRatio="none" '
        f'href="{source}"/>'
    )


def _images(section: Section, scale: _Scale, number: int) -> str:
    """Both images once; the drawing uses them several times."""
    bands, columns = section.spectrogram.shape
    rows, frames = section.attention.shape
    images = [_image(f"sound{number}", spectrogram_image(section), columns, bands)]
    masks = ""
    if rows:
        images.append(_image(f"weights{number}", attention_image(section), frames, rows))
        width = frames * section.frame * scale.second
        box = f'x="{_LEFT}" width="{width:.2f}" preserveAspectRatio="none"'
        whole = 'maskUnits="userSpaceOnUse" x="0" y="0" width="100%" height="100%"'
        masks = (
            f'<mask id="row{number}" {whole}>'
            f'<svg class="slice" {box} y="{scale.spectrogram}" height="{_SPECTROGRAM}" '
            f'viewBox="0 0 {frames} 1"><use href="#weights{number}"/></svg></mask>'
            f'<mask id="all{number}" {whole}>'
            f'<svg {box} y="{scale.attention:.1f}" height="{rows * scale.row:.1f}" '
            f'viewBox="0 0 {frames} {rows}"><use href="#weights{number}"/></svg></mask>'
        )
    clip = (
        f'<clipPath id="inside{number}"><rect x="{_LEFT}" y="0" width="{scale.width:.1f}" '
        f'height="{scale.height:.0f}"/></clipPath>'
    )
    return f"<defs>{''.join(images)}{masks}{clip}</defs>"


def _words(section: Section, scale: _Scale, playable: bool) -> list[str]:
    parts = []
    for word in section.words:
        x, width = scale.x(word.start), (word.end - word.start) * scale.second
        kind = level(word.probability)
        size = min(13.0, max(6.0, 1.45 * width / max(1, len(word.word))))
        box = f'x="{x:.1f}" width="{max(width - 1, 1):.1f}"'
        parts.append(
            f'<g class="{kind}"><rect class="word-box" {box} y="0" height="{_WORDS}" rx="3"/>'
            f'<rect class="word-line" {box} y="{_WORDS - 3}" height="3"/>'
            f'<text x="{x + width / 2:.1f}" y="{_WORDS / 2 + 3}" text-anchor="middle" '
            f'font-size="{size:.1f}">{_text(word.word)}</text>'
        )
        if playable:
            times = f'data-start="{word.start:.3f}" data-end="{word.end:.3f}"'
            parts[-1] += f'<rect class="word-hit" {box} y="0" height="{_WORDS}" {times}/>'
        parts[-1] += "</g>"
    return parts


def _spectrogram(explanation: Explanation, section: Section, scale: _Scale, number: int) -> str:
    bands, columns = section.spectrogram.shape
    width = columns * section.hop * scale.second
    sound = (
        f'<svg x="{_LEFT}" y="{scale.spectrogram}" width="{width:.2f}" height="{_SPECTROGRAM}" '
        f'viewBox="0 0 {columns} {bands}" preserveAspectRatio="none">'
        f'<use href="#sound{number}"/></svg>'
    )
    veil = (
        f'<rect class="veil" x="{_LEFT}" y="{scale.spectrogram}" width="{scale.width:.1f}" '
        f'height="{_SPECTROGRAM}"/>'
    )
    spot = f'<g class="spot" mask="url(#row{number})">{sound}</g>' if section.characters else ""
    centre = _line("centre", 0, scale.spectrogram, scale.axis)
    axis = [f'<text class="name" x="0" y="{scale.spectrogram + 10}">kHz</text>']
    for kilohertz in _KILOHERTZ:
        if 1000 * kilohertz > explanation.highest:
            continue
        share = _mel(1000 * kilohertz) / _mel(explanation.highest)
        y = scale.axis - share * _SPECTROGRAM
        baseline = max(y + 4, scale.spectrogram + 10)
        axis.append(
            f'<text class="axis" x="{_LEFT - 8}" y="{baseline:.1f}" text-anchor="end">'
            f"{kilohertz:g}</text>"
        )
    inner = f'<g clip-path="url(#inside{number})">{sound}{veil}{spot}{centre}</g>'
    return f'<g class="stage">{"".join(axis)}{inner}</g>'


def _mel(hertz: float) -> float:
    return float(np.log10(1 + hertz / 700))  # up to a factor (HTK)


def _time(scale: _Scale, y: float) -> list[str]:
    """Ticks on round seconds, about every 100 pixels."""
    steps = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
    step = next((s for s in steps if s * scale.second >= 70), 10.0)
    parts = []
    for index in range(int(np.ceil(scale.start / step)), int(scale.end / step) + 1):
        x = scale.x(index * step)
        parts.append(_line("tick", x, y, y + 4))
        parts.append(
            f'<text class="axis" x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">'
            f"{index * step:g}</text>"
        )
    parts.append(f'<text class="name" x="0" y="{y + 16:.1f}">seconds</text>')
    return parts


def _spikes(section: Section, scale: _Scale) -> list[str]:
    y = scale.ctc + 15
    parts = [f'<text class="name" x="0" y="{y}">CTC</text>']
    for spike in section.ctc:
        title = f"CTC: {mark(spike.text)} at {spike.time:.2f} s, {spike.probability:.0%}"
        parts.append(
            f'<text class="mono" x="{scale.x(spike.time):.1f}" y="{y}" text-anchor="middle">'
            f"{_text(mark(spike.text))}<title>{_text(title)}</title></text>"
        )
    return parts


def _attention(section: Section, scale: _Scale, number: int) -> list[str]:
    rows = len(section.characters)
    if not rows:
        return []
    place = f'x="{_LEFT}" y="{scale.attention:.1f}" width="{scale.width:.1f}"'
    size = f'{place} height="{rows * scale.row:.1f}"'
    parts = [
        f'<rect class="dark" {size}/>',
        f'<g clip-path="url(#inside{number})">'
        f'<rect class="weight" {size} mask="url(#all{number})"/></g>',
    ]
    for index, character in enumerate(section.characters):
        parts.append(_row(character, index, scale))
    return parts


def _row(character: Character, index: int, scale: _Scale) -> str:
    top = scale.attention + index * scale.row
    base = top + scale.row * 0.76
    font = f'font-size="{min(12.0, scale.row * 0.82):.1f}"'
    kind = level(character.probability)
    title = (
        f"{_named(character)}: at {character.centre:.2f} s "
        f"({character.start:.2f} to {character.end:.2f} s), {character.probability:.0%}"
    )
    right = _LEFT + scale.width
    bar = 26 * character.probability
    return (
        f'<text class="mono" x="{_LEFT - 8}" y="{base:.1f}" text-anchor="end" {font}>'
        f"{_text(mark(character.text))}</text>"
        f'<g class="{kind}"><rect class="bar" x="{right + 6:.1f}" y="{top + scale.row * 0.25:.1f}" '
        f'width="{bar:.1f}" height="{scale.row * 0.5:.1f}"/></g>'
        f'<text class="axis" x="{right + _RIGHT:.1f}" y="{base:.1f}" text-anchor="end" {font}>'
        f"{character.probability:.0%}</text>"
        f'<rect class="row" x="0" y="{top:.1f}" width="{right + _RIGHT:.1f}" '
        f'height="{scale.row:.1f}" '
        f'data-row="{index}" data-x="{scale.x(character.centre):.1f}">'
        f"<title>{_text(title)}</title></rect>"
    )


def _named(character: Character) -> str:
    names = {"": "The end of the sentence", " ": "A space"}
    return names.get(character.text, f"\u201c{character.text}\u201d")
