"""A search of lists and loops, as its definition reads, and random models to compare it on."""

import itertools
import math
from typing import NamedTuple

import pytest
import torch

from las.model.las import LAS, Encoded
from las.text.characters import BLANK, EOS
from tests.decoding.test_ctc_prefix_score import log, texts

NEG_INF = -math.inf


class HistoryLM:
    """A language model whose probabilities depend on the whole prefix and its order."""

    def __init__(self, vocabulary: int, states: int = 11):
        generator = torch.Generator().manual_seed(5)
        table = (2 * torch.randn(states, vocabulary, generator=generator)).log_softmax(-1)
        table[:, BLANK] = NEG_INF
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


@torch.inference_mode()
def encode(model, noise, lengths, extra=0) -> Encoded:
    return model.encode(*noise(lengths, extra))


class Partial(NamedTuple):
    ids: tuple
    summed: float
    total: float
    state: object
    lm: object
    covered: torch.Tensor
    centre: float | None


class ReferenceSearch:
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

    def start(self) -> Partial:
        lm = self.lm.start(1, 1) if self.lm is not None else None
        state = self.model.speller.start(self.encoded.memory)
        return Partial((), 0.0, 0.0, state, lm, torch.zeros(self.frames), None)

    def extend(self, hypothesis: Partial) -> list[Partial]:
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
            if total > NEG_INF and not repeated:
                covered = hypothesis.covered + mean
                found.append(Partial(ids, summed, total, state, lm, covered, centre))
        others = [attention[h.ids[-1]] for h in found if h.ids[-1] != EOS]
        if config.end_threshold is not None and others:
            bar = config.end_threshold * max(others)
            found = [h for h in found if h.ids[-1] != EOS or attention[EOS] > bar]
        return found

    def moved_too_far(self, before: Partial, after: list[Partial]) -> bool:
        if before.centre is None:
            return False
        move = after[0].centre - before.centre
        back, ahead = self.config.max_back, self.config.max_ahead
        return (back is not None and move < -back) or (ahead is not None and move > ahead)

    def uncovered(self, hypothesis: Partial) -> float:
        return sum(float(c) <= self.config.coverage_threshold for c in hypothesis.covered)

    def score(self, h: Partial) -> float:
        config = self.config
        characters = len(h.ids) - (h.ids[-1] == EOS)
        score = h.total / len(h.ids) ** config.length_power
        return score + config.length_bonus * characters - config.coverage * self.uncovered(h)

    def run(self) -> list[tuple[tuple, float]]:
        config, N = self.config, self.config.beam
        active, finished, cut = [self.start()], [], []
        for step in range(self.limit):
            groups = [(h, self.extend(h)) for h in active]
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
            finished += [h for h in candidates[:N] if h.ids[-1] == EOS]
            finished = sorted(finished, key=self.score, reverse=True)[: config.n_best]
            active = [h for h in candidates if h.ids[-1] != EOS][:N]
            if step == self.limit - 1:
                cut = sorted(active, key=self.score, reverse=True)
            worst = self.score(finished[-1]) if len(finished) == config.n_best else NEG_INF
            active = [h for h in active if self.bound(h) > worst]
        return [(h.ids, self.score(h)) for h in (finished + cut)[: config.n_best]]

    def bound(self, h: Partial) -> float:
        bonus = self.config.length_bonus * (self.limit - 1)
        return h.total / self.limit**self.config.length_power + bonus

    def everything(self) -> list[tuple[tuple, float]]:
        """All hypotheses that end within the limit, best first."""
        ended, active = [], [self.start()]
        for _ in range(self.limit):
            found = list(itertools.chain(*map(self.extend, active)))
            ended += [h for h in found if h.ids[-1] == EOS]
            active = [h for h in found if h.ids[-1] != EOS]
        return sorted(((h.ids, self.score(h)) for h in ended), key=lambda pair: -pair[1])


def assert_same(model, found, expected):
    assert [h.text for h in found] == [model.text.decode(ids) for ids, _ in expected]
    assert [h.finished for h in found] == [ids[-1] == EOS for ids, _ in expected]
    assert [len(h.alignment) for h in found] == [len(ids) for ids, _ in expected]
    for hypothesis, (_, score) in zip(found, expected, strict=True):
        assert hypothesis.score == pytest.approx(score, rel=1e-4, abs=1e-4)
