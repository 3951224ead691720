"""A recording of the bundled model, explained, and its page."""

import pytest
import torch

from las.explain import html
from las.explain.explainer import Explainer
from las.model.folder import bundled
from las.model.las import LAS
from las.transcription import confidence
from tests.explain.pages import SAMPLES


@pytest.fixture(scope="package")
def explainer():
    timer = confidence.timer(bundled())
    return Explainer(LAS.from_pretrained(), torch.device("cpu"), name="bundled", timer=timer)


@pytest.fixture(scope="package")
def explanation(explainer):
    return explainer.file(SAMPLES / "501-1-0004.wav")


@pytest.fixture(scope="package")
def page(explanation):
    return html.page(explanation)
