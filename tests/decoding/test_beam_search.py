"""Beam search against plain Python: enumeration of everything, and a beam of lists and loops."""

import functools
import itertools
import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from las.config import SearchConfig
from las.decoding.beam_search import beam_search, repeats
from las.decoding.greedy import greedy
from las.decoding.search import search
from las.model.las import LAS, Encoded
from las.text.characters import BLANK, EOS
from tests.decoding.test_ctc_prefix_score import log, texts

NEVER = -math.inf


class Histories:
    """A language model whose probabilities depend on all that was written, in its order."""

    def __init__(self, vocabulary: int, states: int = 11):
        generator = torch.Generator().manual_seed(5)
        table = (2 * torch.randn(states, vocabulary, generator=generator)).log_softmax(-1)
        table[:, BLANK] = NEVER
        self.table = table

    def start(self, batch, beams):
        return torch.zeros(batch, beams, dtype=torch.long)

    def step(self, state, tokens):
        assert (tokens != BLANK).all()
        state = (3 * state + tokens) % len(self.table)
        return self.table[state], state

    def select(self, state, index):
        return state.gather(1, index)


def make(config, alphabet: str, seed: int) -> LAS:
    torch.manual_seed(seed)
    model = LAS(config.model_copy(update={"alphabet": alphabet})).eval()
    with torch.no_grad():  # far from ties, which rounding could decide
        for weight in model.speller.parameters():
            weight *= 4
        for weight in model.listener.parameters():
            weight *= 3
        model.ctc.weight *= 5
        model.speller.output.weight *= 0.3
        model.speller.output.bias[EOS] -= 0.5
    return model


@pytest.fixture(scope="module")
def tiny(tiny_config):
    """alphabet, seed -> a random model."""
    return functools.cache(functools.partial(make, tiny_config))


@torch.inference_mode()
def encode(model, noise, lengths, extra=0) -> Encoded:
    return model.encode(*noise(lengths, extra))


# --- the plain search -----------------------------------------------------------------------


class Plain(NamedTuple):
    ids: tuple
    summed: float
    total: float
    state: object
    lm: object
    covered: torch.Tensor
    centre: float | None


