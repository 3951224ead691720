"""Explanations as a self-contained page of HTML: no server, no network, no other file.

The same explanation gives the same bytes.
"""

import base64
import io
import math
from html import escape
from importlib import resources

import soundfile

from las.explain.figure import level, mark
from las.explain.svg import drawing
from las.explain.types import Alternative, Explanation, Section
from las.version import __version__

AUDIO_SECONDS = 60.0
"""Longer audio is not put into the page."""

# The page can fetch nothing and run only its own script, whatever a file's name or a text holds.
_POLICY = (
    "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def page(explanation: Explanation) -> str:
    """The whole page."""
    name = explanation.name or "audio"
    folder = resources.files("las.explain") / "assets"
    style, script = (
        (folder / f"explain.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")
    )
    sections = "\n".join(
        _section(explanation, section, number)
        for number, section in enumerate(explanation.sections)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{_text(name)}: how it was recognised</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<header>
<h1>{_text(name)}</h1>
<p class="transcript">{_text(explanation.text) or "(no text)"}</p>
{_facts(explanation)}
{_audio(explanation)}
</header>
<main>
{_warnings(explanation)}
{sections}
</main>
<footer class="note">
<p>Attention is where the speller looked when it wrote a character. That is not always where the
sound is: it may be late or early, or flat where the context is enough.
Probabilities are the model's own, and models are often overconfident.</p>
<p>Made by listen-attend-spell {_text(__version__)}.</p>
</footer>
<script>
{script}explained(document);
</script>
</body>
</html>
"""


def _text(text: str) -> str:
    """Escaped, for text and attributes; lone surrogates of odd file names are replaced."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"))


def _facts(explanation: Explanation) -> str:
    facts = {
        "Length": f"{explanation.seconds:.2f} s" + (" (the rest is left out)" * explanation.cut),
        "Model": explanation.model or "unnamed",
        "Search": explanation.search,
    }
    rows = "".join(f"<div><dt>{k}</dt><dd>{_text(v)}</dd></div>" for k, v in facts.items())
    return f'<dl class="facts">{rows}</dl>'


def _playable(explanation: Explanation) -> bool:
    return explanation.seconds <= AUDIO_SECONDS


def _audio(explanation: Explanation) -> str:
    if not _playable(explanation):
        longer = f"it is longer than {AUDIO_SECONDS:g} s"
        return f'<p class="note">The audio is not in this page: {longer}.</p>'
    stream = io.BytesIO()
    samples = explanation.waveform.clip(-1.0, 1.0)
    soundfile.write(stream, samples, explanation.rate, format="WAV", subtype="PCM_16")
    data = base64.b64encode(stream.getvalue()).decode()
    label = "The audio as the model's input"
    return f'<audio controls aria-label="{label}" src="data:audio/wav;base64,{data}"></audio>'


def _warnings(explanation: Explanation) -> str:
    several = len(explanation.sections) > 1
    warnings = [
        (f"{section.start:.1f} to {section.end:.1f} s: " if several else "") + warning
        for section in explanation.sections
        for warning in section.warnings
    ]
    if explanation.cut:
        warnings.append(f"Only the first {explanation.seconds:g} s of the file are explained.")
    if not warnings:
        return (
            '<div class="card warnings none"><h2>No warnings</h2><p>The text ended by itself, '
            "attention moved forward, and the model is sure of its words.</p></div>"
        )
    items = "".join(f"<li>{_text(warning)}</li>" for warning in warnings)
    count = f"{len(warnings)} warning{'s' * (len(warnings) > 1)}"
    return f'<div class="card warnings"><h2>{count}</h2><ul>{items}</ul></div>'


