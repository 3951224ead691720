"""An exponential moving average of the weights of a training.

It takes out the noise of the steps, as a decay of the learning rate does (Polyak & Juditsky 1992),
so that a training at a constant rate can be ended at any time.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from las.model.las import LAS


class MovingAverage:
    """Follows the weights of a model, a step at a time.

    After step n, average = d * average + (1 - d) * weights with d = min(decay, (1 + n) / (10 + n)):
    the first steps are forgotten soon (as tf.train.ExponentialMovingAverage with num_updates).

    Args:
        model: in training.
        decay: the limit of d, in [0, 1); 0: the average is the model itself.
    """

    def __init__(self, model: LAS, decay: float) -> None:
        self._source = model
        self._averaged: AveragedModel | None = None
        if decay:

            def update(averages: Sequence[Tensor], weights: Sequence[Tensor], _: Any) -> None:
                assert self._averaged is not None
                step = float(self._averaged.n_averaged)  # on the CPU: no wait for a GPU
                now = 1 - min(decay, (1 + step) / (10 + step))
                torch._foreach_lerp_(list(averages), list(weights), now)

            self._averaged = AveragedModel(model, multi_avg_fn=update)

    @property
    def model(self) -> LAS:
        """The model with the averaged weights."""
        return self._source if self._averaged is None else cast(LAS, self._averaged.module)

    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        if self._averaged is not None:
            self._averaged.update_parameters(self._source)

    def state(self) -> dict[str, Tensor] | None:
        """What a resumed training needs; None without an average."""
        return None if self._averaged is None else self._averaged.state_dict()

    def load(self, state: Mapping[str, Tensor] | None) -> None:
        """Go on from the :meth:`state` of before; without one, from the weights as they are."""
        if self._averaged is not None and state is not None:
            self._averaged.load_state_dict(state)