class PlainSearch:
    """The search of one utterance as its definition reads."""

    def __init__(self, model, encoded, config, lm=None):
        self.model, self.encoded, self.config, self.lm = model, encoded, config, lm
        self.limit = int(encoded.ctc_lengths[0]) + 10
        if config.max_steps is not None:
            self.limit = min(self.limit, config.max_steps)
        self.texts = None
        if config.ctc > 0:
            self.texts = texts(encoded.ctc[0, : int(encoded.ctc_lengths[0])])
        self.frames = int(encoded.memory.lengths[0])

    def ctc(self, ids) -> float:
        """Of all texts that start with ids, or of the one text that ids end."""
        if ids[-1] == EOS:
            return log(self.texts.get(ids[:-1], 0.0))
        return log(sum(p for text, p in self.texts.items() if text[: len(ids)] == ids))

    def start(self) -> Plain:
        lm = self.lm.start(1, 1) if self.lm is not None else None
        state = self.model.speller.start(self.encoded.memory)
        return Plain((), 0.0, 0.0, state, lm, torch.zeros(self.frames), None)

    def extend(self, hypothesis: Plain) -> list[Plain]:
        """Every extension that a hypothesis may have on its own."""
        config = self.config
        tokens = torch.tensor([[hypothesis.ids[-1] if hypothesis.ids else EOS]])
        logits, state = self.model.speller.step(self.encoded.memory, hypothesis.state, tokens)
        attention = logits[0, 0].log_softmax(-1).tolist()
        lm_scores, lm = None, None
        if self.lm is not None:
            lm_scores, lm = self.lm.step(hypothesis.lm, tokens)
        mean = state.alignment[0, 0].mean(0)
        centre = sum(t * float(a) for t, a in enumerate(mean))
        found = []
        for token in range(1, len(attention)):
            ids = (*hypothesis.ids, token)
            summed = hypothesis.summed + (1 - config.ctc) * attention[token]
            if lm_scores is not None:
                summed += config.lm_weight * float(lm_scores[0, 0, token])
            summed -= config.word_penalty * (self.model.text.decode([token]) == " ")
            total = summed + (config.ctc * self.ctc(ids) if config.ctc else 0.0)
            n = config.no_repeat_ngram
            seen = {ids[i : i + n] for i in range(len(ids) - n)} if n else set()
            repeated = token != EOS and ids[max(0, len(ids) - n) :] in seen
            if total > NEVER and not repeated:
                covered = hypothesis.covered + mean
                found.append(Plain(ids, summed, total, state, lm, covered, centre))
        others = [attention[h.ids[-1]] for h in found if h.ids[-1] != EOS]
        if config.end_threshold is not None and others:
            bar = config.end_threshold * max(others)
            found = [h for h in found if h.ids[-1] != EOS or attention[EOS] > bar]
        return found

    def moved_too_far(self, before: Plain, after: list[Plain]) -> bool:
        if before.centre is None:
            return False
        move = after[0].centre - before.centre
        back, ahead = self.config.max_back, self.config.max_ahead
        return (back is not None and move < -back) or (ahead is not None and move > ahead)

    def uncovered(self, hypothesis: Plain) -> float:
        return sum(float(c) <= self.config.coverage_threshold for c in hypothesis.covered)

    def score(self, h: Plain) -> float:
        config = self.config
        characters = len(h.ids) - (h.ids[-1] == EOS)
        score = h.total / len(h.ids) ** config.length_power
        return score + config.length_bonus * characters - config.coverage * self.uncovered(h)

    def run(self) -> list[tuple[tuple, float]]:
        config, N = self.config, self.config.beam
        live, pool, cut = [self.start()], [], []
        for step in range(self.limit):
            groups = [(h, self.extend(h)) for h in live]
            groups = [(h, found) for h, found in groups if found]
            far = [self.moved_too_far(h, found) for h, found in groups]
            candidates = [
                extension
                for (_, found), moved in zip(groups, far, strict=True)
                for extension in found
                if all(far) or not moved or extension.ids[-1] == EOS
            ]
            candidates.sort(key=lambda h: -(h.total - config.coverage * self.uncovered(h)))
            candidates = candidates[: 2 * N]
            pool += [h for h in candidates[:N] if h.ids[-1] == EOS]
            pool = sorted(pool, key=self.score, reverse=True)[: config.n_best]
            live = [h for h in candidates if h.ids[-1] != EOS][:N]
            if step == self.limit - 1:
                cut = sorted(live, key=self.score, reverse=True)
            worst = self.score(pool[-1]) if len(pool) == config.n_best else NEVER
            live = [h for h in live if self.bound(h) > worst]
        return [(h.ids, self.score(h)) for h in (pool + cut)[: config.n_best]]

    def bound(self, h: Plain) -> float:
        bonus = self.config.length_bonus * (self.limit - 1)
        return h.total / self.limit**self.config.length_power + bonus

    def everything(self) -> list[tuple[tuple, float]]:
        """All hypotheses that end within the limit, best first."""
        ended, live = [], [self.start()]
        for _ in range(self.limit):
            found = list(itertools.chain(*map(self.extend, live)))
            ended += [h for h in found if h.ids[-1] == EOS]
            live = [h for h in found if h.ids[-1] != EOS]
        return sorted(((h.ids, self.score(h)) for h in ended), key=lambda pair: -pair[1])


def assert_same(model, found, expected):
    assert [h.text for h in found] == [model.text.decode(ids) for ids, _ in expected]
    assert [h.finished for h in found] == [ids[-1] == EOS for ids, _ in expected]
    assert [len(h.alignment) for h in found] == [len(ids) for ids, _ in expected]
    for hypothesis, (_, score) in zip(found, expected, strict=True):
        assert hypothesis.score == pytest.approx(score, rel=1e-4, abs=1e-4)


# --- against plain Python -------------------------------------------------------------------

SCORES = {
    "attention": {},
    "ctc": {"ctc": 0.4},
    "lm": {"lm_weight": 0.6},
    "normalised": {"length_power": 0.8},
    "bonus": {"length_bonus": 1.0},
    "coverage": {"coverage": 0.7, "coverage_threshold": 0.6},
    "all": {
        "ctc": 0.3,
        "lm_weight": 0.4,
        "length_power": 0.5,
        "length_bonus": 0.1,
        "coverage": 0.2,
    },
}


