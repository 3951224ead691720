"""Measures on the dev set during training: WER by greedy search, losses, focus of the attention."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from las.data.dataset import Batch
from las.decoding.greedy import ctc_greedy, greedy
from las.errors import LASError
from las.memory import Pieces
from las.model.las import LAS
from las.scoring.wer import Score, Utterance, score
from las.training.datasets import halves
from las.training.distributed import DistributedGroup

FLAT = 0.05
"""Focus below which attention counts as flat. Partly learnt alignments have 0.1 or more."""


class Picture(NamedTuple):
    """One utterance and its alignment, for a figure."""

    alignment: Tensor  # [U, T] of head 0
    waveform: Tensor  # [S]
    text: str  # of the hypothesis


@dataclass(frozen=True)
class Validation:
    """Measures of a model on a dev set."""

    score: Score
    utterances: list[Utterance]
    attention_loss: float  # nats per character
    ctc_loss: float  # nats per character
    focus: float  # 1 - entropy / log(frames) of the teacher-forced attention: 0 is flat
    picture: Picture | None  # of the longest utterance; None if only CTC was measured

    @property
    def flat(self) -> bool:
        """Whether the attention has learnt no alignment; False if only CTC was measured."""
        return self.picture is not None and self.focus < FLAT


class _Part(NamedTuple):
    """Sums over one batch."""

    utterances: list[Utterance]
    attention: float
    ctc: float
    tokens: int
    characters: int
    focus: float = 0.0
    picture: Picture | None = None


@torch.inference_mode()
def validate(
    model: LAS,
    batches: Iterable[Batch | LASError],
    device: torch.device,
    use_speller: bool = True,
    group: DistributedGroup | None = None,
) -> Validation:
    """Evaluate a model; leaves it in evaluation mode.

    Args:
        model: the model.
        batches: of the dev set; with several processes, those that this one takes in turn.
        device: where the model is.
        use_speller: False, while the speller is not trained, measures greedy CTC instead; the
            loss and focus of the attention are then 0.
        group: processes that share the dev set; all get the same result, which does not depend on
            their number.
    """
    model.eval()
    group = group or DistributedGroup(device)
    parts: list[list[_Part]] = []
    with group.together():
        for batch in batches:
            if isinstance(batch, LASError):
                raise batch
            first = group.first and not parts
            measure = partial(_measure, model, use_speller, first)
            pieces = Pieces(batch.to(device), measure, halves)
            if pieces.left_out:
                (name,) = pieces.left_out[0].ids
                raise LASError(f"dev utterance {name}: out of memory; leave it out of data.dev")
            parts.append(pieces.done)
    shares = group.gather(parts)
    count = max(len(share) for share in shares)
    turns = [share[turn] for turn in range(count) for share in shares if turn < len(share)]
    measured = [part for turn in turns for part in turn]
    utterances = [utterance for part in measured for utterance in part.utterances]
    if not utterances:
        raise LASError("the dev set has no utterance; check data.dev")
    tokens = sum(part.tokens for part in measured)
    return Validation(
        score(utterances, bootstrap=1),
        utterances,
        sum(part.attention for part in measured) / tokens,
        sum(part.ctc for part in measured) / sum(part.characters for part in measured),
        sum(part.focus for part in measured) / tokens,
        measured[0].picture,
    )


def _measure(model: LAS, use_speller: bool, picture: bool, batch: Batch) -> _Part:
    losses = model(
        batch.waveforms, batch.samples, batch.tokens, batch.token_lengths, use_speller=use_speller
    )
    encoded = model.encode(batch.waveforms, batch.samples)
    if use_speller:
        hypotheses = greedy(model, encoded)
        texts = [hypothesis.text for hypothesis in hypotheses]
    else:
        texts = ctc_greedy(model, encoded)
    part = _Part(
        [Utterance(*said) for said in zip(batch.ids, batch.texts, texts, strict=True)],
        float(losses.attention),
        float(losses.ctc),
        int(losses.tokens),
        int(losses.characters),
    )
    if not use_speller:
        return part
    if picture:
        waveform = batch.waveforms[0, : int(batch.samples[0])].cpu()
        part = part._replace(
            picture=Picture(hypotheses[0].alignment[:, 0].cpu(), waveform, hypotheses[0].text)
        )
    lengths = batch.token_lengths.to(batch.waveforms.device)
    return part._replace(focus=_focus(losses.alignments, lengths, encoded.memory.lengths))


def _focus(alignments: Tensor, token_lengths: Tensor, frames: Tensor) -> float:
    """Sum over all steps (characters and ends of sentence) of 1 - entropy / log(frames)."""
    entropy = torch.special.entr(alignments).sum(-1).mean(-1)  # [B, U+1]
    limit = frames.clamp_min(2).log()[:, None]
    steps = torch.arange(alignments.shape[1], device=frames.device)[None] <= token_lengths[:, None]
    return float(((1 - entropy / limit) * steps).sum())
