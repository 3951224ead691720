"""The fields of a request beside the file: checked as OpenAI's API defines them.

``prompt``, ``temperature`` and ``chunking_strategy`` change nothing here: the model takes no prompt
and samples nothing.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from starlette.datastructures import FormData

from las.serve import languages
from las.serve.errors import APIError

_LISTS = ("timestamp_granularities",)
_REFUSED = {
    "include": "log-probabilities are not among what it answers; leave it out",
    "known_speaker_names": "speakers are not told apart; leave it out",
    "known_speaker_references": "speakers are not told apart; leave it out",
}


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


class Parameters(BaseModel):
    """What a request asks for."""

    model: Annotated[str, Field(min_length=1)]
    language: Annotated[str | None, BeforeValidator(_none_if_empty)] = None
    prompt: str | None = None
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.0
    timestamp_granularities: list[Literal["word", "segment"]] = []
    stream: bool = False

    @property
    def words(self) -> bool:
        """Whether the answer has words."""
        return "word" in self.timestamp_granularities

    @property
    def segments(self) -> bool:
        """Whether the answer has segments; by default it has."""
        return "segment" in self.timestamp_granularities or not self.words


def parse(form: FormData, models: Sequence[str], language: str) -> Parameters:
    """Check the fields of a form.

    Args:
        form: of the request.
        models: names of the model.
        language: what it writes, by ISO 639-1.

    Raises:
        APIError: a field is missing, has no meaning, or asks for what this model does not do.
    """
    data: dict[str, object] = {}
    for key in form:
        name = key.removesuffix("[]")
        if name in _REFUSED:
            raise APIError(400, f"{name}: {_REFUSED[name]}", param=name, code="unsupported_value")
        if name in _LISTS:
            data[name] = [value for k, value in form.multi_items() if k.removesuffix("[]") == name]
        elif name in Parameters.model_fields:
            data[name] = form[key]
    try:
        found = Parameters.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0])
        code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
        raise APIError(400, f"{name}: {first['msg']}", param=name, code=code) from None
    if found.model not in models:
        what = f"the model {found.model!r} does not exist; there is {models[0]!r}"
        raise APIError(404, what, param="model", code="model_not_found")
    if found.language is not None and not languages.same(found.language, language):
        what = f"language: this model writes {language!r}, not {found.language!r}"
        raise APIError(400, what, param="language", code="unsupported_language")
    if found.stream and found.response_format not in ("json", "text"):
        what = "stream: only response_format json and text are streamed"
        raise APIError(400, what, param="stream", code="invalid_value")
    if found.timestamp_granularities and found.response_format != "verbose_json":
        what = "timestamp_granularities: only response_format verbose_json has them"
        raise APIError(400, what, param="timestamp_granularities", code="invalid_value")
    return found
