"""faster-whisper with a model folder, its argument; run by benchmarks/peers/score.py."""

# Its modules are found in its own environment alone.
# mypy: disable-error-code="import-not-found"

import sys
from pathlib import Path

import numpy as np
from faster_whisper import WhisperModel
from hearing import serve

HOW = "int8, beam 5, one thread, English, no text of before"


def main() -> None:
    """Answer until the input ends."""
    model = WhisperModel(
        sys.argv[1], device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True
    )

    def transcribe(pcm: bytes) -> str:
        samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
        segments, _ = model.transcribe(
            samples, language="en", beam_size=5, condition_on_previous_text=False
        )
        return " ".join(segment.text.strip() for segment in segments)

    weights = Path(sys.argv[1], "model.bin")
    # Which model it is, for the report and so that nobody takes its answers for another's.
    which = f"{weights.parent.name} ({weights.stat().st_size} bytes)"
    serve(["faster-whisper", "ctranslate2"], f"{which}, {HOW}", transcribe)


if __name__ == "__main__":
    main()
