"""A failure names the input as the user did."""

from pathlib import Path

from las.cli.transcribe.inputs import Source
from las.cli.transcribe.recognition import recognise
from las.transcription.transcript import Transcript
from tests.transcription.test_isolation import PATHS, Fake


def test_a_failure_names_the_input_and_not_its_copy():
    sources = [Source(Path("-"), Path("stdin")), Source(PATHS[1], Path("1"))]
    (first, failure), (second, transcript) = recognise(Fake([0]), sources, PATHS[:2])
    assert (first, second) == tuple(sources)
    assert failure.path == Path("-") and failure.reason.startswith("stdin: decoding failed")
    assert isinstance(transcript, Transcript)
