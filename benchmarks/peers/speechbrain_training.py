"""SpeechBrain's attention decoder in the place of ours, for a training step of the same model."""

# Its modules are found where SpeechBrain is installed alone.
# mypy: disable-error-code="import-not-found"

import torch
from speechbrain.nnet.RNN import AttentionalRNNDecoder
from torch import Tensor, nn

from las.config import AttentionConfig, SpellerConfig
from las_kernels import Memory


class Remember(nn.Module):
    """SpeechBrain projects the keys within its decoder; until then there is nothing to do."""

    def remember(self, encoded: Tensor, lengths: Tensor) -> Memory:
        """The memory [B, T, M] as it is."""
        return Memory(encoded, encoded, lengths)


class SpeechBrainSpeller(nn.Module):
    """A teacher-forced speller of the sizes of ``las.model.speller.Speller``.

    Args:
        vocabulary: number of ids.
        memory_width: width of the listener's output.
        speller: sizes; one layer.
        attention: location-aware or additive, one head.
    """

    def __init__(
        self,
        vocabulary: int,
        memory_width: int,
        speller: SpellerConfig,
        attention: AttentionConfig,
    ) -> None:
        super().__init__()
        if speller.layers != 1 or attention.heads != 1:
            raise ValueError("SpeechBrain's decoder is compared with one layer and one head")
        self.attend = Remember()
        self.embedding = nn.Embedding(vocabulary, speller.embedding)
        self.decoder = AttentionalRNNDecoder(
            rnn_type="lstm",
            attn_type={"location": "location", "additive": "content"}[attention.kind],
            hidden_size=speller.width,
            attn_dim=attention.width,
            num_layers=speller.layers,
            enc_dim=memory_width,
            input_size=speller.embedding,
            channels=attention.channels,
            kernel_size=attention.taps // 2,  # on each side
            dropout=speller.dropout,
        )
        self.output = nn.Linear(speller.width, vocabulary)

    @property
    def embedding_weight(self) -> Tensor:
        """A weight of the precision that the decoder computes in."""
        return self.embedding.weight

    def forward(
        self, memory: Memory, inputs: Tensor, sampling: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Logits [B, U, V] and alignments [B, U, 1, T] from ids [B, U]."""
        if sampling:
            raise ValueError("SpeechBrain's decoder is compared without scheduled sampling")
        shares = memory.lengths / memory.values.shape[1]
        outputs, alignments = self.decoder(self.embedding(inputs), memory.values, shares)
        return self.output(outputs), torch.as_tensor(alignments)[:, :, None]