@pytest.mark.parametrize(("alphabet", "steps"), [("A", 5), ("AB", 4)])
@pytest.mark.parametrize("name", SCORES)
@torch.inference_mode()
def test_a_beam_of_all_prefixes_finds_the_best_and_no_beam_beats_it(
    tiny, noise, name, alphabet, steps
):
    width = len(alphabet) ** (steps - 1) * (len(alphabet) + 1)  # candidates of the last step
    for seed in (1, 2):
        model = tiny(alphabet, seed)
        lm = Histories(len(model.text)) if "lm_weight" in SCORES[name] else None
        encoded = encode(model, noise, [2500])
        config = SearchConfig(**SCORES[name], max_steps=steps)
        everything = PlainSearch(model, encoded, config, lm).everything()
        for beam in (width, *range(1, 7)):
            n_best = min(beam, 5) if beam == width else 1
            setting = config.model_copy(update={"beam": beam, "n_best": n_best})
            (found,) = beam_search(model, encoded, setting, lm)
            if beam == width:
                assert_same(model, found, everything[:n_best])
            best = found[0]
            if best.finished:
                scores = {model.text.decode(ids): score for ids, score in everything}
                assert best.score == pytest.approx(scores[best.text], rel=1e-4, abs=1e-4)
                assert best.score <= everything[0][1] + 1e-4


configs = st.builds(
    lambda beam, n_best, **rest: SearchConfig(beam=beam, n_best=min(n_best, beam), **rest),
    beam=st.integers(1, 4),
    n_best=st.integers(1, 4),
    ctc=st.sampled_from([0.0, 0.3]),
    lm_weight=st.sampled_from([0.0, 0.5]),
    word_penalty=st.sampled_from([0.0, 0.7]),
    length_power=st.sampled_from([0.0, 0.7, 1.0]),
    length_bonus=st.sampled_from([0.0, 0.5]),
    coverage=st.sampled_from([0.0, 0.5]),
    coverage_threshold=st.sampled_from([0.2, 0.7]),
    end_threshold=st.sampled_from([None, 1.0, 1.5, 3.0]),
    max_back=st.sampled_from([None, 0.0, 0.3]),
    max_ahead=st.sampled_from([None, 0.1, 0.5]),
    no_repeat_ngram=st.sampled_from([0, 0, 1, 2, 3]),
    max_steps=st.sampled_from([2, 6]),
)


@given(configs, st.integers(1, 3000), st.integers(1, 4))
@settings(max_examples=60)
@torch.inference_mode()
def test_any_settings_against_the_plain_search(tiny, noise, config, length, seed):
    model = tiny("A ", seed)
    encoded = encode(model, noise, [length])
    lm = Histories(len(model.text))
    (found,) = beam_search(model, encoded, config, lm)
    plain = PlainSearch(model, encoded, config, lm if config.lm_weight else None)
    assert_same(model, found, plain.run())


CHANGES = {
    "end_threshold": {"end_threshold": 1.0},
    "max_back": {"max_back": 0.1},
    "max_ahead": {"max_ahead": 0.1},
    "ngram": {"no_repeat_ngram": 2},
    "coverage": {"coverage": 1.0},
    "length_power": {"length_power": 1.0},
    "length_bonus": {"length_bonus": 2.0},
    "ctc": {"ctc": 0.5},
    "lm": {"lm_weight": 1.0},
    "word_penalty": {"word_penalty": 1.0},
}


@pytest.mark.parametrize("name", CHANGES)
@torch.inference_mode()
def test_every_setting_changes_results_as_in_the_plain_search(tiny, noise, name):
    changed = 0
    for seed, length in itertools.product((1, 2, 3, 4), (1500, 2500)):
        model = tiny("A " if name == "word_penalty" else "AB", seed)
        lm = Histories(len(model.text)) if name == "lm" else None
        encoded = encode(model, noise, [length])
        config = SearchConfig(beam=3, n_best=2, max_steps=7, **CHANGES[name])
        (found,) = beam_search(model, encoded, config, lm)
        assert_same(model, found, PlainSearch(model, encoded, config, lm).run())
        plain = SearchConfig(beam=3, n_best=2, max_steps=7)
        changed += [h.text for h in found] != [
            h.text for h in beam_search(model, encoded, plain)[0]
        ]
    assert changed


