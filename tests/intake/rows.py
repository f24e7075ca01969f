"""How one row of the table of bad inputs is held: the bytes, and all that must be true of the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.intake.conftest import assert_clean
from tests.intake.wire import HEALTH, MARKER, TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.intake.conftest import Web


@dataclass(frozen=True)
class Row:
    """`statuses` are the right ones; `closes` says whether the connection must end (None: either)."""

    name: str
    data: bytes
    statuses: tuple[int, ...]
    closes: bool | None = None
    half_close: bool = False
    headless: bool = False
    allow: bool = False


def table(*rows: Row) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


def hold(row: Row, web: Web, jobs: Callable[[], list[bytes]]) -> None:
    """Sends the row to a real server, and looks at the answer, the connection, the log and the queue."""
    known = len(web.log())
    with web.wire() as wire:
        wire.send(row.data)
        if row.half_close:
            wire.half_close()
        answer = wire.answer(headless=row.headless)
        assert answer.status in row.statuses, answer
        assert answer.headers["date"]
        if answer.closing:
            assert wire.rest() == b""
        elif not row.half_close:
            # the next request is understood as one: the server and we agree where this one ended
            following = wire.ask(HEALTH)
            assert (following.status, following.body) == (200, b"ok\n")
        assert row.closes in (None, answer.closing)
        assert MARKER.encode() not in wire.seen
        assert TOKEN.encode() not in wire.seen
    if answer.status >= 400 and not row.headless:
        assert answer.is_problem(), answer
    assert bool(answer.headers.get("allow")) is row.allow
    assert len(jobs()) == (1 if answer.status == 200 else 0)
    assert_clean(web.log())
    assert web.log()[known:].count("\n") == 1, "one line per event"
