"""Wire shapes, as OpenAI has them; fields that OpenAI does not have are marked as extensions."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from service.errors import MissingFieldError, RequestError, UnsupportedError

ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]
Granularity = Literal["word", "segment"]


class SpeechForm(BaseModel):
    """The fields that transcriptions and translations share. Unknown fields are ignored, as OpenAI does."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str = Field(min_length=1, description="Id of the model, as `GET /v1/models` lists it.")
    language: str | None = Field(
        default=None,
        description="Language of the speech: an ISO 639-1 code, with or without a region, or its English name. "
        "Required unless the model knows only one or the server has a default.",
    )
    prompt: str = Field(default="", max_length=10_000, description="Text that came before, to bias the wording.")
    response_format: ResponseFormat = Field(default="json", description="Form of the answer.")
    temperature: float = Field(default=0.0, description="Only 0 is supported: decoding is greedy.")

    timestamp_granularities: tuple[Granularity, ...] = Field(
        default=(),
        description="What gets times in verbose_json: `word`, `segment` or both. Default `segment`. "
        "The words of a translation have no honest times. The name may end with `[]`.",
    )

    @field_validator("response_format", mode="before")
    @classmethod
    def _no_diarization(cls, value: Any) -> Any:
        if value == "diarized_json":
            raise UnsupportedError(
                "diarized_json is not supported: speakers are not told apart", param="response_format"
            )
        return value

    @field_validator("temperature")
    @classmethod
    def _only_greedy(cls, value: float) -> float:
        if value != 0:
            raise UnsupportedError("only temperature 0 is supported", param="temperature")
        return value

    @model_validator(mode="after")
    def _only_verbose_has_granularities(self) -> Self:
        if self.timestamp_granularities and self.response_format != "verbose_json":
            message = "timestamp_granularities needs response_format verbose_json"
            raise RequestError(message, param="timestamp_granularities")
        return self

    @property
    def is_timed(self) -> bool:
        """Whether the answer needs times."""
        return self.response_format in {"srt", "vtt", "verbose_json"}


class TranscriptionForm(SpeechForm):
    """The form of ``POST /v1/audio/transcriptions``, without its file."""

    stream: bool = Field(default=False, description="Only `false` is supported.")
    include: tuple[str, ...] = Field(default=(), description="Not supported.")
    chunking_strategy: str | None = Field(default=None, description="Only `auto` is supported, and always on.")

    @field_validator("stream")
    @classmethod
    def _no_stream(cls, value: bool) -> bool:
        if value:
            raise UnsupportedError("stream=true is not supported", param="stream")
        return value

    @field_validator("include")
    @classmethod
    def _nothing_included(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value:
            raise UnsupportedError(f"include {', '.join(value)} is not supported", param="include")
        return value

    @field_validator("chunking_strategy")
    @classmethod
    def _only_auto(cls, value: str | None) -> str | None:
        if value not in (None, "auto"):
            raise UnsupportedError("only chunking_strategy auto is supported", param="chunking_strategy")
        return value


class TranslationForm(SpeechForm):
    """The form of ``POST /v1/audio/translations``, without its file."""

    target_language: str = Field(
        default="en",
        description="Extension: language of the text, `en` if not set. `to_language` is another name for it.",
    )

    @field_validator("timestamp_granularities")
    @classmethod
    def _no_words(cls, value: tuple[Granularity, ...]) -> tuple[Granularity, ...]:
        if "word" in value:
            message = "the words of a translation have no times: use segment"
            raise UnsupportedError(message, param="timestamp_granularities")
        return value


_LISTS: Final = frozenset({"timestamp_granularities", "include"})

_OTHER_NAMES: Final = MappingProxyType({"to_language": "target_language"})

Form = TypeVar("Form", bound=SpeechForm)


def parse_form(form: type[Form], fields: Mapping[str, Sequence[str]]) -> Form:
    """Checks the fields of a multipart form.

    Clients write lists as ``name`` or ``name[]`` and objects as ``name[key]``, and send empty fields for what their
    user left open.

    Raises:
        MissingFieldError: A required field is not there.
        UnsupportedError: OpenAI has it, we do not.
        RequestError: A field has a bad value, or was sent more than once.
    """
    values: dict[str, list[str]] = {}
    for name, sent in fields.items():
        base = name.split("[", 1)[0]
        values.setdefault(_OTHER_NAMES.get(base, base), []).extend(value for value in sent if value)
    known: dict[str, str | list[str]] = {}
    for name, sent in values.items():
        if name not in form.model_fields or not sent:
            continue
        if name not in _LISTS and len(sent) > 1:
            raise RequestError(f"{name} was sent more than once", param=name)
        known[name] = sent if name in _LISTS else sent[0]
    try:
        return form.model_validate(known)
    except ValidationError as error:
        raise _explain(error) from error


def _explain(error: ValidationError) -> RequestError:
    first = error.errors(include_url=False, include_context=False)[0]
    param = str(first["loc"][0])
    if first["type"] == "missing":
        return MissingFieldError(f"the field {param} is required", param=param)
    return RequestError(f"{param}: {first['msg']}", param=param)


class Usage(BaseModel):
    """What a request costs."""

    type: Literal["duration"] = "duration"
    seconds: float


class TranscriptionJson(BaseModel):
    """The answer in ``json``."""

    text: str
    usage: Usage


class VerboseWord(BaseModel):
    """A timed word."""

    word: str
    start: float
    end: float
    confidence: float = Field(description="Extension: 0 to 1, how well the audio supports the word.")


class VerboseSegment(BaseModel):
    """A timed sentence, or part of one."""

    id: int
    seek: int = Field(description="Start in hundredths of a second.")
    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    confidence: float = Field(description="Extension: 0 to 1, how well the audio supports the text.")


class TranscriptionVerbose(BaseModel):
    """The answer in ``verbose_json``; lists that were not asked for are left out."""

    task: Literal["transcribe", "translate"]
    language: str = Field(description="English name, in lower case, of the language of the text.")
    duration: float
    text: str
    segments: tuple[VerboseSegment, ...] | None = None
    words: tuple[VerboseWord, ...] | None = None
    usage: Usage
    timings: dict[str, float] = Field(description="Extension: seconds spent by stage.")


class ModelInfo(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When it was loaded, in seconds since 1970.")
    owned_by: str


class ModelList(BaseModel):
    """All models that are served, under all their names."""

    object: Literal["list"] = "list"
    data: tuple[ModelInfo, ...]


class Health(BaseModel):
    """The state of the service."""

    status: str
    model: str


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """The answer to every request that failed."""

    error: ErrorBody
