"""Names and paths of models, and what is said of each."""

from pathlib import Path

import huggingface_hub.constants
import pytest

from models.errors import CheckpointError, UnknownModelError
from models.languages import LANGUAGES
from models.registry import KNOWN, describe, find

SECTION = {"id": "mine", "owner": "me", "transcribes": ["en", "de"], "translates": [["en", "de"]], "max_chunk": 25}


def test_the_embedded_model_comes_with_the_package() -> None:
    assert find("canary-mini").parts[-3:] == ("models", "embedded", "canary-mini.nemo")


def test_a_path_is_a_model(tmp_path: Path) -> None:
    assert find(str(tmp_path / "my.nemo")) == tmp_path / "my.nemo"
    unnamed = tmp_path / "weights"
    unnamed.touch()
    assert find(str(unnamed)) == unnamed


@pytest.mark.parametrize("name", ["canary", "nvidia/canary-1b-v3", "openai/whisper-large"])
def test_other_names_are_unknown(name: str) -> None:
    with pytest.raises(UnknownModelError, match="known: canary-mini, nvidia/canary-1b-v2") as caught:
        find(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", [name for name in KNOWN if name.startswith("nvidia/")])
def test_without_a_network_it_says_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=f"hf download {name} {KNOWN[name].file}") as caught:
        find(name)
    assert "name its path as the model" in str(caught.value)


def test_languages_of_canary_1b_v2() -> None:
    card = describe("nvidia/canary-1b-v2", {}, frozenset(), has_aligner=True)
    assert card.transcribes == set(LANGUAGES)
    assert len(card.translates) == 48
    assert all("en" in pair and pair[0] != pair[1] for pair in card.translates)
    assert (card.id, card.owner, card.max_chunk, card.has_aligner) == ("nvidia/canary-1b-v2", "nvidia", 40.0, True)


@pytest.mark.parametrize("name", ["nvidia/canary-1b-flash", "nvidia/canary-180m-flash"])
def test_languages_of_the_flash_models(name: str) -> None:
    card = describe(name, {}, frozenset(LANGUAGES), has_aligner=False)
    assert card.transcribes == {"en", "de", "es", "fr"}
    assert len(card.translates) == 6
    assert not card.has_aligner


def test_our_own_bundles_say_what_they_can_do() -> None:
    card = describe("/some/where.nemo", {"aviary": SECTION}, frozenset(LANGUAGES), has_aligner=True)
    assert (card.id, card.owner, card.max_chunk) == ("mine", "me", 25.0)
    assert card.transcribes == {"en", "de"}
    assert card.translates == {("en", "de")}


def test_other_bundles_can_do_what_their_tokenizer_allows() -> None:
    card = describe("/some/where.nemo", {}, frozenset({"en", "fi"}), has_aligner=False)
    assert (card.id, card.owner) == ("where", "unknown")
    assert card.transcribes == {"en", "fi"}
    assert card.translates == {("en", "fi"), ("fi", "en")}
    assert not describe("x.nemo", {}, frozenset({"de", "fi"}), has_aligner=False).translates


@pytest.mark.parametrize(
    "change", [{"id": None}, {"translates": ["en-de-fr"]}, {"max_chunk": "long"}, {"transcribes": 3}]
)
def test_a_wrong_section_is_refused(change: dict[str, object]) -> None:
    section = {key: value for key, value in (SECTION | change).items() if value is not None}
    with pytest.raises(CheckpointError, match=r"x\.nemo: the aviary section"):
        describe("x.nemo", {"aviary": section}, frozenset(), has_aligner=True)
