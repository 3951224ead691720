"""Transcriptions as answers in each ``response_format``."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fastapi.responses import JSONResponse, PlainTextResponse, Response

from las.serve import languages
from las.serve.parameters import Parameters
from las.transcription import writers
from las.transcription.types import Transcription


def render(found: Transcription, asked: Parameters) -> Response:
    """The answer to a request."""
    if asked.stream:
        return _events(found)
    return _FORMATS[asked.response_format](found, asked)


def _json(found: Transcription, _: Parameters) -> Response:
    return JSONResponse({"text": found.text, "usage": _usage(found)})


def _text(found: Transcription, _: Parameters) -> Response:
    return PlainTextResponse(found.text + "\n")


def _srt(found: Transcription, _: Parameters) -> Response:
    return PlainTextResponse(writers.render(found, "srt"))


def _vtt(found: Transcription, _: Parameters) -> Response:
    return PlainTextResponse(writers.render(found, "vtt"), media_type="text/vtt")


def _verbose(found: Transcription, asked: Parameters) -> Response:
    whole: dict[str, Any] = {
        "task": "transcribe",
        "language": languages.name(found.language),
        "duration": found.duration,
        "text": found.text,
    }
    if asked.segments:
        whole["segments"] = [_segment(segment) for segment in found.to_dict(False)["segments"]]
    if asked.words:
        whole["words"] = [_word(asdict(word)) for word in found.words]
    return JSONResponse({**whole, "usage": _usage(found)})


def _events(found: Transcription) -> Response:
    """The text as server-sent events, a segment each, and once more as a whole.

    They are sent together: a file's text is complete when its last segment is.
    """
    pieces = [segment.text for segment in found.segments]
    deltas = [piece if n == 0 else f" {piece}" for n, piece in enumerate(pieces)]
    events = [{"type": "transcript.text.delta", "delta": delta} for delta in deltas]
    events.append({"type": "transcript.text.done", "text": found.text})
    content = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return Response(content + "data: [DONE]\n\n", media_type="text/event-stream")


def _segment(segment: dict[str, Any]) -> dict[str, Any]:
    """With a number that the API requires, and that the model has not: it knows no silence."""
    return {**segment, "no_speech_prob": 0.0}


def _word(word: dict[str, Any]) -> dict[str, Any]:
    """With its probability, as whisper's words have it and those of OpenAI's API have not."""
    return {key: word[key] for key in ("word", "start", "end", "probability")}


def _usage(found: Transcription) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(found.duration)}


_FORMATS: dict[str, Callable[[Transcription, Parameters], Response]] = {
    "json": _json,
    "text": _text,
    "srt": _srt,
    "verbose_json": _verbose,
    "vtt": _vtt,
}
