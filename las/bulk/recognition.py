"""A block -> rows of results and of errors: what a worker does, which knows nothing of Ray."""

import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from las.bulk.blocks import Block, Item
from las.bulk.results import Result, Row, error_row, storable
from las.config import SearchConfig
from las.decoding.presets import load_both
from las.errors import LASError
from las.model.folder import bundled
from las.model.las import LAS
from las.runtime import choose_device, choose_threads, inference_precision
from las.transcription import confidence
from las.transcription.isolation import transcribe_with_isolation
from las.transcription.segments import transcription
from las.transcription.transcriber import Transcriber
from las.transcription.transcript import Failure, Transcript

_AT_ONCE = 64  # utterances of a shard whose audio is in memory


@dataclass(frozen=True)
class Settings:
    """What a worker needs to transcribe."""

    model: Path | None  # None: the bundled one, wherever the worker has it
    lm: Path | None  # relative to the model folder, or absolute
    words: Path | None  # likewise
    search: SearchConfig
    precision: str
    word_timestamps: bool


class Recogniser:
    """A model that transcribes blocks.

    Args:
        settings: which model, and how.
        device: ``cpu`` or ``cuda``.

    Raises:
        LASError: it cannot be loaded.
    """

    def __init__(self, settings: Settings, device: str) -> None:
        choose_threads(1)
        folder = settings.model or bundled()
        place = choose_device(device)
        model = LAS.from_pretrained(folder, place)
        model.precision = inference_precision(settings.precision)
        lm, words = (None if at is None else folder / at for at in (settings.lm, settings.words))
        self.settings = settings
        self.transcriber = Transcriber(
            model,
            place,
            settings.search,
            load_both(lm, words, model.text, place),
            timer=confidence.timer(folder),
        )

    def __call__(self, block: Block) -> Result:
        """Transcribe a block; a file that cannot be is a row of the errors."""
        result, start = Result(), time.perf_counter()
        items = block.items()
        while True:
            group: list[Item] = []
            problem = None
            try:
                for item in itertools.islice(items, _AT_ONCE):
                    group.append(item)
            except LASError as error:
                problem = error_row(block.path, None, str(error))
            audio = [item.audio for item in group]
            found = transcribe_with_isolation(self.transcriber, audio)
            for item, one in zip(group, found, strict=True):
                if isinstance(one, Failure):
                    result.errors.append(error_row(item.path, item.id, one.reason))
                else:
                    result.rows.append(self._row(item, one))
                    result.seconds += one.seconds
            if problem is not None:
                result.errors.append(problem)
            if problem is not None or not group:
                break
        result.took = time.perf_counter() - start
        return result

    def _row(self, item: Item, transcript: Transcript) -> Row:
        """What the JSON of `las transcribe` holds, and more."""
        config = self.transcriber.model.config
        whole = transcription(transcript, config.frontend.sample_rate, config.text.language)
        certain = [word.probability for word in whole.words]
        return {
            "path": storable(item.path),
            "id": item.id,
            **whole.to_dict(self.settings.word_timestamps),
            "confidence": fmean(certain) if certain else None,
            "warnings": list(transcript.warnings),
        }
