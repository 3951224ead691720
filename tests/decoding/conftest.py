"""Random models for the tests of the search."""

import functools

import pytest

from tests.decoding.reference_search import make


@pytest.fixture(scope="package")
def tiny(tiny_config):
    """alphabet, seed -> a random model."""
    return functools.cache(functools.partial(make, tiny_config))
