"""Explanations: what they hold is what the search did; the page is whole, valid and closed."""

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from speech import RATE, error_line, run_main, small_model, whistle

from las.audio import reader
from las.config import SearchConfig
from las.decoding.greedy import ctc_greedy
from las.decoding.hypothesis import CharacterAndWordLM
from las.evaluation import plots
from las.explain import figure as explain_figure
from las.explain import html
from las.explain.diagnostics import disagreement, warnings
from las.explain.explainer import ALTERNATIVES, Explainer
from las.explain.types import Alternative, Character, Explanation
from las.lm.config import LMModelConfig
from las.lm.lstm import LanguageModel
from las.lm.word_ngram import WordModel
from las.model.folder import bundled
from las.model.las import LAS
from las.text.characters import ALPHABET
from las.transcription import confidence
from las.transcription.quality import Quality
from las.transcription.transcriber import Transcriber
from las.transcription.transcript import ChunkTranscript
from las.transcription.types import Word
from tests.decoding.test_presets import word_model

SAMPLES = bundled().parent / "samples"
VOID = {"meta", "link", "br", "img", "input", "hr"}


@pytest.fixture(scope="module")
def explainer():
    timer = confidence.timer(bundled())
    return Explainer(LAS.from_pretrained(), torch.device("cpu"), name="bundled", timer=timer)


@pytest.fixture(scope="module")
def explanation(explainer):
    return explainer.file(SAMPLES / "501-1-0004.wav")


@pytest.fixture(scope="module")
def page(explanation):
    return html.page(explanation)


