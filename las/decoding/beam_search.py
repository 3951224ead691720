"""Beam search over [utterance, beam] as tensor operations; the memory is stored once an utterance.

A step scores every extension of every hypothesis, takes one top-k of them, and reorders the
states. Of the best 2N candidates of an utterance, ends of sentence among the first N are finished
hypotheses, and the first N others stay active (the rule of fairseq; at N = 1 it is greedy search).
An utterance is done when no active hypothesis can become one of its best finished ones.
"""

import torch
from torch import Tensor

from las.config import SearchConfig
from las.decoding import constraints
from las.decoding.beam_state import (
    NEG_INF,
    Active,
    Ended,
    StepRecord,
    add_ended,
    backtrace,
    flat_rows,
    merge,
    select,
    take,
)
from las.decoding.ctc_prefix_score import CTCPrefixScorer
from las.decoding.hypothesis import Hypothesis, LanguageModel, split_lm
from las.model.las import LAS, Encoded
from las.text.characters import BLANK, EOS
from las_kernels import State

EXTRA_STEPS = 10
"""Steps that a search may take beyond the frames of the CTC head."""


def step_limits(encoded: Encoded, config: SearchConfig | None = None) -> Tensor:
    """The most steps for each utterance of a batch [B].

    One for each frame of the CTC head (40 or 20 ms) and ten more: speech never has so many
    characters, so that only a loop is cut off.
    """
    limits = encoded.ctc_lengths + EXTRA_STEPS
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
    return _BeamSearch(model, encoded, config, lm).run()


