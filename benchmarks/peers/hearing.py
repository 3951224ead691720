"""How benchmarks/peers/score.py talks to a recogniser in another environment.

Only the standard library: this file is imported in every one of the environments. A program prints
a line that says what it is, and then answers every line of its input, an utterance, with one line.
"""

import base64
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from importlib import metadata

RATE = 16000  # Hz of all audio that is sent


def request(pcm: bytes) -> str:
    """The line that asks what was said in mono samples, int16, little endian, of 16 kHz."""
    return json.dumps({"pcm": base64.b64encode(pcm).decode()})


def serve(packages: Iterable[str], how: str, transcribe: Callable[[bytes], str]) -> None:
    """Answer requests until the input ends, with the text and the processor's seconds.

    Args:
        packages: whose versions to report.
        how: the model and its settings, in words.
        transcribe: mono samples, int16 at 16 kHz, as text.
    """
    # Libraries print: what they print goes to the error output, lest it be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    versions = {name: metadata.version(name) for name in packages}
    versions["Python"] = sys.version.split()[0]
    transcribe(bytes(2 * RATE))  # whatever is loaded or compiled at first is not clocked
    answers.write(json.dumps({"versions": versions, "how": how}) + "\n")
    for line in sys.stdin:
        pcm = base64.b64decode(json.loads(line)["pcm"])
        start = time.process_time()  # of all threads of the process
        text = transcribe(pcm)
        answers.write(json.dumps({"text": text, "cpu_s": time.process_time() - start}) + "\n")
