"""What a line says beside its own words: what it is about, and what went wrong with the words themselves."""

from __future__ import annotations

import io
import json
import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glassq import log
from glassq.log import bind_context, fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Of a handler, whose words are its own.
HANDLERS = logging.getLogger("handlers")
OURS = logging.getLogger("glassq.worker")


@pytest.fixture
def written() -> Iterator[Callable[[str], io.StringIO]]:
    """Begins to log in a form; what is written."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level

    def begin(form: str) -> io.StringIO:
        stream = io.StringIO()
        log.setup("info", stream, form=form)
        return stream

    yield begin
    bind_context()
    root.handlers[:] = before
    root.setLevel(level)


def test_a_line_says_what_it_is_about_where_it_does_not_itself(written: Callable[[str], io.StringIO]) -> None:
    stream = written("text")
    bind_context(delivery="d1", attempt=2)
    HANDLERS.info("photo %s", "fetched")
    OURS.info("done %s", fields(delivery="d1", job=7))
    bind_context()
    OURS.info("pool is ready")
    said = [line.partition("]: ")[2] for line in stream.getvalue().splitlines()]
    assert said == ["photo fetched delivery=d1 attempt=2", "done delivery=d1 job=7 attempt=2", "pool is ready"]


def test_as_json_it_is_in_fields_of_its_own(written: Callable[[str], io.StringIO]) -> None:
    stream = written("json")
    bind_context(delivery="d1", attempt=2)
    HANDLERS.info("photo fetched")
    OURS.info("done %s", fields(delivery="d1", job=7))
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["delivery"], first["attempt"]) == ("photo fetched", "d1", 2)
    assert (second["delivery"], second["job"], second["attempt"]) == ("d1", 7, 2)
    assert "delivery_" not in second


def test_what_a_handler_s_words_pretend_comes_before_what_is_so(written: Callable[[str], io.StringIO]) -> None:
    stream = written("text")
    bind_context(delivery="d1", attempt=2)
    HANDLERS.info("fetched delivery=forged attempt=9")
    assert stream.getvalue().endswith("fetched delivery=forged attempt=9 delivery=d1 attempt=2\n")


def test_another_thread_s_lines_are_about_something_else(written: Callable[[str], io.StringIO]) -> None:
    stream = written("text")
    bind_context(delivery="d1", attempt=2)
    other = threading.Thread(target=lambda: OURS.info("ledger is written again"))
    other.start()
    other.join()
    assert stream.getvalue().endswith("ledger is written again\n")


@pytest.mark.parametrize("form", ["text", "json"])
def test_words_and_values_that_do_not_fit_are_told_in_one_line(
    written: Callable[[str], io.StringIO], form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = written(form)
    bind_context(delivery="d1", attempt=2)
    HANDLERS.info("%d photos", "a\nb")
    HANDLERS.info("two %s %s", "one")
    first, _ = lines = stream.getvalue().splitlines()
    assert all("this cannot be logged" in line and "d1" in line for line in lines)
    assert "%d photos" in first
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("written")
def test_a_stream_that_cannot_be_written_ends_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115 - closing it, too, tries to write
    try:
        log.setup("info", full)
        HANDLERS.info("is there room?")
    finally:
        with suppress(OSError):
            full.close()
    assert capsys.readouterr().err == ""