class _BeamSearch:
    """The search of one batch."""

    def __init__(
        self, model: LAS, encoded: Encoded, config: SearchConfig, lm: LanguageModel | None
    ) -> None:
        self.model, self.encoded, self.config = model, encoded, config
        characters, words = split_lm(lm)
        self.lm = characters if config.lm_weight > 0 else None
        self.words = words if config.word_weight > 0 else None
        self.limits = step_limits(encoded, config)
        self.last_steps = set(self.limits.tolist())
        # The length normalisation and bonus at an utterance's limit; see `_bound`.
        self.limit_divisor = self.limits[:, None] ** config.length_power
        self.limit_bonus = config.length_bonus * (self.limits[:, None] - 1)
        # Skipping work where no hypothesis ends pays on a CPU; not asking avoids a device
        # synchronisation on a GPU.
        self.checks_ends = self.limits.device.type == "cpu"
        self.any_finished = not self.checks_ends
        self.ctc = None
        if config.ctc > 0:
            self.ctc = CTCPrefixScorer(encoded.ctc, encoded.ctc_lengths)
        self.word_penalty = None  # [V]
        if config.word_penalty > 0:
            spaces = [float(" " in model.text.symbol(i)) for i in range(len(model.text))]
            self.word_penalty = config.word_penalty * encoded.ctc.new_tensor(spaces)
        self.records: list[StepRecord] = []

    def run(self) -> list[list[Hypothesis]]:
        active = self._start()
        none = active.tokens.new_zeros(active.total.shape)
        cut = Ended(torch.full_like(active.total, NEG_INF), none, none, none, active.summed)
        finished = Ended(*(x[:, : self.config.n_best] for x in cut))
        while bool((active.total > NEG_INF).any()):
            active, finished, cut = self._step(active, finished, cut)
        return self._hypotheses(merge(finished, cut, self.config.n_best))

    def _start(self) -> Active:
        config = self.config
        memory = self.encoded.memory
        B, T, _ = memory.keys.shape
        N = config.beam
        total = self.encoded.ctc.new_full((B, N), NEG_INF)
        total[:, 0] = 0.0  # all beams are equal: one is enough
        return Active(
            total=total,
            summed=torch.zeros_like(total) if self.ctc is not None else total,
            tokens=self.limits.new_full((B, N), EOS),
            state=self.model.speller.start(memory, N),
            ctc=self.ctc.start(N) if self.ctc is not None else None,
            lm=self.lm.start(B, N) if self.lm is not None else None,
            words=self.words.start(B, N) if self.words is not None else None,
            covered=total.new_zeros(B, N, T) if config.coverage > 0 else None,
            centre=None,
            history=self.limits.new_zeros(B, N, 0) if config.no_repeat_ngram else None,
        )

    def _step(self, active: Active, finished: Ended, cut: Ended) -> tuple[Active, Ended, Ended]:
        config, N = self.config, self.config.beam
        step = len(self.records)  # characters of the active hypotheses
        logits, state = self.model.speller.step(self.encoded.memory, active.state, active.tokens)
        attention = logits.float().log_softmax(-1)
        V = attention.shape[-1]
        weighted = attention if config.ctc == 0 else (1 - config.ctc) * attention
        summed, lm, words = active.summed[..., None] + weighted, active.lm, active.words
        if self.lm is not None:
            log_probs, lm = self.lm.step(lm, active.tokens)
            summed = summed + config.lm_weight * log_probs
        if self.words is not None:
            scores, words = self.words.step(words, active.tokens, config.unknown_word)
            summed = summed + config.word_weight * scores
        if self.word_penalty is not None:
            summed = summed - self.word_penalty
        total = summed
        if self.ctc is not None and active.ctc is not None:
            total = summed + config.ctc * self.ctc.score(active.ctc).to(summed.dtype)
            total = total.masked_fill((active.total == NEG_INF)[..., None], NEG_INF)
        total[..., BLANK] = NEG_INF
        if active.history is not None:
            repeated = constraints.repeated_ngrams(active.history, config.no_repeat_ngram, V)
            total = total.masked_fill(repeated, NEG_INF)
        if config.end_threshold is not None:
            constraints.apply_end_threshold(total, attention, config.end_threshold)
        covered = centre = None
        if active.covered is not None:
            covered = active.covered + _mean_attention(state)
        uncovered = self._uncovered_cost(covered)
        if config.max_back is not None or config.max_ahead is not None:
            mean = _mean_attention(state)
            centre = (mean * torch.arange(mean.shape[-1], device=mean.device)).sum(-1)
            if active.centre is not None:
                moves = centre - active.centre
                total = constraints.limit_moves(total, moves, config.max_back, config.max_ahead)

        ranked = total if uncovered is None else total - uncovered[..., None]
        totals, choice = ranked.flatten(1).topk(2 * N, 1)
        beams, tokens = choice // V, choice % V
        if uncovered is not None:
            totals = total.flatten(1).gather(1, choice)
        log_probs = attention.flatten(1).gather(1, choice)
        ends = tokens == EOS
        if not self.checks_ends or bool(ends.any()):
            self.any_finished = True
            scores = totals[:, :N].masked_fill(~ends[:, :N], NEG_INF)
            first = beams[:, :N], tokens[:, :N], log_probs[:, :N]
            finished = add_ended(finished, self._ended(scores, *first, uncovered, step))
            # Those that stay active, in their order.
            order = ends.int().argsort(dim=1, stable=True)[:, :N]
            totals = totals.masked_fill(ends, NEG_INF)
            beams, tokens, log_probs, totals = (
                x.gather(1, order) for x in (beams, tokens, log_probs, totals)
            )
        else:
            beams, tokens, log_probs, totals = (
                x[:, :N] for x in (beams, tokens, log_probs, totals)
            )
        tokens = tokens.masked_fill(totals == NEG_INF, EOS)  # an unused beam may hold a blank
        self.records.append(StepRecord(beams, tokens, log_probs, state.alignment))
        # Done is what has reached the limit, or can no longer be among the best finished ones.
        done = self._bound(totals) <= finished.score[:, -1:] if self.any_finished else None
        if step + 1 in self.last_steps:
            last = (self.limits == step + 1)[:, None]
            scores = totals.masked_fill(~last, NEG_INF)
            cut = add_ended(cut, self._ended(scores, beams, tokens, log_probs, uncovered, step))
            done = last if done is None else done | last
        if done is not None:
            totals = totals.masked_fill(done, NEG_INF)
        if self.ctc is not None:
            summed = summed.flatten(1).gather(1, beams * V + tokens)
        chosen = flat_rows(beams)
        return (
            Active(
                total=totals,
                summed=summed if self.ctc is not None else totals,
                tokens=tokens,
                state=State(*(take(x, chosen) for x in state)),
                ctc=self.ctc.extend(active.ctc, beams, tokens)
                if self.ctc is not None and active.ctc is not None
                else None,
                lm=self.lm.select(lm, beams) if self.lm is not None else None,
                words=self.words.select(words, beams) if self.words is not None else None,
                covered=select(covered, beams) if covered is not None else None,
                centre=centre.gather(1, beams) if centre is not None else None,
                history=torch.cat([select(active.history, beams), tokens[..., None]], -1)
                if active.history is not None
                else None,
            ),
            finished,
            cut,
        )

    def _uncovered_cost(self, covered: Tensor | None) -> Tensor | None:
        """Cost of the frames that hypotheses have not attended to, [B, N]."""
        if covered is None:
            return None
        count = (covered > self.config.coverage_threshold).sum(-1)
        return self.config.coverage * (self.encoded.memory.lengths[:, None] - count)

    def _ended(
        self,
        totals: Tensor,
        beams: Tensor,
        tokens: Tensor,
        log_probs: Tensor,
        uncovered: Tensor | None,
        step: int,
    ) -> Ended:
        """Extensions [B, M] of a step as ended hypotheses, with their final scores."""
        config = self.config
        scores = totals / (step + 1) ** config.length_power
        if config.length_bonus:
            scores = scores + config.length_bonus * (step + (tokens != EOS))
        if uncovered is not None:
            scores = scores - uncovered.gather(1, beams)
        return Ended(scores, torch.full_like(beams, step), beams, tokens, log_probs)

    def _bound(self, totals: Tensor) -> Tensor:
        """Upper bound of the scores of all finished extensions of hypotheses [B, N].

        Log-probabilities are at most zero, normalisation helps most at the limit, and coverage
        costs nothing at best.
        """
        return totals / self.limit_divisor + self.limit_bonus

    def _hypotheses(self, ended: Ended) -> list[list[Hypothesis]]:
        """Texts and alignments of the hypotheses of each utterance."""
        found = backtrace(ended, self.records)
        ids, log_probs, attention = found[0].cpu(), found[1].cpu(), found[2].float().cpu()
        scores, lengths = ended.score.tolist(), (ended.step + 1).tolist()
        frames = self.encoded.memory.lengths.tolist()
        results = []
        for row, valid in enumerate(frames):
            hypotheses = [
                Hypothesis.from_ids(
                    self.model.text,
                    ids[row, n, :length],
                    scores[row][n],
                    bool(ids[row, n, length - 1] == EOS),
                    attention[row, n, :length, :, :valid],
                    log_probs[row, n, :length],
                )
                for n, length in enumerate(lengths[row])
                if scores[row][n] > NEG_INF
            ]
            empty = Hypothesis(
                "",
                NEG_INF,
                False,
                attention[row, 0, :0, :, :valid],
                ids[row, 0, :0],
                log_probs[row, 0, :0],
            )
            results.append(hypotheses or [empty])  # a language model may forbid everything
        return results


def _mean_attention(state: State) -> Tensor:
    """Mean attention over the heads of a step [B, N, T]."""
    return state.alignment.mean(2).float()
