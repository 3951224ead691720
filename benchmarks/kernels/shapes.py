"""Shapes to measure: LibriSpeech's lengths, and a regular grid.

Letters as in ``las_kernels.reference``: B utterances, N beams, T frames, U steps, A and D widths
of keys and values, H heads, C channels and W taps of the location filter, S width of the LSTM.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from las_kernels import Decoder, Memory, Score

# Seconds at the 0th, 5th, .. 100th percentile of train-clean-5's 1519 utterances, measured. The
# other train-clean parts were cut by the same rules, so it stands for them, approximately.
LIBRISPEECH_SECONDS = (
    1.87, 4.07, 6.32, 8.63, 10.0, 11.34, 12.26, 12.73, 13.21, 13.63, 13.92,
    14.21, 14.49, 14.7, 14.93, 15.17, 15.37, 15.53, 15.78, 16.05, 17.27,
)  # fmt: skip
FRAMES_PER_SECOND = 12.5  # 10 ms frames through a pyramid that keeps every eighth


class Case(NamedTuple):
    """One shape to measure. Without lengths every utterance has T frames."""

    name: str
    B: int
    T: int
    A: int
    D: int
    N: int = 1
    H: int = 1
    C: int = 10
    W: int = 201
    U: int = 1
    S: int = 1024
    lengths: tuple[int, ...] = ()
    trains: bool = True  # whether there is a backward to measure
    dtype: torch.dtype = torch.bfloat16
    kinds: tuple[str, ...] = ("additive", "location", "dot")

    @property
    def frames(self) -> int:
        """Valid frames of the batch."""
        return sum(self.lengths) if self.lengths else self.B * self.T


def librispeech(batch: int) -> tuple[int, ...]:
    """Frames of a batch that follows the distribution, longest first."""
    table = torch.tensor(LIBRISPEECH_SECONDS, dtype=torch.float64)
    at = (torch.arange(batch, dtype=torch.float64) + 0.5) / batch * (len(table) - 1)
    low = at.floor().long()
    seconds = torch.lerp(table[low], table[low + 1], at - low)
    frames = (seconds * FRAMES_PER_SECOND).ceil().long()
    return tuple(sorted(frames.tolist(), reverse=True))


def random_inputs(
    case: Case, kind: str, device: torch.device, seed: int = 0
) -> tuple[Tensor, Memory, Score, Tensor]:
    """Query, memory, score ("additive", "location" or "dot") and previous alignment."""
    generator = torch.Generator(device).manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        x = torch.randn(shape, generator=generator, device=device)
        return x.to(case.dtype)

    lengths = torch.tensor(case.lengths or (case.T,) * case.B, device=device)
    memory = Memory(draw(case.B, case.T, case.A), draw(case.B, case.T, case.D), lengths)
    scale = (case.A // case.H) ** -0.5
    score = Score(heads=case.H, scale=scale)
    if kind != "dot":
        score = score._replace(v=draw(case.A) * scale)
    if kind == "location":
        score = score._replace(filters=draw(case.C, case.W), projection=draw(case.A, case.C))
    valid = torch.arange(case.T, device=device) < lengths[:, None, None, None]
    energy = draw(case.B, case.N, case.H, case.T).float().masked_fill(~valid, -torch.inf)
    return draw(case.B, case.N, case.A), memory, score, energy.softmax(-1).to(case.dtype)


def random_decoder(case: Case, device: torch.device, seed: int = 0) -> tuple[Tensor, Decoder]:
    """Projected inputs of every step [B, U, 4S], and the weights of a one-layer decoder."""
    generator = torch.Generator(device).manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        x = torch.randn(shape, generator=generator, device=device) * shape[-1] ** -0.5
        return x.to(case.dtype)

    S = case.S
    decoder = Decoder(
        embedding_weight=draw(4 * S, 64),
        context_weight=draw(4 * S, case.D),
        input_weights=[],
        recurrent_weights=[draw(4 * S, S)],
        biases=[draw(4 * S)],
        query_weight=draw(case.A, S),
    )
    return draw(case.B, case.U, 64), decoder
