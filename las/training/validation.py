"""Measures on the dev set during training: WER by greedy search, losses, focus of the attention."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from las.data.dataset import Batch
from las.decoding.greedy import ctc_greedy, greedy
from las.errors import LASError
from las.model.las import LAS
from las.scoring.wer import Score, Utterance, score

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


@torch.inference_mode()
def validate(
    model: LAS, batches: Iterable[Batch | LASError], device: torch.device, use_speller: bool = True
) -> Validation:
    """Evaluate a model; leaves it in evaluation mode.

    Args:
        model: the model.
        batches: of the dev set.
        device: where the model is.
        use_speller: False, while the speller is not trained, measures greedy CTC instead; the
            loss and focus of the attention are then 0.
    """
    model.eval()
    utterances: list[Utterance] = []
    attention = ctc = focus = 0.0
    tokens = characters = 0
    picture = None
    for batch in batches:
        if isinstance(batch, LASError):
            raise batch
        batch = batch.to(device)
        losses = model(
            batch.waveforms,
            batch.samples,
            batch.tokens,
            batch.token_lengths,
            use_speller=use_speller,
        )
        encoded = model.encode(batch.waveforms, batch.samples)
        attention += float(losses.attention)
        ctc += float(losses.ctc)
        tokens += int(losses.tokens)
        characters += int(losses.characters)
        if not use_speller:
            for id, text, hypothesis_text in zip(
                batch.ids, batch.texts, ctc_greedy(model, encoded), strict=True
            ):
                utterances.append(Utterance(id, text, hypothesis_text))
            continue
        focus += _focus(losses.alignments, batch.token_lengths.to(device), encoded.memory.lengths)
        hypotheses = greedy(model, encoded)
        for id, text, hypothesis in zip(batch.ids, batch.texts, hypotheses, strict=True):
            utterances.append(Utterance(id, text, hypothesis.text))
        if picture is None:
            waveform = batch.waveforms[0, : int(batch.samples[0])].cpu()
            picture = Picture(hypotheses[0].alignment[:, 0], waveform, hypotheses[0].text)
    if not utterances:
        raise LASError("the dev set has no utterance; check data.dev")
    return Validation(
        score(utterances, bootstrap=1),
        utterances,
        attention / tokens,
        ctc / characters,
        focus / tokens,
        picture,
    )


def _focus(alignments: Tensor, token_lengths: Tensor, frames: Tensor) -> float:
    """Sum over all steps (characters and ends of sentence) of 1 - entropy / log(frames)."""
    entropy = torch.special.entr(alignments).sum(-1).mean(-1)  # [B, U+1]
    limit = frames.clamp_min(2).log()[:, None]
    steps = torch.arange(alignments.shape[1], device=frames.device)[None] <= token_lengths[:, None]
    return float(((1 - entropy / limit) * steps).sum())
