"""Measuring settings of a search on a dev set that is encoded only once."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet

from las.config import SearchConfig
from las.data.dataset import evaluation_batches
from las.data.manifests import check_alphabet, read_manifest
from las.decoding.hypothesis import LanguageModel
from las.decoding.search import search
from las.errors import LASError
from las.model.las import LAS, Encoded
from las.scoring import wer as scoring
from las.scoring.wer import Utterance


@dataclass(frozen=True, eq=False)
class EncodedBatch:
    """Utterances as the encoder has left them; tensors are on the CPU."""

    ids: list[str]
    texts: list[str]
    encoded: Encoded


@dataclass(frozen=True, eq=False)
class Trial:
    """Settings of a search and their errors on the dev set."""

    config: SearchConfig
    wer: float  # percent
    cer: float  # percent
    errors: np.ndarray  # of words, by utterance [N]
    words: np.ndarray  # of the references [N]
    character_errors: int
    seconds: float  # of search, without the encoder

    @property
    def word_errors(self) -> int:
        """Over all utterances."""
        return int(self.errors.sum())


@torch.inference_mode()
def encode_manifest(
    model: LAS,
    manifest: Path,
    device: torch.device,
    *,
    batch_seconds: float = 60.0,
    batch_utterances: int = 32,
    utterances: int | None = None,
    seed: int = 0,
) -> list[EncodedBatch]:
    """Encode a manifest once for all searches; a minute of speech takes 5 to 10 MB.

    Args:
        model: in evaluation mode.
        manifest: of ``las prepare``.
        device: where the model is.
        batch_seconds: audio in a batch.
        batch_utterances: utterances in a batch, at most.
        utterances: size of a random subset; None takes all.
        seed: of the subset.

    Raises:
        LASError: the manifest or one of its files is not usable.
    """
    cuts = read_manifest(manifest)
    check_alphabet(cuts, model.text, str(manifest))
    if utterances is not None:
        every = list(cuts)
        count = min(utterances, len(every))
        drawn = np.random.default_rng(seed).choice(len(every), count, replace=False)
        cuts = CutSet.from_cuts(every[i] for i in sorted(drawn.tolist()))
    scoring.check(((cut.id, cut.supervisions[0].text) for cut in cuts), manifest)
    batches = []
    for batch in evaluation_batches(
        cuts,
        model.text,
        sample_rate=model.config.frontend.sample_rate,
        batch_seconds=batch_seconds,
        batch_utterances=batch_utterances,
    ):
        if isinstance(batch, LASError):
            raise batch
        encoded = model.encode(batch.waveforms.to(device), batch.samples)
        batches.append(EncodedBatch(batch.ids, batch.texts, _move(encoded, torch.device("cpu"))))
    return batches


def measure(
    model: LAS,
    batches: Iterable[EncodedBatch],
    config: SearchConfig,
    lm: LanguageModel | None = None,
) -> Trial:
    """Search with these settings and score the results.

    Args:
        model: in evaluation mode.
        batches: of :func:`encode_manifest`.
        config: settings of the search.
        lm: a language model, with a word model perhaps; each is used if its weight is above 0.

    Raises:
        LASError: no reference holds a word.
    """
    device = next(model.parameters()).device
    uses_lm = config.lm_weight > 0 or config.word_weight > 0
    recognised: list[Utterance] = []
    start = time.perf_counter()
    for batch in batches:
        hypotheses = search(model, _move(batch.encoded, device), config, lm if uses_lm else None)
        for id, text, best in zip(batch.ids, batch.texts, hypotheses, strict=True):
            recognised.append(Utterance(id, text, best[0].text))
    seconds = time.perf_counter() - start
    score = scoring.score(recognised, bootstrap=1)  # confidence intervals are not needed
    rows: Any = scoring.report_json(recognised, score, texts=False)["utterances"]
    errors = [row["substitutions"] + row["deletions"] + row["insertions"] for row in rows]
    return Trial(
        config=config,
        wer=score.wer,
        cer=score.cer,
        errors=np.array(errors, np.int64),
        words=np.array([row["words"] for row in rows], np.int64),
        character_errors=round(score.cer * score.characters / 100),
        seconds=seconds,
    )


def _move(encoded: Encoded, device: torch.device) -> Encoded:
    return Encoded(
        type(encoded.memory)(*(x.to(device) for x in encoded.memory)),
        encoded.ctc.to(device),
        encoded.ctc_lengths.to(device),
    )
