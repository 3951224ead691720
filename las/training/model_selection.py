"""Validation during training, and which weights are kept: the best, and an average of the best.

The folder of the run gets ``best`` (a model folder), ``epochs`` (weights alone, to be averaged)
and, at the end, ``model``.
"""

from collections.abc import Sequence
from pathlib import Path

from lhotse import CutSet
from torch import Tensor

from las.config import RunConfig
from las.data.dataset import evaluation_batches
from las.model.las import LAS
from las.storage.weights import read_weights, write_weights
from las.training.distributed import DistributedGroup
from las.training.logger import TrainingLogger
from las.training.position import TrainingPosition
from las.training.validation import Validation, validate

_EPOCHS_TO_ALIGN = 5  # with a speller, before flat attention is a warning


class ModelSelection:
    """Measures a model after its epochs and keeps the best.

    All processes of a training measure, each its share of the dev set, and rank; the first writes.

    Args:
        model: in training; after :meth:`finish` it has the averaged weights.
        config: of the run.
        group: processes of the training, and the device of the model.
        dev_cuts: the dev set; without one, the last weights are the final model.
        utterances: size of the training set, to be stored with the models.
        position: of the training; its ranking is updated.
        logger: takes the results.
    """

    def __init__(
        self,
        model: LAS,
        config: RunConfig,
        group: DistributedGroup,
        dev_cuts: CutSet | None,
        utterances: int,
        position: TrainingPosition,
        logger: TrainingLogger,
    ) -> None:
        self.model = model
        self.config = config
        self.settings = config.training
        self.group = group
        self.dev_cuts = dev_cuts
        self.utterances = utterances
        self.position = position
        self.logger = logger
        self.output = Path(config.training.output)

    def validate_initial(self) -> None:
        """Measure the initial model of a fine-tuning, as epoch 0."""
        if self.dev_cuts is None:
            return
        result = self._measure()
        self.position.before = result.score.wer
        self.logger.validation(0, 0, result)

    def validate_epoch(self) -> None:
        """Measure the epoch that has just ended, and keep its weights if it is among the best.

        Epochs that train CTC alone are measured by CTC, and not ranked.
        """
        epoch = self.position.epoch
        use_speller = epoch > self.settings.ctc_only
        result = self._measure(use_speller)
        self.logger.validation(epoch, self.position.step, result)
        if not use_speller:
            return
        if result.flat and epoch >= self.settings.ctc_only + _EPOCHS_TO_ALIGN:
            self.logger.warning(
                f"the attention is still flat after {epoch} epochs (focus {result.focus:.2f}): no "
                "alignment is learnt; try a higher training.ctc, data.short_first, or "
                "attention.kind=location"
            )
        self._rank(result.score.wer)

    def finish(self) -> Path:
        """Write the final model; returns its folder.

        It is the average of the best epochs, or the best epoch if that has a lower dev WER.
        """
        final = self.output / "model"
        if not self.position.best:
            if self.group.first:
                self.model.save_pretrained(final, self._info())
            return final
        wer = self.position.best[0][0]
        chosen = None
        epochs = self._averaged()
        if len(epochs) > 1:
            paths = [self._weights(epoch) for epoch in epochs]
            mean = self.group.from_first(lambda: average_weights(paths))
            self.model.load_weights(mean, self.output / "epochs")
            averaged = self._measure().score.wer
            self.logger.info(
                f"dev WER {wer:.2f} % of the best epoch, {averaged:.2f} % of the average of "
                f"epochs {', '.join(map(str, sorted(epochs)))}"
            )
            if averaged <= wer:
                chosen, wer = self.model, averaged
        if self.group.first:
            chosen = chosen or LAS.from_pretrained(self.output / "best")
            chosen.save_pretrained(final, self._info(wer))
            self._remove_weights_but()
        self._compare(wer)
        return final

    def _measure(self, use_speller: bool = True) -> Validation:
        assert self.dev_cuts is not None
        group = self.group
        batches = evaluation_batches(
            self.dev_cuts,
            self.model.text,
            sample_rate=self.config.frontend.sample_rate,
            rank=group.rank,
            world=group.world,
        )
        result = validate(self.model, batches, group.device, use_speller, group)
        self.model.train()
        return result

    def _rank(self, wer: float) -> None:
        """Save the model if it is the best so far, and its weights while it is among the best."""
        position = self.position
        first = self.group.first
        if first and (not position.best or wer < position.best[0][0]):
            self.model.save_pretrained(self.output / "best", self._info(wer))
        before = self._averaged()
        position.best = sorted([*position.best, (wer, position.epoch)])
        if self.settings.average > 0 and first:
            path = self._weights(position.epoch)
            path.parent.mkdir(exist_ok=True)
            write_weights({k: v.detach().cpu() for k, v in self.model.state_dict().items()}, path)
            self._remove_weights_but(before)

    def _averaged(self) -> list[int]:
        """The best epochs, whose weights are kept."""
        return [epoch for _, epoch in self.position.best[: self.settings.average]]

    def _remove_weights_but(self, others: Sequence[int] = ()) -> None:
        """Remove weights of all epochs but the best and some others.

        The weights of the last training state are kept: it may be needed again.
        """
        wanted = {self._weights(epoch) for epoch in [*self._averaged(), *others]}
        for path in (self.output / "epochs").glob("epoch-*.safetensors"):
            if path not in wanted:
                path.unlink(missing_ok=True)

    def _weights(self, epoch: int) -> Path:
        return self.output / "epochs" / f"epoch-{epoch:03d}.safetensors"

    def _compare(self, wer: float) -> None:
        """Report the dev WER before and after a fine-tuning."""
        before = self.position.before
        if before is None:
            return
        line = f"dev WER {before:.2f} % before the training, {wer:.2f} % after it"
        if wer < before:
            self.logger.info(line)
        else:
            self.logger.warning(
                f"{line}: the initial model is as good; try a lower training.learning_rate, more "
                "data, or other epochs"
            )

    def _info(self, wer: float | None = None) -> dict[str, str]:
        epoch, step = str(self.position.epoch), str(self.position.step)
        info = {"epoch": epoch, "step": step, "utterances": str(self.utterances)}
        if self.settings.init:
            info["init"] = self.settings.init
        return info if wer is None else {**info, "dev_wer": f"{wer:.2f}"}


def average_weights(paths: list[Path]) -> dict[str, Tensor]:
    """Mean of the weights in these files, computed in float64."""
    mean: dict[str, Tensor] = {}
    for path in paths:
        for name, weight in read_weights(path).items():
            mean[name] = mean.get(name, 0.0) + weight.double() / len(paths)
    return {name: weight.float() for name, weight in mean.items()}