def _section(explanation: Explanation, section: Section, number: int) -> str:
    several = len(explanation.sections) > 1
    title = f"{section.start:.1f} to {section.end:.1f} s" if several else "Words and times"
    text = f"<p>{_text(section.text) or '(no text)'}</p>" if several else ""
    return f"""<section class="card decoded" aria-labelledby="title{number}">
<h2 id="title{number}">{title}</h2>
{text}
{_words(explanation, section)}
<h3>Spectrogram and attention</h3>
<figure class="figure" tabindex="0" role="group" aria-label="Spectrogram and attention">
{drawing(explanation, section, number, _playable(explanation))}
<figcaption>From above: words, the spectrogram, the characters of the CTC head (which has no
attention), and for each character of the text where attention was, with the character's
probability. Brightness is the square root of the weight, so that faint
attention is seen.</figcaption>
</figure>
<p class="hint" aria-live="polite">Point at a character to see its place in the sound.</p>
{_alternatives(section)}
{_characters(section)}
</section>"""


def _words(explanation: Explanation, section: Section) -> str:
    if not section.words:
        return ""
    items = []
    for word in section.words:
        inner = (
            f"<b>{_text(word.word)}</b><small>{word.start:.2f}\u2013{word.end:.2f} s "
            f"<em>{word.probability:.0%}</em></small>"
        )
        kind = f'class="word {level(word.probability)}"'
        if _playable(explanation):
            times = f'data-start="{word.start:.3f}" data-end="{word.end:.3f}"'
            hint = 'title="Play this word"'
            items.append(f'<li><button type="button" {kind} {times} {hint}>{inner}</button></li>')
        else:
            items.append(f"<li><span {kind}>{inner}</span></li>")
    return f'<h3>Words</h3>\n<ul class="words">{"".join(items)}</ul>'


def _alternatives(section: Section) -> str:
    if not section.alternatives:
        return ""
    chosen = next((a.text for a in section.alternatives if a.chosen), "")
    lm = any(a.lm is not None for a in section.alternatives)
    words = any(a.words is not None for a in section.alternatives)
    rows = []
    for rank, other in enumerate(section.alternatives, 1):
        numbers = [other.score, other.attention, other.ctc]
        numbers += [x for x in (other.lm, other.words) if x is not None]
        cells = "".join(f"<td>{_number(value)}</td>" for value in numbers)
        row = ' class="chosen"' if other.chosen else ""
        note = ' <span class="note">(chosen)</span>' if other.chosen else ""
        text = _marked(other, chosen) + note
        rows.append(f'<tr{row}><td>{rank}</td><td class="text">{text}</td>{cells}</tr>')
    names = ["Score", "Attention", "CTC"]
    names += [*(["Language model"] if lm else []), *(["Words"] if words else [])]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return f"""<h3>Alternatives</h3>
<div class="scroll"><table>
<thead><tr><th scope="col">Rank</th><th scope="col" class="text">Text</th>{head}</tr></thead>
<tbody>
{chr(10).join(rows)}
</tbody>
</table></div>
<p class="note">The score is what the search ranks by; the others are log-probabilities of the whole
text, closer to 0 is better. Words that differ from the chosen text are marked.</p>"""


def _marked(other: Alternative, chosen: str) -> str:
    """An alternative's text; words that differ from the chosen text are marked."""
    import difflib

    words, reference = other.text.split(), chosen.split()
    parts = []
    matcher = difflib.SequenceMatcher(None, reference, words, autojunk=False)
    for kind, _, _, start, end in matcher.get_opcodes():
        text = _text(" ".join(words[start:end]))
        if text:
            parts.append(text if kind == "equal" else f"<mark>{text}</mark>")
    return " ".join(parts) or "(nothing)"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}".replace("-", "\u2212") if math.isfinite(value) else "impossible"


def _characters(section: Section) -> str:
    if not section.characters:
        return ""
    rows = "".join(
        f"<tr><td>{index}</td><td>{_text(mark(c.text))}</td><td>{c.probability:.1%}</td>"
        f"<td>{c.centre:.2f}</td><td>{c.start:.2f}\u2013{c.end:.2f}</td><td>{c.width:.2f}</td></tr>"
        for index, c in enumerate(section.characters, 1)
    )
    names = ("Step", "Character", "Probability", "Centre [s]", "Most attention [s]", "Width [s]")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return f"""<details><summary>All characters as a table</summary>
<div class="scroll"><table><thead><tr>{head}</tr></thead>
<tbody>{rows}</tbody></table></div></details>"""
