"""The training set and the dev set of a run, checked against the model."""

import torch
from lhotse import CutSet

from las.config import DataConfig
from las.data.manifests import Trainable, check_alphabet, read_manifest, trainable
from las.data.shards.reader import ShardSet, is_sharded
from las.model.las import LAS
from las.scoring.wer import check


def training_set(data: DataConfig, model: LAS) -> Trainable:
    """The utterances that can be trained on.

    Raises:
        LASError: the data are not usable, or too much of them cannot be trained on.
    """
    rate = model.config.frontend.sample_rate

    def frames(seconds: float) -> int:
        return int(model.ctc_frames(torch.tensor(int(seconds * rate))))

    if is_sharded(data.train):
        return ShardSet(data, model.text, frames).trainable()
    cuts = read_manifest(str(data.train))
    check_alphabet(cuts, model.text, str(data.train))
    return trainable(cuts, model.text, data, frames)


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
