"""Attention and recurrent layers for sequence-to-sequence models; knows nothing of speech.

The PyTorch reference is the definition of right; faster forms are checked against it.
"""

from las_kernels.backends import BACKENDS
from las_kernels.functional import attend, decode_sequence, decode_step
from las_kernels.lstm import bilstm
from las_kernels.reference import initial_alignment, initial_state, padding_mask
from las_kernels.types import Decoder, Masks, Memory, Score, State

__all__ = [
    "BACKENDS",
    "Decoder",
    "Masks",
    "Memory",
    "Score",
    "State",
    "attend",
    "bilstm",
    "decode_sequence",
    "decode_step",
    "initial_alignment",
    "initial_state",
    "padding_mask",
]