class Page(HTMLParser):
    """Checks that tags close in their order, and collects what is in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len({name for name, _ in attributes}) == len(attributes), (tag, attributes)
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def all(self, tag: str, kind: str | None = None) -> list[dict[str, str | None]]:
        return [
            values
            for name, values in self.tags
            if name == tag and (kind is None or kind in (values.get("class") or "").split())
        ]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


# --- what is found --------------------------------------------------------------------------


def test_it_explains_what_is_transcribed(explainer, explanation):
    (found,) = Transcriber(explainer.model, explainer.device).files([SAMPLES / "501-1-0004.wav"])
    assert explanation.text == found.text == "TURN ON THE KITCHEN RADIO"
    (section,) = explanation.sections
    best = found.chunks[0].hypotheses[0]
    assert "".join(c.text for c in section.characters) == best.text
    assert len(section.characters) == len(best.ids)  # the end is one
    found_log = np.log([c.probability for c in section.characters])
    np.testing.assert_allclose(found_log, best.log_probs, atol=1e-5)
    assert [w.word for w in section.words] == best.text.split()
    assert all(0 <= w.start <= w.end <= explanation.seconds for w in section.words)


def test_attention_lies_over_the_spectrogram(explanation):
    (section,) = explanation.sections
    U, T = section.attention.shape
    assert len(section.characters) == U
    np.testing.assert_allclose(section.attention.sum(1), 1.0, atol=1e-4)
    seconds = section.end - section.start
    assert seconds == pytest.approx(explanation.seconds)
    assert T * section.frame == pytest.approx(seconds, abs=section.frame)
    assert section.spectrogram.shape[1] * section.hop == pytest.approx(seconds, abs=section.hop)
    assert section.spectrogram.max() == 0.0
    for row, character in zip(section.attention, section.characters, strict=True):
        assert section.start <= character.start < character.end <= section.start + T * section.frame
        assert character.start <= character.centre <= character.end
        inside = [character.start <= (i + 0.5) * section.frame <= character.end for i in range(T)]
        assert row[inside].sum() >= 0.8 - 1e-4
        assert section.frame * 0.999 <= character.width <= T * section.frame * 1.001


def test_ctc_is_in_order(explainer, explanation):
    (section,) = explanation.sections
    waveform = torch.from_numpy(reader.load(SAMPLES / "501-1-0004.wav"))
    encoded = explainer.model.encode(waveform[None], torch.tensor([len(waveform)]))
    assert [section.ctc_text] == ctc_greedy(explainer.model, encoded)
    assert section.ctc_text.startswith("TURN ON THE ")
    times = [spike.time for spike in section.ctc]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < section.end


def test_alternatives_are_ranked_and_broken_down(explainer, explanation):
    (section,) = explanation.sections
    found = section.alternatives
    assert len({a.text for a in found}) == len(found) > 1
    assert [a.score for a in found] == sorted((a.score for a in found), reverse=True)
    assert [a.text for a in found if a.chosen] == [section.text]
    for alternative in found:
        assert alternative.score == pytest.approx(alternative.attention, abs=1e-3)  # no CTC, no LM
        assert alternative.ctc < 0
        assert alternative.lm is None
    samples = torch.from_numpy(explanation.waveform)[None]
    with torch.inference_mode():
        encoded = explainer.model.encode(samples, torch.tensor([samples.shape[1]]))
    ids = torch.tensor(explainer.model.text.encode(section.text))
    loss = torch.nn.functional.ctc_loss(
        encoded.ctc[0], ids, encoded.ctc_lengths, torch.tensor([len(ids)]), reduction="sum"
    )
    assert found[0].ctc == pytest.approx(-float(loss), abs=1e-3)


def test_scores_add_up_with_ctc_and_a_language_model(explainer):
    lm = LanguageModel(LMModelConfig(width=8, embedding=4)).eval()
    config = SearchConfig(beam=3, n_best=3, ctc=0.3, lm_weight=0.1)
    found = Explainer(explainer.model, explainer.device, config, lm).file(
        SAMPLES / "501-1-0004.wav"
    )
    assert found.sections[0].text == "TURN ON THE KITCHEN RADIO"
    alternatives = found.sections[0].alternatives
    assert len(alternatives) == ALTERNATIVES
    for a in alternatives:
        assert a.lm is not None and a.lm < 0
        total = 0.7 * a.attention + 0.3 * a.ctc + 0.1 * a.lm
        assert a.score == pytest.approx(total, abs=1e-2)
    assert "Language model" in Page(html.page(found)).text


def test_scores_add_up_with_words(explainer, tmp_path):
    words = WordModel.load(word_model(tmp_path / "words", ALPHABET, ("KITCHEN", "RADIO")))
    config = SearchConfig(beam=3, n_best=3, word_weight=0.1, unknown_word=2.0)
    both = CharacterAndWordLM(None, words)
    found = Explainer(explainer.model, explainer.device, config, both).file(
        SAMPLES / "501-1-0004.wav"
    )
    for a in found.sections[0].alternatives:
        unknown = sum(word not in words.words for word in a.text.split())
        assert a.words == pytest.approx(-len(a.text.split()) - 1 - 2 * unknown, abs=1e-4)
        assert a.lm is None and a.score == pytest.approx(a.attention + 0.1 * a.words, abs=1e-2)
    text = Page(html.page(found)).text
    assert "Words" in text and "Language model" not in text


def test_files_and_arrays_are_explained_alike(explainer, explanation):
    waveform = reader.load(SAMPLES / "501-1-0004.wav")
    again = explainer.array(waveform, "501-1-0004.wav")
    assert html.page(again) == html.page(explanation)


def test_long_audio_has_sections_up_to_the_limit(tmp_path):
    explainer = Explainer(small_model(), torch.device("cpu"))
    sound = np.concatenate([np.append(whistle("ABE CAB", i), np.zeros(4000)) for i in range(60)])
    soundfile.write(tmp_path / "long.wav", sound.astype(np.float32), RATE, subtype="FLOAT")
    found = explainer.file(tmp_path / "long.wav", max_seconds=50.0)
    assert found.cut and found.seconds == 50.0
    assert len(found.sections) > 1
    assert found.sections[-1].end <= 50.0
    page = Page(html.page(found))
    assert len(page.all("section", "decoded")) == len(found.sections)
    assert "Only the first 50 s of the file are explained." in page.text
    names = [values["id"] for _, values in page.tags if "id" in values]
    assert len(set(names)) == len(names)
    whole = explainer.file(tmp_path / "long.wav")
    assert not whole.cut
    assert whole.seconds == pytest.approx(len(sound) / RATE)
    page = Page(html.page(whole))
    assert page.all("audio") == [] and "longer than 60 s" in page.text
    assert page.all("button") == []


def test_silence_is_said_to_be_silence(explainer):
    found = explainer.array(np.zeros(160000, np.float32), "silence.wav")
    page = Page(html.page(found))
    assert found.text == ""
    assert "(no text)" in page.text
    assert "No speech was found" in page.text
    assert page.all("rect", "row") == []
    assert len(explain_figure.figure(found, found.sections[0]).axes) == 4


# --- warnings -------------------------------------------------------------------------------

GOOD = Quality(True, 1.0, 1, 0.1, 0.0, 2.0)
CHARACTER = Character("A", 0.9, 0.1, 0.2, 0.3, 0.1)
BEST = Alternative("A", -1.0, -1.0, -1.0, None, None, True)


def warned(quality=GOOD, characters=(CHARACTER,), words=(), alternatives=(BEST,)) -> str:
    hypothesis = type("Hypothesis", (), {"alignment": torch.ones(1, 1, 5) / 5})
    chunk = ChunkTranscript(0, 100, [hypothesis], 0.04, np.zeros(1), quality, None)
    return " ".join(warnings(chunk, characters, words, alternatives))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"quality": GOOD._replace(finished=False)}, "limit of steps cut the text off"),
        ({"quality": GOOD._replace(repeats=9)}, "repeats itself"),
        ({"quality": GOOD._replace(compression=5.0)}, "repeats itself"),
        ({"quality": GOOD._replace(untranscribed_seconds=1.5)}, "There is no text for 1.5 s"),
        ({"quality": GOOD._replace(backward_seconds=2.0)}, "Attention went back by 2.0 s"),
        ({"characters": [Character("A", 0.9, 0.0, 0.5, 1.0, 0.9)]}, "1 character (100%) is spread"),
        ({"words": [Word("MAYBE", 0.0, 0.1, 0.31)]}, "not sure of MAYBE (31%)"),
        ({"words": [Word("X", 0.0, 0.1, 0.1)] * 10}, "and 2 more"),
        (
            {
                "alternatives": [
                    Alternative("B", -0.5, -0.5, -1.0, None, None, False),
                    BEST,
                ]
            },
            "more likely text: \u201cB\u201d",
        ),
    ],
)
def test_warnings(changes, words):
    assert words in warned(**changes)


def test_no_warning_where_all_is_well():
    assert warned() == ""
    assert disagreement("THE CAT SAT", "THE CAT SAD") == []


@pytest.mark.parametrize(("text", "ctc"), [("THE CAT", "A DOG"), ("THE CAT", ""), ("", "A DOG")])
def test_heads_that_disagree(text, ctc):
    (warning,) = disagreement(text, ctc)
    assert (ctc or "nothing") in warning


# --- the page -------------------------------------------------------------------------------


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


# --- the command ----------------------------------------------------------------------------


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


def test_alternatives_are_found_even_by_a_greedy_search(explanation):
    assert len(explanation.sections[0].alternatives) >= min(3, ALTERNATIVES)
