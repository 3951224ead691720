"""The training set and the dev set of a run, checked against the model."""

import torch
from lhotse import CutSet

from las.config import DataConfig
from las.data.manifests import Trainable, check_alphabet, read_manifest, trainable
from las.model.las import LAS
from las.scoring.wer import check


def training_set(data: DataConfig, model: LAS) -> Trainable:
    """The utterances that can be trained on.

    Raises:
        LASError: the manifest is not usable, or too much of it cannot be trained on.
    """
    cuts = read_manifest(data.train)
    check_alphabet(cuts, model.text, data.train)
    rate = model.config.frontend.sample_rate
    return trainable(
        cuts,
        model.text,
        data,
        lambda seconds: int(model.ctc_frames(torch.tensor(int(seconds * rate)))),
    )


def dev_set(data: DataConfig, model: LAS) -> CutSet | None:
    """The dev set, if the settings name one.

    Raises:
        LASError: the manifest is not usable, or holds no words to score.
    """
    if not data.dev:
        return None
    cuts = read_manifest(data.dev)
    check_alphabet(cuts, model.text, data.dev)
    check(((cut.id, cut.supervisions[0].text) for cut in cuts), data.dev)
    return cuts
