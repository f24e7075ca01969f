"""Values in PostgreSQL's binary form: what the server makes of them, and what comes back."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from glassq.database.binary import encoded, numbered
from glassq.database.postgres import PostgresSession
from glassq.errors import QueueError
from glassq.values import Tube
from tests.conftest import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.postgres import PostgresServer

NOON = datetime(2026, 11, 29, 12, 0, 0, 123456, tzinfo=UTC)
# A value, the type that PostgreSQL must take it for, and its text there.
SAID = [
    (0, "bigint", "0"),
    (-(2**63), "bigint", str(-(2**63))),
    (2**63 - 1, "bigint", str(2**63 - 1)),
    (1.5, "double precision", "1.5"),
    (float("inf"), "double precision", "Infinity"),
    ("", "text", ""),
    ("Ü €", "text", "Ü €"),
    (Tube("glassq.push.a"), "text", "glassq.push.a"),
    (b"", "bytea", "\\x"),
    (b"\x00\xff", "bytea", "\\x00ff"),
    (NOON, "timestamp with time zone", "2026-11-29 12:00:00.123456+00"),
    (NOON.astimezone(timezone(timedelta(hours=2))), "timestamp with time zone", "2026-11-29 12:00:00.123456+00"),
    (datetime(1970, 1, 1, tzinfo=UTC), "timestamp with time zone", "1970-01-01 00:00:00+00"),
    ([1, 2], "bigint[]", "{1,2}"),
    ([0.5], "double precision[]", "{0.5}"),
    (["a", "", "b,c"], "text[]", '{a,"","b,c"}'),
    ([b"a", b""], "bytea[]", '{"\\\\x61","\\\\x"}'),
    ([NOON], "timestamp with time zone[]", '{"2026-11-29 12:00:00.123456+00"}'),
]
# What is asked, and what comes.
READ = [
    ("SELECT true, false, NULL::int", (True, False, None)),
    ("SELECT 7::smallint, (-7)::int, 7::bigint", (7, -7, 7)),
    ("SELECT 'a'::text, '\\x00ff'::bytea, 0.5::float8", ("a", b"\x00\xff", 0.5)),
    ("SELECT timestamptz '2026-11-29 12:00:00.123456+00'", (NOON,)),
    ("SELECT pg_sleep(0), '100%%'::text", (None, "100%")),
]


@pytest.fixture(scope="module")
def session(postgres: PostgresServer) -> Iterator[PostgresSession]:
    url = postgres.url(postgres.database())
    with closing(PostgresSession(url, name="tests", connect_timeout=PATIENCE, timeout=PATIENCE)) as made:
        made.rows("SET timezone = 'UTC'")
        yield made


@pytest.mark.parametrize(("value", "kind", "text"), SAID)
def test_a_value_arrives_as_it_is(session: PostgresSession, value: object, kind: str, text: str) -> None:
    asked = f"SELECT pg_typeof(%b)::text, (%b::{kind})::text"
    assert session.quick_rows(asked, [value, value]) == [(kind, text)]


@pytest.mark.parametrize(("value", "kind", "text"), [each for each in SAID if not isinstance(each[0], list)])
def test_a_value_comes_back_as_it_was(session: PostgresSession, value: object, kind: str, text: str) -> None:
    assert session.quick_rows(f"SELECT %b::{kind}", [value]) == [(value,)]


@pytest.mark.parametrize(("asked", "wanted"), READ)
def test_columns_are_read(session: PostgresSession, asked: str, wanted: tuple[object, ...]) -> None:
    assert session.quick_rows(asked, []) == [wanted]


def test_what_is_not_known_is_a_mistake_of_ours(session: PostgresSession) -> None:
    with pytest.raises(KeyError):
        encoded([object()])
    with pytest.raises(KeyError):
        session.quick_rows("SELECT 1.5::numeric", [])
    assert session.quick_rows("SELECT 1::int", []) == [(1,)]


def test_the_rows_are_all_there_and_an_error_is_in_words(session: PostgresSession) -> None:
    assert session.quick_rows("SELECT * FROM unnest(%b::bigint[])", [list(range(1000))]) == [(n,) for n in range(1000)]
    assert session.quick_rows("SELECT 1::int WHERE false", []) == []
    for asked in ("SELECT 1 / (%b::int - 1)", "SELECT nonsense"):
        with pytest.raises(QueueError, match=r"division by zero|nonsense"):
            session.quick_rows(asked, [1] if "%b" in asked else [])
    assert session.quick_rows("SELECT 1 / (%b::int - 1)", [2]) == [(1,)]


def test_a_notify_that_comes_with_an_answer_is_kept(session: PostgresSession) -> None:
    session.run("LISTEN tests")
    session.quick_rows("SELECT pg_notify('tests', %b)", ["told"])
    session.quick_rows("SELECT 1::int", [])
    assert session.listen(time.monotonic() + PATIENCE, 0) == ["told"]


def test_places_are_numbered() -> None:
    assert numbered("SELECT %b, %b LIKE 'a%%'") == "SELECT $1, $2 LIKE 'a%'"
    assert numbered("SELECT 1") == "SELECT 1"
