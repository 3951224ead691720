"""Recognition of a manifest for scoring, and a check that texts do not depend on the batch."""

import platform
import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch

from las.config import SearchConfig
from las.data.dataset import evaluation_batches
from las.data.manifests import check_alphabet, read_manifest
from las.decoding.hypothesis import LanguageModel
from las.decoding.search import search
from las.errors import LASError
from las.model.las import LAS
from las.scoring.wer import Utterance, check
from las.version import __version__


@torch.inference_mode()
def transcribe_manifest(
    model: LAS,
    manifest: Path,
    device: torch.device,
    *,
    batch_seconds: float = 60.0,
    batch_utterances: int = 32,
    progress: Callable[[int], None] | None = None,
    config: SearchConfig | None = None,
    lm: LanguageModel | None = None,
) -> list[Utterance]:
    """Recognise a manifest; references and hypotheses sorted by id.

    Args:
        model: in evaluation mode.
        manifest: of ``las prepare``.
        device: where the model is.
        batch_seconds: audio in a batch.
        batch_utterances: utterances in a batch, at most.
        progress: called with the number of utterances done.
        config: settings of the search; the default is greedy.
        lm: a language model for the search, on the same device.

    Raises:
        LASError: the manifest cannot be scored (see :func:`las.scoring.wer.check`), or it or one of
            its files is not usable.
    """
    cuts = read_manifest(manifest)
    check_alphabet(cuts, model.text, str(manifest))
    check(((cut.id, cut.supervisions[0].text) for cut in cuts), manifest)
    utterances: list[Utterance] = []
    for batch in evaluation_batches(
        cuts,
        model.text,
        sample_rate=model.config.frontend.sample_rate,
        batch_seconds=batch_seconds,
        batch_utterances=batch_utterances,
    ):
        if isinstance(batch, LASError):
            raise batch
        encoded = model.encode(batch.waveforms.to(device), batch.samples)
        found = search(model, encoded, config, lm)
        for id, text, hypotheses in zip(batch.ids, batch.texts, found, strict=True):
            utterances.append(Utterance(id, text, hypotheses[0].text))
        if progress is not None:
            progress(len(utterances))
    return sorted(utterances, key=lambda u: u.id)


@torch.inference_mode()
def check_batching(
    model: LAS,
    manifest: Path,
    device: torch.device,
    config: SearchConfig | None = None,
    lm: LanguageModel | None = None,
) -> tuple[int, list[str], float]:
    """Compare the recognition of each utterance alone and in a padded batch.

    Args:
        model: in evaluation mode.
        manifest: of ``las prepare``.
        device: where the model is.
        config: settings of the search; the default is greedy.
        lm: a language model for the search, on the same device.

    Returns:
        number of utterances, ids of those whose text differs, and the largest absolute difference
        of keys and values.
    """
    differ: list[str] = []
    largest, count = 0.0, 0
    rate = model.config.frontend.sample_rate
    for batch in evaluation_batches(read_manifest(manifest), model.text, sample_rate=rate):
        if isinstance(batch, LASError):
            raise batch
        # Half a second of further padding.
        padded = torch.nn.functional.pad(batch.waveforms, (0, rate // 2)).to(device)
        encoded = model.encode(padded, batch.samples)
        batched = search(model, encoded, config, lm)
        for row, id in enumerate(batch.ids):
            samples = batch.samples[row : row + 1]
            waveform = batch.waveforms[row : row + 1, : int(samples)]
            single = model.encode(waveform.to(device), samples)
            frames = single.memory.values.shape[1]
            for a, b in (
                (encoded.memory.values[row, :frames], single.memory.values[0]),
                (encoded.memory.keys[row, :frames], single.memory.keys[0]),
            ):
                largest = max(largest, float((a - b).abs().max()))
            if search(model, single, config, lm)[0][0].text != batched[row][0].text:
                differ.append(id)
            count += 1
    return count, differ, largest


def provenance(device: torch.device) -> dict[str, str]:
    """Command, date, versions and device, for a report."""
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        cpuinfo = Path("/proc/cpuinfo")
        if cpuinfo.is_file():
            lines = cpuinfo.read_text().splitlines()
            models = [line.partition(":")[2].strip() for line in lines if "model name" in line]
            name = models[0] if models else name
    return {
        "command": shlex.join(["las", *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "device": f"{name}, {torch.get_num_threads()} threads" if device.type == "cpu" else name,
        "versions": f"listen-attend-spell {__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    }
