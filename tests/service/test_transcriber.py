"""The languages of a request: checked against the model, and never guessed."""

from dataclasses import replace

import pytest

from models.errors import LanguageError
from models.fake import fake_card
from service.errors import LanguageRequiredError, RequestError, UnsupportedError
from service.transcriber import Order, choose_options

CARD = fake_card()
ENGLISH_ONLY = replace(CARD, transcribes=frozenset({"en"}), translates=frozenset({("en", "de")}))


@pytest.mark.parametrize(("written", "code"), [("de", "de"), ("de-DE", "de"), ("pt_BR", "pt"), ("German", "de")])
def test_languages_are_written_in_many_ways(written, code):
    options = choose_options(CARD, Order(language=written), None)
    assert (options.source_lang, options.target_lang, options.task) == (code, code, "transcribe")


def test_the_only_language_need_not_be_named():
    assert choose_options(ENGLISH_ONLY, Order(), None).source_lang == "en"
    assert choose_options(ENGLISH_ONLY, Order(), "de").source_lang == "en"


def test_the_default_is_used():
    assert choose_options(CARD, Order(), "fr").source_lang == "fr"
    assert choose_options(CARD, Order(language="it"), "fr").source_lang == "it"


def test_a_language_is_never_guessed():
    with pytest.raises(LanguageRequiredError, match="must be told"):
        choose_options(CARD, Order(), None)


def test_translation():
    options = choose_options(CARD, Order(language="de", target_language="English", context="before"), None)
    assert (options.source_lang, options.target_lang, options.task) == ("de", "en", "translate")
    assert options.context == "before"


@pytest.mark.parametrize(
    ("card", "order", "told"),
    [
        (CARD, Order(language="ja"), "unknown language 'ja'"),
        (ENGLISH_ONLY, Order(language="de"), "does not transcribe German; it does English"),
        (
            CARD,
            Order(language="de", target_language="fr"),
            "does not translate German to French; from German.* English",
        ),
        (ENGLISH_ONLY, Order(language="de", target_language="fr"), "to nothing"),
    ],
)
def test_what_the_model_does_not_do_is_refused(card, order, told):
    with pytest.raises(LanguageError, match=told):
        choose_options(card, order, None)


def test_a_bad_target_is_not_blamed_on_the_language():
    with pytest.raises(RequestError) as caught:
        choose_options(CARD, Order(language="de", target_language="ja"), None)
    assert (caught.value.param, caught.value.code) == ("target_language", "unsupported_language")


def test_no_aligner_no_times():
    card = replace(CARD, has_aligner=False)
    assert choose_options(card, Order(language="de", timestamps=False), None).timestamps is False
    with pytest.raises(UnsupportedError, match="without its aligner"):
        choose_options(card, Order(language="de"), None)