@torch.inference_mode()
def test_limits_that_all_live_hypotheses_exceed_are_lifted(tiny, noise):
    for seed, length in itertools.product((1, 2, 3, 4), (1500, 2500)):
        model = tiny("AB", seed)
        encoded = encode(model, noise, [length])
        for move in (0.0, 0.01, 0.05):  # while most beams are still unused
            config = SearchConfig(beam=12, n_best=2, max_steps=4, max_back=move, max_ahead=move)
            (found,) = beam_search(model, encoded, config)
            assert_same(model, found, PlainSearch(model, encoded, config).run())


# --- batches --------------------------------------------------------------------------------

EVERYTHING = SearchConfig(
    beam=4,
    n_best=3,
    ctc=0.3,
    lm_weight=0.4,
    length_power=0.6,
    length_bonus=0.2,
    coverage=0.1,
    end_threshold=1.5,
    max_back=1.5,
    max_ahead=4.0,
    no_repeat_ngram=4,
)


@pytest.mark.parametrize(
    "config", [SearchConfig(beam=3, n_best=2), EVERYTHING], ids=["plain", "all"]
)
@given(lengths=st.lists(st.integers(1, 9000), min_size=2, max_size=4), extra=st.integers(0, 3000))
@settings(max_examples=12)
@torch.inference_mode()
def test_a_batch_its_order_and_its_padding_change_nothing(tiny, noise, config, lengths, extra):
    model = tiny(" 'ABC", 3)
    lm = Histories(len(model.text))
    waveforms, samples = noise(lengths, extra)
    together = search(model, model.encode(waveforms, samples), config, lm)
    turned = search(model, model.encode(waveforms.flip(0), samples.flip(0)), config, lm)[::-1]
    for row, length in enumerate(lengths):
        single = model.encode(waveforms[row : row + 1, :length], samples[row : row + 1])
        (alone,) = search(model, single, config, lm)
        for other in (together[row], turned[row]):
            assert [h.text for h in other] == [h.text for h in alone]
            assert [h.finished for h in other] == [h.finished for h in alone]
            for a, b in zip(other, alone, strict=True):
                assert a.score == pytest.approx(b.score, rel=1e-3, abs=1e-3)
                torch.testing.assert_close(a.alignment, b.alignment, rtol=0, atol=1e-3)


def test_the_batches_under_test_are_varied(tiny, noise):
    model = tiny(" 'ABC", 3)
    encoded = encode(model, noise, [9000, 500, 3000, 7000, 1])
    found = search(model, encoded, EVERYTHING, Histories(len(model.text)))
    assert len({hypotheses[0].text for hypotheses in found}) >= 3
    assert all(len({h.text for h in hypotheses}) == len(hypotheses) for hypotheses in found)


# --- beam 1 is greedy -----------------------------------------------------------------------


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=4), st.integers(1, 4))
@settings(max_examples=20)
def test_beam_1_is_greedy_to_the_bit(tiny, noise, lengths, seed):
    model = tiny(" 'ABC", seed)
    encoded = encode(model, noise, lengths)
    for (mine,), expected in zip(
        beam_search(model, encoded, SearchConfig()), greedy(model, encoded), strict=True
    ):
        assert (mine.text, mine.score, mine.finished) == (
            expected.text,
            expected.score,
            expected.finished,
        )
        assert torch.equal(mine.alignment, expected.alignment)


# --- details --------------------------------------------------------------------------------


def naive_repeats(written, size, vocabulary):
    blocked = [False] * vocabulary
    for token in range(vocabulary):
        longer = [*written, token]
        gram = longer[len(longer) - size :]
        if len(longer) > size:
            blocked[token] = any(longer[i : i + size] == gram for i in range(len(longer) - size))
    return blocked


@given(st.lists(st.integers(0, 2), max_size=12), st.integers(1, 4))
@settings(max_examples=100)
def test_repeats(written, size):
    # Two hypotheses of different history in one tensor.
    pair = torch.tensor([[written, written[::-1]]], dtype=torch.long).view(1, 2, len(written))
    got = repeats(pair, size, 3)[0].tolist()
    assert got == [naive_repeats(w, size, 3) for w in (written, written[::-1])]


