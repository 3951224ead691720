"""The speller: an LSTM decoder with attention, one token a step or a whole sequence at once.

The recurrence of a sequence is one call of ``las_kernels``. Everything random (dropout, scheduled
sampling) is drawn before it, so that it can be one fused operator.
"""

import math

import torch
from torch import Tensor, nn

import las_kernels
from las.config import AttentionConfig, SpellerConfig
from las.model.attention import Attention
from las.text.characters import BLANK, EOS
from las_kernels import Decoder, Masks, Memory, State
from las_kernels.backends import PERSISTENT, choose
from las_kernels.cpu import attention_step as cpu_step
from las_kernels.cpu import prepacked
from las_kernels.cuda import persistent_decoder


class Speller(nn.Module):
    """Attention LSTM decoder with input feeding (Luong et al. 2015).

    A step reads the embedding of the last token and the last context, updates the LSTM layers,
    attends with the state of the last layer, and predicts from that state and the new context.

    Args:
        vocabulary: number of ids.
        memory_width: width of the listener's output.
        config: sizes.
        attention: kind and sizes of the attention.
    """

    def __init__(
        self,
        vocabulary: int,
        memory_width: int,
        config: SpellerConfig,
        attention: AttentionConfig,
    ) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embedding = nn.Embedding(vocabulary, config.embedding)
        self.attend = Attention(width, memory_width, attention)

        def weight(fan_in: int) -> nn.Parameter:
            bound = 1 / math.sqrt(width)
            return nn.Parameter(torch.empty(4 * width, fan_in).uniform_(-bound, bound))

        def bias() -> nn.Parameter:
            start = torch.zeros(4 * width)
            start[width : 2 * width] = 1.0  # open forget gates
            return nn.Parameter(start)

        self.embedding_weight = weight(config.embedding)
        self.context_weight = weight(memory_width)
        self.input_weights = nn.ParameterList(weight(width) for _ in range(config.layers - 1))
        self.recurrent_weights = nn.ParameterList(weight(width) for _ in range(config.layers))
        self.biases = nn.ParameterList(bias() for _ in range(config.layers))
        self.readout = nn.Linear(width + memory_width, width)
        self.output = nn.Linear(width, vocabulary)
        self._prepared: _PackedSpeller | None = None

    def decoder(self) -> Decoder:
        """The recurrent weights for ``las_kernels``."""
        return Decoder(
            self.embedding_weight,
            self.context_weight,
            list(self.input_weights),
            list(self.recurrent_weights),
            list(self.biases),
            self.attend.query.weight,
        )

    def forward(
        self, memory: Memory, inputs: Tensor, sampling: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Teacher-forced pass.

        Args:
            memory: the encoded utterances.
            inputs: [B, U] input token of each step; the first is the end of sentence.
            sampling: share of the inputs to replace by the model's own predictions, which come
                from a first pass without gradient (Mihaylova & Martins 2019).

        Returns:
            logits [B, U, V] and alignments [B, U, H, T].
        """
        masks = self._masks(memory)
        if sampling > 0:
            with torch.no_grad():
                logits = self._decode(memory, inputs, masks)[0]
                logits[..., BLANK] = float("-inf")  # as in search
                predicted = logits.argmax(-1)
            own = torch.cat([inputs[:, :1], predicted[:, :-1]], 1)
            replace = torch.rand(inputs.shape, device=inputs.device) < sampling
            replace[:, 0] = False
            inputs = torch.where(replace, own, inputs)
        return self._decode(memory, inputs, masks)

    def _decode(self, memory: Memory, inputs: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
        outputs, contexts, alignments = las_kernels.decode_sequence(
            self._embed(inputs), memory, self.decoder(), self.attend.score(), masks
        )
        return self._predict(outputs, contexts), alignments

    def start(self, memory: Memory, beams: int = 1) -> State:
        """State before the first step, for ``beams`` hypotheses of each utterance.

        The weights must not change between this and the last step.
        """
        self._prepare(memory)
        return las_kernels.initial_state(memory, self.decoder(), self.attend.score(), beams)

    def step(self, memory: Memory, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        """One step of search.

        Args:
            memory: the encoded utterances, B of them.
            state: state of [B, N] hypotheses.
            tokens: [B, N] last token of each hypothesis; the end of sentence at first.

        Returns:
            logits [B, N, V] and the new state.
        """
        if self._prepared is not None and prepacked.usable(memory):
            return self._prepared.step(memory, state, tokens)
        decoder = self.decoder()
        projected = nn.functional.linear(
            self._embed(tokens), decoder.embedding_weight, decoder.biases[0]
        )
        output, state = las_kernels.decode_step(
            projected, state, memory, decoder, self.attend.score()
        )
        return self._predict(output, state.context), state

    def greedy(self, memory: Memory, limits: Tensor) -> persistent_decoder.Found | None:
        """Greedy search in one kernel launch by the backend ``persistent``; None if it is not used.

        Args:
            memory: the encoded utterances.
            limits: [B] maximum number of steps of each utterance.
        """
        decoder = self.decoder()
        keys = memory.keys
        if choose("auto", keys.device, keys.dtype, "step") != PERSISTENT:
            return None
        if len(decoder.recurrent_weights) != 1 or keys.dtype != self.embedding_weight.dtype:
            return None
        embedded = nn.functional.linear(
            self.embedding.weight, decoder.embedding_weight, decoder.biases[0]
        )
        readout = persistent_decoder.Readout(
            embedded, self.readout.weight, self.readout.bias, self.output.weight, self.output.bias
        )
        score = self.attend.score()
        return persistent_decoder.greedy(
            memory, decoder, score, readout, limits, blank=BLANK, end=EOS
        )

    def train(self, mode: bool = True) -> "Speller":
        """As ``nn.Module.train``; drops packed weights, which training may have changed."""
        self._prepared = None  # fused optimizers do not increment tensor versions
        return super().train(mode)

    def _prepare(self, memory: Memory) -> None:
        """Pack the weights for a search on a CPU, unless they are packed and unchanged."""
        if self.training or not prepacked.usable(memory):
            self._prepared = None
            return
        try:
            # Loading weights in place increments a version.
            key = tuple((x.data_ptr(), x._version) for x in self.parameters())
        except RuntimeError:  # tensors of inference mode have no version
            key = None
        if self._prepared is None or key is None or self._prepared.key != key:
            self._prepared = _PackedSpeller(self, key)

    def _embed(self, tokens: Tensor) -> Tensor:
        return nn.functional.dropout(self.embedding(tokens), self.config.dropout, self.training).to(
            self.embedding_weight.dtype
        )

    def _predict(self, outputs: Tensor, contexts: Tensor) -> Tensor:
        hidden = torch.tanh(self.readout(torch.cat([outputs, contexts], -1)))
        hidden = nn.functional.dropout(hidden, self.config.dropout, self.training)
        return self.output(hidden)

    def _masks(self, memory: Memory) -> Masks:
        """Scaled dropout masks for one pass; none outside training."""
        if not self.training or self.config.dropout == 0:
            return Masks()
        B, _, D = memory.values.shape
        ones = memory.values.new_ones
        hidden = ones(B, self.config.layers, self.config.width)
        drop = nn.functional.dropout
        return Masks(
            drop(hidden, self.config.dropout, True), drop(ones(B, D), self.config.dropout, True)
        )


class _PackedSpeller:
    """A speller's weights packed for the steps of a search on a CPU."""

    def __init__(self, speller: Speller, key: tuple[tuple[int, int], ...] | None) -> None:
        decoder = speller.decoder()
        self.key = key
        self.packed = prepacked.pack(decoder)
        self.score = speller.attend.score()
        with torch.no_grad():
            # Contribution of each token to the gates, [V, 4S].
            self.embedded = nn.functional.linear(
                speller.embedding.weight, decoder.embedding_weight, decoder.biases[0]
            )
        self.readout = cpu_step.panels(speller.readout.weight), speller.readout.bias.detach()
        self.output = cpu_step.panels(speller.output.weight), speller.output.bias.detach()

    def step(self, memory: Memory, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        """:meth:`Speller.step`."""
        projected = self.embedded.index_select(0, tokens.flatten()).view(*tokens.shape, -1)
        output, state = prepacked.decode_step(projected, state, memory, self.packed, self.score)
        read = torch.cat([output, state.context], -1).flatten(0, 1)
        logits = cpu_step.product(cpu_step.product(read, *self.readout).tanh_(), *self.output)
        return logits.view(*tokens.shape, -1), state


def teacher_inputs(tokens: Tensor) -> Tensor:
    """Inputs [B, U+1] of teacher forcing: transcripts [B, U] shifted by one, EOS first."""
    return torch.cat([tokens.new_full((tokens.shape[0], 1), EOS), tokens], 1)
