"""Beam search over [utterance, beam] as tensor operations; the memory is stored once an utterance.

A step scores every extension of every hypothesis, takes one top-k of them, and reorders the
states. Of the best 2N candidates of an utterance, ends of sentence among the first N go to a pool
of the best finished hypotheses, and the first N others live on (the rule of fairseq; at N = 1 it
is greedy search). An utterance is done when nothing that lives can still enter its pool.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from las.config import SearchConfig
from las.decoding.ctc_prefix_score import CTCPrefixScorer, CTCState
from las.decoding.hypothesis import Hypothesis, LanguageModel, parts
from las.model.las import LAS, Encoded
from las.text.characters import BLANK, EOS
from las_kernels import State

_NEVER = float("-inf")


class _Live(NamedTuple):
    """The hypotheses that may go on; what a setting does not ask for is None."""

    total: Tensor  # [B, N] weighted log-probability, -inf where there is no hypothesis
    summed: Tensor  # [B, N] the part of it that adds up over steps: attention and LMs, or all of it
    tokens: Tensor  # [B, N] last ids
    state: State
    ctc: CTCState | None
    lm: Any
    words: Any
    covered: Tensor | None  # [B, N, T] summed attention
    centre: Tensor | None  # [B, N] of the last step's attention, in frames
    written: Tensor | None  # [B, N, t] all ids


class _Ended(NamedTuple):
    """Hypotheses that go on no more, best first."""

    score: Tensor  # [B, P], -inf where there is none
    step: Tensor  # [B, P] index of their last step
    beam: Tensor  # [B, P] what they extended in that step
    token: Tensor  # [B, P] what they wrote in it
    log_prob: Tensor  # [B, P] the speller's, of that


class _Step(NamedTuple):
    """What of a step is needed to follow a hypothesis back."""

    parents: Tensor  # [B, N] beam before the step
    tokens: Tensor  # [B, N]
    log_probs: Tensor  # [B, N] the speller's, of the tokens
    alignment: Tensor  # [B, N, H, T], by beam before the step


def step_limits(encoded: Encoded, config: SearchConfig | None = None) -> Tensor:
    """Steps that each utterance of a batch may take [B].

    One a frame of the CTC head (40 or 20 ms) and ten more: far beyond what anyone says, so that
    only a loop is cut off.
    """
    limits = encoded.ctc_lengths + 10
    cap = config.max_steps if config is not None else None
    return limits if cap is None else limits.clamp(max=cap)


@torch.inference_mode()
def beam_search(
    model: LAS, encoded: Encoded, config: SearchConfig, lm: LanguageModel | None = None
) -> list[list[Hypothesis]]:
    """The best hypotheses of every utterance by :class:`~las.config.SearchConfig`'s score.

    Hypotheses that ended come before those that the limit of steps cut off.

    Args:
        model: in evaluation mode.
        encoded: the batch.
        config: settings.
        lm: on the same device and vocabulary; used as far as settings weigh it.

    Returns:
        For each utterance 1 to ``n_best`` hypotheses, best first.
    """
    return _Beams(model, encoded, config, lm).run()


class _Beams:
    """One batch under search."""

    def __init__(
        self, model: LAS, encoded: Encoded, config: SearchConfig, lm: LanguageModel | None
    ) -> None:
        self.model, self.encoded, self.config = model, encoded, config
        characters, words = parts(lm)
        self.lm = characters if config.lm_weight > 0 else None
        self.words = words if config.word_weight > 0 else None
        self.limits = step_limits(encoded, config)
        self.last_steps = set(self.limits.tolist())
        # What a score is divided by, and given, at an utterance's limit; see `_bound`.
        self.limit_divisor = self.limits[:, None] ** config.length_power
        self.limit_bonus = config.length_bonus * (self.limits[:, None] - 1)
        # Looking at values makes a GPU wait, and is cheaper than what it may spare on a CPU.
        self.looks = self.limits.device.type == "cpu"
        self.any_ended = not self.looks
        self.ctc = None
        if config.ctc > 0:
            self.ctc = CTCPrefixScorer(encoded.ctc, encoded.ctc_lengths)
        self.spaces = None
        if config.word_penalty > 0:
            begins = [float(" " in model.text.written(i)) for i in range(len(model.text))]
            self.spaces = config.word_penalty * encoded.ctc.new_tensor(begins)
        self.history: list[_Step] = []

    def run(self) -> list[list[Hypothesis]]:
        live = self._start()
        none = live.tokens.new_zeros(live.total.shape)
        cut = _Ended(torch.full_like(live.total, _NEVER), none, none, none, live.summed)
        pool = _Ended(*(x[:, : self.config.n_best] for x in cut))
        while bool((live.total > _NEVER).any()):
            live, pool, cut = self._step(live, pool, cut)
        # Finished ones first; both are in order, and only empty places go to the end.
        merged = _Ended(*(torch.cat(pair, 1) for pair in zip(pool, cut, strict=True)))
        empty = (merged.score == _NEVER).int()
        order = empty.argsort(dim=1, stable=True)[:, : self.config.n_best]
        return self._follow(_Ended(*(x.gather(1, order) for x in merged)))

    def _start(self) -> _Live:
        config = self.config
        memory = self.encoded.memory
        B, T, _ = memory.keys.shape
        N = config.beam
        total = self.encoded.ctc.new_full((B, N), _NEVER)
        total[:, 0] = 0.0  # all beams are the same: one is enough
        return _Live(
            total=total,
            summed=torch.zeros_like(total) if self.ctc is not None else total,
            tokens=self.limits.new_full((B, N), EOS),
            state=self.model.speller.start(memory, N),
            ctc=self.ctc.start(N) if self.ctc is not None else None,
            lm=self.lm.start(B, N) if self.lm is not None else None,
            words=self.words.start(B, N) if self.words is not None else None,
            covered=total.new_zeros(B, N, T) if config.coverage > 0 else None,
            centre=None,
            written=self.limits.new_zeros(B, N, 0) if config.no_repeat_ngram else None,
        )

    def _step(self, live: _Live, pool: _Ended, cut: _Ended) -> tuple[_Live, _Ended, _Ended]:
        config, N = self.config, self.config.beam
        step = len(self.history)  # characters that the live hypotheses have
        logits, state = self.model.speller.step(self.encoded.memory, live.state, live.tokens)
        attention = logits.float().log_softmax(-1)
        V = attention.shape[-1]
        weighted = attention if config.ctc == 0 else (1 - config.ctc) * attention
        summed, lm, words = live.summed[..., None] + weighted, live.lm, live.words
        if self.lm is not None:
            log_probs, lm = self.lm.step(lm, live.tokens)
            summed = summed + config.lm_weight * log_probs
        if self.words is not None:
            scores, words = self.words.step(words, live.tokens, config.unknown_word)
            summed = summed + config.word_weight * scores
        if self.spaces is not None:
            summed = summed - self.spaces
        total = summed
        if self.ctc is not None and live.ctc is not None:
            total = summed + config.ctc * self.ctc.score(live.ctc).to(summed.dtype)
            total = total.masked_fill((live.total == _NEVER)[..., None], _NEVER)
        total[..., BLANK] = _NEVER
        if live.written is not None:
            total = total.masked_fill(repeats(live.written, config.no_repeat_ngram, V), _NEVER)
        if config.end_threshold is not None:
            _withhold_ends(total, attention, config.end_threshold)
        covered = centre = None
        if live.covered is not None:
            covered = live.covered + _over_heads(state)
        uncovered = self._uncovered(covered)
        if config.max_back is not None or config.max_ahead is not None:
            mean = _over_heads(state)
            centre = (mean * torch.arange(mean.shape[-1], device=mean.device)).sum(-1)
            if live.centre is not None:
                total = self._hold(total, centre - live.centre)

        ranked = total if uncovered is None else total - uncovered[..., None]
        totals, choice = ranked.flatten(1).topk(2 * N, 1)
        beams, tokens = choice // V, choice % V
        if uncovered is not None:
            totals = total.flatten(1).gather(1, choice)
        log_probs = attention.flatten(1).gather(1, choice)
        ends = tokens == EOS
        if not self.looks or bool(ends.any()):
            self.any_ended = True
            ended = totals[:, :N].masked_fill(~ends[:, :N], _NEVER)
            first, written, said = beams[:, :N], tokens[:, :N], log_probs[:, :N]
            pool = self._collect(pool, ended, first, written, said, uncovered, step)
            # Those that go on, in their order.
            going = ends.int().argsort(dim=1, stable=True)[:, :N]
            totals = totals.masked_fill(ends, _NEVER)
            beams, tokens, log_probs, totals = (
                x.gather(1, going) for x in (beams, tokens, log_probs, totals)
            )
        else:
            beams, tokens, log_probs, totals = (
                x[:, :N] for x in (beams, tokens, log_probs, totals)
            )
        tokens = tokens.masked_fill(totals == _NEVER, EOS)  # an unused beam may hold a blank
        self.history.append(_Step(beams, tokens, log_probs, state.alignment))
        # Done is who has reached the limit, or cannot enter the pool any more.
        done = self._bound(totals) <= pool.score[:, -1:] if self.any_ended else None
        if step + 1 in self.last_steps:
            last = (self.limits == step + 1)[:, None]
            ended = totals.masked_fill(~last, _NEVER)
            cut = self._collect(cut, ended, beams, tokens, log_probs, uncovered, step)
            done = last if done is None else done | last
        if done is not None:
            totals = totals.masked_fill(done, _NEVER)
        if self.ctc is not None:
            summed = summed.flatten(1).gather(1, beams * V + tokens)
        chosen = flat_rows(beams)
        return (
            _Live(
                total=totals,
                summed=summed if self.ctc is not None else totals,
                tokens=tokens,
                state=State(*(take(x, chosen) for x in state)),
                ctc=self.ctc.extend(live.ctc, beams, tokens)
                if self.ctc is not None and live.ctc is not None
                else None,
                lm=self.lm.select(lm, beams) if self.lm is not None else None,
                words=self.words.select(words, beams) if self.words is not None else None,
                covered=select(covered, beams) if covered is not None else None,
                centre=centre.gather(1, beams) if centre is not None else None,
                written=torch.cat([select(live.written, beams), tokens[..., None]], -1)
                if live.written is not None
                else None,
            ),
            pool,
            cut,
        )

    def _uncovered(self, covered: Tensor | None) -> Tensor | None:
        """Cost of the frames that hypotheses have not attended to, [B, N]."""
        if covered is None:
            return None
        count = (covered > self.config.coverage_threshold).sum(-1)
        return self.config.coverage * (self.encoded.memory.lengths[:, None] - count)

    def _hold(self, total: Tensor, moved: Tensor) -> Tensor:
        """Drop characters [B, N, V] for which attention moved too far, unless it did for all.

        Ends are not held: a model attends anywhere once all is said.
        """
        held = torch.ones_like(moved, dtype=torch.bool)
        if self.config.max_back is not None:
            held &= moved >= -self.config.max_back
        if self.config.max_ahead is not None:
            held &= moved <= self.config.max_ahead
        held &= (total > _NEVER).any(-1)
        dropped = (~held & held.any(1, keepdim=True))[..., None].repeat(1, 1, total.shape[-1])
        dropped[..., EOS] = False
        return total.masked_fill(dropped, _NEVER)

    def _collect(
        self,
        ended: _Ended,
        totals: Tensor,
        beams: Tensor,
        tokens: Tensor,
        log_probs: Tensor,
        uncovered: Tensor | None,
        step: int,
    ) -> _Ended:
        """Put what was written in a step [B, M] into a pool [B, P], which keeps its size."""
        config = self.config
        scores = totals / (step + 1) ** config.length_power
        if config.length_bonus:
            scores = scores + config.length_bonus * (step + (tokens != EOS))
        if uncovered is not None:
            scores = scores - uncovered.gather(1, beams)
        steps = torch.full_like(beams, step)
        size = ended.score.shape[1]
        score, order = torch.cat([ended.score, scores], 1).topk(size, 1)
        rest = zip(ended[1:], (steps, beams, tokens, log_probs), strict=True)
        return _Ended(score, *(torch.cat(pair, 1).gather(1, order) for pair in rest))

    def _bound(self, totals: Tensor) -> Tensor:
        """No finished extension of hypotheses [B, N] scores higher.

        Log-probabilities are at most zero, normalisation helps most at the limit, and coverage
        costs nothing at best.
        """
        return totals / self.limit_divisor + self.limit_bonus

    def _follow(self, ended: _Ended) -> list[list[Hypothesis]]:
        """Texts and alignments of hypotheses, followed back from their ends."""
        beam = ended.beam
        tokens, chosen, alignments = [], [], []
        for step in range(len(self.history) - 1, -1, -1):
            record = self.history[step]
            before = step < ended.step
            token = torch.where(before, record.tokens.gather(1, beam), ended.token)
            chosen.append(torch.where(before, record.log_probs.gather(1, beam), ended.log_prob))
            beam = torch.where(before, record.parents.gather(1, beam), beam)
            tokens.append(token)
            alignments.append(select(record.alignment, beam))
        ids = torch.stack(tokens[::-1], -1).cpu()
        log_probs = torch.stack(chosen[::-1], -1).cpu()
        attention = torch.stack(alignments[::-1], 2).float().cpu()
        scores, lengths = ended.score.tolist(), (ended.step + 1).tolist()
        frames = self.encoded.memory.lengths.tolist()
        results = []
        for row, valid in enumerate(frames):
            found = [
                Hypothesis.of(
                    self.model.text,
                    ids[row, n, :length],
                    scores[row][n],
                    bool(ids[row, n, length - 1] == EOS),
                    attention[row, n, :length, :, :valid],
                    log_probs[row, n, :length],
                )
                for n, length in enumerate(lengths[row])
                if scores[row][n] > _NEVER
            ]
            nothing = Hypothesis(
                "",
                _NEVER,
                False,
                attention[row, 0, :0, :, :valid],
                ids[row, 0, :0],
                log_probs[row, 0, :0],
            )
            results.append(found or [nothing])  # a language model may forbid everything
        return results


def select(values: Tensor, index: Tensor) -> Tensor:
    """Reorder the beams of [B, N, ...]: hypothesis n of utterance b becomes ``index[b, n]``."""
    size = values.shape[1]
    chosen = values.flatten(0, 1).index_select(0, flat_rows(index, size))
    return chosen.view(*index.shape, *values.shape[2:])


def flat_rows(index: Tensor, size: int | None = None) -> Tensor:
    """What ``index`` [B, P] into [B, N] is into [B * N]; N is ``size``, or P."""
    B, P = index.shape
    size = size or P
    return (torch.arange(0, B * size, size, device=index.device)[:, None] + index).flatten()


def take(values: Tensor, rows: Tensor) -> Tensor:
    """As :func:`select`, by the rows of [B * N] as many as there were."""
    return values.flatten(0, 1).index_select(0, rows).view_as(values)


def _over_heads(state: State) -> Tensor:
    """Mean attention of a step [B, N, T]."""
    return state.alignment.mean(2).float()


def repeats(written: Tensor, size: int, vocabulary: int) -> Tensor:
    """Which ids [B, N, V] would write a sequence of ``size`` ids of [B, N, t] a second time."""
    B, N, steps = written.shape
    blocked = torch.zeros(B, N, vocabulary, dtype=torch.bool, device=written.device)
    if steps < size:
        return blocked
    windows = written.unfold(-1, size, 1)  # [B, N, t-size+1, size]
    ending = written[..., None, steps - size + 1 :]
    same = (windows[..., :-1] == ending).all(-1)
    return blocked.int().scatter_add_(-1, windows[..., -1], same.int()).bool()


def _withhold_ends(total: Tensor, attention: Tensor, threshold: float) -> None:
    """Drop, in place, ends that are not likelier than the best character that may be written.

    The end-of-sentence threshold of Hannun et al. (2019). Log-probabilities are negative: the
    higher it is, the easier is an end.
    """
    others = attention.masked_fill(total == _NEVER, _NEVER)
    others[..., EOS] = _NEVER
    early = attention[..., EOS] <= threshold * others.amax(-1)
    total[..., EOS].masked_fill_(early, _NEVER)