def test_no_ngram_is_written_twice(tiny, noise):
    for seed in (1, 2, 3):
        model = tiny("AB", seed)
        encoded = encode(model, noise, [9000, 5000])
        config = SearchConfig(beam=4, n_best=4, no_repeat_ngram=3, length_bonus=3.0)
        texts_found = [h.text for n in search(model, encoded, config) for h in n]
        assert max(map(len, texts_found)) > 4
        for text in texts_found:
            grams = [text[i : i + 3] for i in range(len(text) - 2)]
            assert len(grams) == len(set(grams))


class Forbidding(Histories):
    """Allows nothing at all after the second step."""

    def step(self, state, tokens):
        log_probs, state = super().step(state, tokens)
        return torch.full_like(log_probs, NEVER), state


def test_a_language_model_that_forbids_everything_gives_an_empty_text(tiny, noise):
    model = tiny("AB", 1)
    encoded = encode(model, noise, [2000, 4000])
    for hypotheses in search(model, encoded, SearchConfig(beam=2), Forbidding(len(model.text))):
        (hypothesis,) = hypotheses
        assert (hypothesis.text, hypothesis.score, hypothesis.finished) == ("", NEVER, False)
        assert hypothesis.alignment.shape[0] == 0


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_an_utterance_stops_when_nothing_can_beat_its_pool(tiny_config, noise, monkeypatch, power):
    model = make(tiny_config, "AB", 1)
    with torch.no_grad():
        model.speller.output.bias[EOS] = 300.0
    encoded = encode(model, noise, [9000, 2000])
    steps = []
    step = model.speller.step
    monkeypatch.setattr(model.speller, "step", lambda *a: steps.append(0) or step(*a))
    for hypotheses in search(model, encoded, SearchConfig(beam=3, length_power=power)):
        assert hypotheses[0].text == ""
    assert len(steps) == 1


def test_memory_is_stored_once_an_utterance(tiny, noise, monkeypatch):
    model = tiny("AB", 1)
    encoded = encode(model, noise, [2000, 4000])
    seen = []
    step = model.speller.step

    def spy(memory, state, tokens):
        seen.append((memory.keys.shape[0], tuple(tokens.shape)))
        return step(memory, state, tokens)

    monkeypatch.setattr(model.speller, "step", spy)
    search(model, encoded, SearchConfig(beam=6))
    assert set(seen) == {(2, (2, 6))}


def test_more_hypotheses_than_beams_are_refused():
    with pytest.raises(ValueError, match="n_best 3 is more than beam 2"):
        SearchConfig(beam=2, n_best=3)


@given(
    lengths=st.lists(st.integers(1, 9000), min_size=1, max_size=3),
    beam=st.integers(1, 4),
    ctc=st.sampled_from([0.0, 0.4]),
    max_steps=st.sampled_from([None, 2]),
    seed=st.integers(1, 4),
)
@settings(max_examples=20)
@torch.inference_mode()
def test_ids_and_log_probs_are_the_spellers_own(tiny, noise, lengths, beam, ctc, max_steps, seed):
    model = tiny("AB", seed)
    encoded = encode(model, noise, lengths)
    config = SearchConfig(beam=beam, n_best=beam, ctc=ctc, max_steps=max_steps)
    lm = Histories(len(model.text))
    for row, found in enumerate(search(model, encoded, config, lm)):
        own = model.encode(*noise(lengths))
        memory = type(own.memory)(*(x[row : row + 1] for x in own.memory))
        for hypothesis in found:
            ids = hypothesis.ids
            assert hypothesis.text == model.text.decode(ids.tolist())
            assert hypothesis.finished == (len(ids) > 0 and int(ids[-1]) == EOS)
            if len(ids) == 0:
                continue
            inputs = torch.cat([torch.tensor([EOS]), ids[:-1]])[None]
            logits, _ = model.speller(memory, inputs)
            expected = logits[0].log_softmax(-1).gather(1, ids[:, None])[:, 0]
            torch.testing.assert_close(hypothesis.log_probs, expected, atol=1e-4, rtol=1e-4)
