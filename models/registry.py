"""The models that Aviary knows: a name or a path in, the bundle's file and what the model can do out.

A new model is one line in `KNOWN`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from models.errors import CheckpointError, UnknownModelError
from models.languages import LANGUAGES
from models.types import ModelCard

_SUFFIX = ".nemo"
_FLASH_LANGUAGES = frozenset({"de", "en", "es", "fr"})
# NeMo's chunks for long audio, and what the checkpoints were trained on at most.
_MAX_CHUNK = 40.0


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that has a name.

    Attributes:
        file: Name of the bundle: in the model's repository on the Hugging Face hub, or in `models.embedded`.
        languages: What it transcribes, and translates to and from English; None if the bundle itself says it.
        embedded: Whether it comes with Aviary.
    """

    file: str
    languages: frozenset[str] | None = None
    embedded: bool = False


KNOWN: Mapping[str, KnownModel] = MappingProxyType(
    {
        "canary-mini": KnownModel("canary-mini.nemo", embedded=True),
        "nvidia/canary-1b-v2": KnownModel("canary-1b-v2.nemo", frozenset(LANGUAGES)),
        "nvidia/canary-1b-flash": KnownModel("canary-1b-flash.nemo", _FLASH_LANGUAGES),
        "nvidia/canary-180m-flash": KnownModel("canary-180m-flash.nemo", _FLASH_LANGUAGES),
    }
)
"""Known models by the name they are served under."""


def find(model: str) -> Path:
    """The file of a model, downloaded if need be.

    Args:
        model: A name in `KNOWN`, or the path of a bundle.

    Raises:
        UnknownModelError: It is neither.
        CheckpointError: It cannot be had.
    """
    known = KNOWN.get(model)
    if known is None:
        path = Path(model).expanduser()
        if path.suffix != _SUFFIX and not path.is_file():
            raise UnknownModelError(
                f"no model is called {model!r}; known: {', '.join(KNOWN)}, or a path to a {_SUFFIX} file"
            )
        return path
    if known.embedded:
        return Path(__file__).with_name("embedded") / known.file
    return _downloaded(model, known.file)


def _downloaded(repository: str, file: str) -> Path:
    # Imported here because it takes longer than everything else in this module.
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file))
    except Exception as error:  # network, disk, permissions: many kinds, one remedy
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{repository}: cannot get {file} from the Hugging Face hub ({reason}). Get it where there is a network, "
            f"with `hf download {repository} {file} --local-dir .`, and name its path as the model"
        ) from error


def describe(
    model: str, config: Mapping[str, Any], tokenizer_languages: frozenset[str], *, has_aligner: bool
) -> ModelCard:
    """What a model can do: as is known of its name, else as its bundle says, else as its tokenizer allows.

    Args:
        model: Its name or path.
        config: Its NeMo configuration; Aviary's own bundles have an ``aviary`` section.
        tokenizer_languages: The languages its tokenizer has.
        has_aligner: Whether it can time its text.

    Raises:
        CheckpointError: The ``aviary`` section is not as it should be.
    """
    known = KNOWN.get(model)
    if known is not None and known.languages is not None:
        return ModelCard(model, known.languages, _with_english(known.languages), _MAX_CHUNK, has_aligner)
    section = config.get("aviary")
    if section is None:
        pairs = _with_english(tokenizer_languages)
        return ModelCard(Path(model).stem, tokenizer_languages, pairs, _MAX_CHUNK, has_aligner, owner="unknown")
    try:
        return ModelCard(
            id=str(section["id"]),
            transcribes=frozenset(section["transcribes"]),
            translates=frozenset((source, target) for source, target in section["translates"]),
            max_chunk=float(section["max_chunk"]),
            has_aligner=has_aligner,
            owner=str(section["owner"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{model}: the aviary section of its configuration is wrong: {error!r}") from error


def _with_english(languages: frozenset[str]) -> frozenset[tuple[str, str]]:
    """The pairs that Canary is trained on: English to each other language, and back."""
    others = languages - {"en"} if "en" in languages else frozenset[str]()
    return frozenset(pair for lang in others for pair in (("en", lang), (lang, "en")))
