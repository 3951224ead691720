"""What does not fit into memory is computed in halves, with gradients whole or not at all."""

import pytest
import torch
from speech import exhaust

from las.memory import Pieces, added_whole, out_of_memory


def test_what_says_that_memory_ran_out():
    with pytest.raises(RuntimeError) as caught:
        exhaust()
    assert out_of_memory(caught.value)
    assert out_of_memory(MemoryError()) and out_of_memory(torch.OutOfMemoryError("CUDA"))
    assert not out_of_memory(RuntimeError("sizes differ")) and not out_of_memory(ValueError())


def halves(text):
    middle = len(text) // 2
    return (text[:middle], text[middle:]) if middle else ()


def test_pieces_are_in_order_and_what_does_not_fit_alone_is_left_out():
    def small(part):
        if len(part) > 2 or "C" in part:
            exhaust()
        return part.lower()

    pieces = Pieces("ABCDEFG", small, halves)
    assert "".join(pieces.done) == "abdefg" and max(map(len, pieces.done)) == 2
    assert pieces.left_out == ["C"] and pieces.halved == 4
    pieces = Pieces("AB", small, halves)
    assert (pieces.done, pieces.halved, pieces.left_out) == (["ab"], 0, [])


def test_another_error_is_none_of_memory():
    def fail(_):
        raise RuntimeError("sizes differ")

    with pytest.raises(RuntimeError, match="sizes differ"):
        Pieces("AB", fail, halves)


def test_a_failed_backward_adds_nothing():
    weight, other = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.full((2,), 5.0)
    with pytest.raises(MemoryError), added_whole([weight, other]):
        (weight * 2 + other).sum().backward()
        raise MemoryError
    assert weight.grad.tolist() == [5, 5] and other.grad is None
    with added_whole([weight, other]):
        (weight * 2).sum().backward()
    assert weight.grad.tolist() == [7, 7] and other.grad is None
