"""Perplexity of a word model on a text."""

import math
from typing import NamedTuple

import numpy as np
import torch

from las.lm.corpus import Sentences
from las.lm.word_ngram import UNKNOWN, WordModel, hash_spans
from las.text.characters import EOS


class WordPerplexity(NamedTuple):
    """Perplexity of a text. Ends of sentence are predicted, and counted, like words."""

    nats: float
    sentences: int
    words: int
    unknown: int  # words outside the vocabulary, which have the probability of `<unk>`

    @property
    def per_word(self) -> float:
        """Perplexity over words and ends of sentence."""
        return math.exp(self.nats / (self.words + self.sentences))

    def __str__(self) -> str:
        share = self.unknown / max(1, self.words)
        return f"perplexity {self.per_word:.1f} per word, {share:.2%} of the words unknown"


@torch.no_grad()
def measure(model: WordModel, sentences: Sentences) -> WordPerplexity:
    """Perplexity of sentences, computed as one batch."""
    ids = np.insert(sentences.ids, sentences.offsets[1:], EOS)
    breaks = np.flatnonzero((ids == sentences.space) | (ids == EOS))
    starts = np.concatenate([[0], breaks[:-1] + 1])
    sentence = np.cumsum(ids[breaks] == EOS) - (ids[breaks] == EOS)
    real = breaks > starts
    starts, breaks, sentence = starts[real], breaks[real], sentence[real]
    words = model.find(torch.from_numpy(hash_spans(ids, starts, breaks - starts)))
    sizes = np.bincount(sentence, minlength=len(sentences))
    place = np.arange(len(sentence)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    table = torch.ones(len(sentences), int(sizes.max(initial=0)) + 1, dtype=torch.long)  # ends
    table[torch.from_numpy(sentence), torch.from_numpy(place)] = words
    nats = 0.0
    nodes = model.start(len(sentences), 1).nodes[:, 0]
    for step in range(table.shape[1]):
        log_probs, nodes = model.read(nodes, table[:, step])
        nats -= float(log_probs[torch.from_numpy(sizes >= step)].double().sum())
    return WordPerplexity(nats, len(sentences), len(words), int((words == UNKNOWN).sum()))
