"""What ``make demo`` runs: transcribe shipped recordings with the bundled model, and score it.

The search is the one that the model folder keeps, as in ``las transcribe``.

The samples and the test part of the corpus are sentences and voices that training never had.
Exit status 1 if the word error rate of either is above the limit.
"""

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

import torch

from las.audio import reader
from las.data import corpora
from las.decoding.presets import stored_search, summary
from las.errors import LASError
from las.evaluation import plots
from las.evaluation.evaluate import provenance
from las.model.folder import bundled
from las.model.las import LAS
from las.scoring import wer as scoring
from las.transcription.transcriber import Transcriber
from las.transcription.transcript import Failure, Transcript

HERE = Path(__file__).parent
LIMIT = 15.0  # percent


def transcribe(transcriber: Transcriber, paths: list[Path]) -> list[Transcript]:
    """Transcripts of files that must all be readable."""
    results = []
    for result in transcriber.files(paths):
        if isinstance(result, Failure):
            raise LASError(result.reason)
        results.append(result)
    return results


def samples(transcriber: Transcriber, folder: Path, output: Path) -> float:
    """Print each sample beside its reference, picture one; returns the WER."""
    with (folder / "references.tsv").open(encoding="utf-8", newline="") as file:
        references = dict(csv.reader(file, delimiter="\t"))
    results = transcribe(transcriber, [folder / name for name in references])
    pairs = []
    for result, (name, reference) in zip(results, references.items(), strict=True):
        print(f"{name}\n  reference   {reference}\n  recognised  {result.text}")
        pairs.append(scoring.Utterance(name, reference, result.text))
    first = results[0]
    picture = output / "attention.png"
    plots.save(
        plots.attention(
            reader.load(first.path),
            first.chunks[0].hypotheses[0].alignment[:, 0].numpy(),
            first.text,
            transcriber.model.config.frontend,
        ),
        picture,
    )
    wer = scoring.score(pairs).wer
    print(f"samples: {len(pairs)} recordings, WER {wer:.2f} %; attention of the first: {picture}")
    return wer


def test_part(transcriber: Transcriber, corpus: Path, output: Path, search: str) -> float:
    """Score the corpus's test part; the report names the search. Returns the WER."""
    items = corpora.librispeech(corpus, ["test"])["test"]
    results = transcribe(transcriber, [item.path for item in items])
    pairs = [
        scoring.Utterance(item.id, item.text, result.text)
        for item, result in zip(items, results, strict=True)
    ]
    score = scoring.score(pairs)
    extra: dict[str, Any] = {
        "search": search,
        "parameters": sum(p.numel() for p in transcriber.model.parameters()),
        **provenance(transcriber.device),
    }
    extra["command"] = " ".join(["python", *sys.argv])
    text, _ = scoring.write_reports(output / "test", pairs, score, **extra)
    low, high = score.wer_interval
    print(
        f"test part: {len(pairs)} utterances of new sentences and voices, "
        f"WER {score.wer:.2f} % ({low:.2f} to {high:.2f}), report: {text}"
    )
    return score.wer


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    parser.add_argument("--model", type=Path, default=bundled())
    arguments = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    try:
        model = LAS.from_pretrained(arguments.model)
        config, lm = stored_search(arguments.model)
        transcriber = Transcriber(model, torch.device("cpu"), config, lm, keep_alignments=True)
        rates = [
            samples(transcriber, bundled().parent / "samples", arguments.output),
            test_part(
                transcriber, HERE / "corpus", arguments.output, summary(arguments.model) or "greedy"
            ),
        ]
    except LASError as error:
        sys.exit(f"error: {error}")
    if max(rates) > LIMIT:
        sys.exit(f"error: WER {max(rates):.2f} % is above {LIMIT:g} %")


if __name__ == "__main__":
    main()
