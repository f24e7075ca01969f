from __future__ import annotations

import io
import json
import logging
import re
from typing import TYPE_CHECKING

import pytest

from glassq import log
from glassq.log import escape, fields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    log.setup("info", stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


FORGERIES = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1b[2K", "\x85", "\u2028", "\u2029", "\x00", "\x9b", "\u202e"]


@pytest.mark.parametrize("end", FORGERIES)
def test_no_value_ends_its_line_or_moves_the_cursor(lines: io.StringIO, end: str) -> None:
    logging.getLogger("glassq.intake").info("ping refused %s", fields(reason=f"bad{end}2026-01-31 error forged"))
    (line,) = lines.getvalue().splitlines()
    assert line.isprintable()


def test_words_themselves_end_no_line(lines: io.StringIO) -> None:
    logging.getLogger("x").info("one\ntwo")
    assert lines.getvalue().count("\n") == 1


def test_a_line_says_when_how_bad_and_who(lines: io.StringIO) -> None:
    logging.getLogger("glassq.intake").warning("ping refused %s", fields(status=400))
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} warning glassq\.intake\[\d+\]: ping refused status=400\n"
    assert re.fullmatch(pattern, lines.getvalue())


def test_a_traceback_keeps_its_lines_and_nothing_else(lines: io.StringIO) -> None:
    try:
        raise ValueError("red \x1b[31m alert")
    except ValueError:
        logging.getLogger("x").exception("failed")
    assert "\x1b" not in lines.getvalue()
    assert len(lines.getvalue().splitlines()) > 3


def test_the_level_of_the_settings_is_kept(lines: io.StringIO) -> None:
    logging.getLogger("x").debug("too much")
    assert lines.getvalue() == ""


@pytest.mark.parametrize(
    ("library", "told", "quiet"),
    [
        ("google.auth.transport", logging.WARNING, logging.INFO),
        ("httplib2", logging.WARNING, logging.INFO),
        # their warnings quote URL and answer, and what a server did is in the reason of the attempt
        ("googleapiclient.http", logging.ERROR, logging.WARNING),
        ("urllib3.connectionpool", logging.ERROR, logging.WARNING),
    ],
)
def test_chatty_libraries_are_heard_when_it_is_bad(lines: io.StringIO, library: str, told: int, quiet: int) -> None:
    logging.getLogger(library).log(quiet, "GET /users/42")
    logging.getLogger(library).log(told, "it is bad")
    assert "it is bad" in lines.getvalue()
    assert "users/42" not in lines.getvalue()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "k=plain"),
        ("two words", 'k="two words"'),
        ("", 'k=""'),
        ('a" x="b', "k=\"a' x='b\""),
        ("a=b", 'k="a=b"'),
        ("tab\there", r'k="tab\there"'),
        (1.23456, "k=1.235"),
        (7, "k=7"),
        (None, "k=None"),
        ("gs://bucket/a-b_c.jpg", "k=gs://bucket/a-b_c.jpg"),
    ],
)
def test_values_are_quoted_where_a_reader_could_take_them_for_more(value: object, written: str) -> None:
    assert fields(k=value) == written


def test_what_is_escaped_can_be_written_to_any_terminal() -> None:
    assert escape("a\x07\udc80\u2066b") == r"a\x07\udc80\u2066b"
    assert escape("Grüße, 世界") == "Grüße, 世界"


def test_no_line_of_a_traceback_can_pass_for_one_of_ours(lines: io.StringIO) -> None:
    try:
        raise ValueError("z\n2026-11-23T17:00:00+0000 info glassq.worker[1]: done delivery=forged")
    except ValueError:
        logging.getLogger("handlers").exception("handling failed")
    first, *rest = lines.getvalue().splitlines()
    assert "handling failed" in first
    assert any("forged" in line for line in rest)
    assert all(line.startswith("  | ") for line in rest)


@pytest.fixture
def root() -> Iterator[None]:
    logger = logging.getLogger()
    before, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = before
    logger.setLevel(level)


@pytest.mark.usefixtures("root")
def test_as_json_each_event_is_one_object_with_its_fields() -> None:
    stream = io.StringIO()
    log.setup("info", stream, form="json")
    logging.getLogger("glassq.worker").error("child died %s", fields(pid=7, how="SIGKILL", job=3, level="x\ny\u2028"))
    logging.getLogger("glassq.worker").info("100 %% of %s", "it")
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("x").exception("failed")
    died, words, failed = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (died["event"], died["level"], died["logger"], died["pid_"], died["how"], died["job"]) == (
        "child died", "error", "glassq.worker", 7, "SIGKILL", 3,
    )  # fmt: skip
    assert died["level_"] == "x\ny\u2028"
    assert stream.getvalue().isascii()
    assert words["event"] == "100 % of it"
    assert failed["traceback"].endswith("ValueError: no")


@pytest.mark.usefixtures("root")
def test_in_the_journal_each_line_has_its_priority_and_elsewhere_none(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w+") as stream:
        found = (tmp_path / "journal").stat()
        log.setup("debug", stream, journal=f"{found.st_dev}:{found.st_ino}")
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger("x").log(level, "said")
        try:
            raise ValueError("no")
        except ValueError:
            logging.getLogger("x").exception("failed")
        log.setup("debug", stream, journal=f"{found.st_dev}:{found.st_ino + 1}")
        logging.getLogger("x").info("last")
        stream.seek(0)
        lines = stream.read().splitlines()
    assert [line[:3] for line in lines[:4]] == ["<7>", "<6>", "<4>", "<3>"]
    assert all(line.startswith("<3>") for line in lines[4:-1])
    assert lines[-1].endswith("last")
    assert not lines[-1].startswith("<")
    # the journal stamps what it takes with time and pid
    assert lines[1] == "<6>info x: said"
    assert re.fullmatch(r"\S+ info x\[\d+\]: last", lines[-1])
