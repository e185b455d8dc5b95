"""Logs: one line per event, whatever is in it."""

import json
import logging
import sys

import pytest

from service.logs import JsonFormatter, TextFormatter, set_up_logging


def record(message, *args, level=logging.INFO, exc_info=None, **extra):
    made = logging.LogRecord("service.access", level, __file__, 1, message, args, exc_info)
    vars(made).update(extra)
    return made


def test_text():
    line = TextFormatter().format(record("%s %s %d", "GET", "/health", 200, seconds=0.25))
    assert line.endswith("Z info     service.access: GET /health 200 in 0.25 s".replace("Z", "+00:00"))


def test_a_path_cannot_forge_a_line():
    assert "\n" not in TextFormatter().format(record("%s", "/a\n2026-01-01 critical all is lost"))


def test_json():
    try:
        raise ValueError("broken")
    except ValueError:
        event = json.loads(JsonFormatter().format(record("no\nway", level=logging.ERROR, exc_info=sys.exc_info())))
    assert (event["level"], event["message"], event["logger"]) == ("error", "no\nway", "service.access")
    assert event["traceback"].endswith("ValueError: broken")


@pytest.fixture
def _logging_as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("_logging_as_before")
def test_set_up(capsys):
    set_up_logging("warning", "json")
    logging.getLogger("x").info("quiet")
    logging.getLogger("x").warning("loud")
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == ["loud"]


@pytest.mark.usefixtures("_logging_as_before")
def test_chatty_libraries_are_quiet(capsys):
    set_up_logging("info", "text")
    logging.getLogger("ctc_segmentation").info("every utterance")
    logging.getLogger("x").info("once")
    assert len(capsys.readouterr().err.splitlines()) == 1
