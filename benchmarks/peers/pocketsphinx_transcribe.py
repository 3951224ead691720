"""PocketSphinx with the English model of its package; run by benchmarks/peers/score.py."""

# Its modules are found in its own environment alone.
# mypy: disable-error-code="import-not-found"

from hearing import RATE, serve
from pocketsphinx import Decoder

HOW = "the package's en-us model, dictionary and language model, default settings, whole utterances"


def main() -> None:
    """Answer until the input ends."""
    decoder = Decoder(samprate=RATE, loglevel="FATAL")

    def transcribe(pcm: bytes) -> str:
        # Told that this is all of the utterance, it normalises the cepstra by their own mean: no
        # utterance depends on the one before it.
        decoder.start_utt()
        decoder.process_raw(pcm, full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return found.hypstr if found else ""

    serve(["pocketsphinx"], HOW, transcribe)


if __name__ == "__main__":
    main()
