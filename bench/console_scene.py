"""A queue and a ledger with very much in them, which know of each other: what the console is measured on."""

from __future__ import annotations

import json
import socket
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from glassq import delivery as envelope
from glassq.delivery import Evidence
from glassq.ledger import Entry, open_ledger
from glassq.settings import LedgerSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PACKET = 200
CAUSES = ("503 Service Unavailable from photos", "KeyError: 'photo'", "took longer than 60 s", "no consent of user {}")
# Of the ledger's rows, this share waits in the queue for another try; in seconds from now.
RETRYING, LATER = 0.02, 36_000
# So many activities are in the ledger, beside its rows.
ACTIVITIES = 5_000
LABELS = {"collection": "timeline", "operation": "INSERT"}


class Kept(NamedTuple):
    """A delivery in the queue, as the ledger names it."""

    delivery: str
    state: str
    job: int
    at: datetime
    reason: str


def fill(port: int, buried: int, retrying: int) -> list[Kept]:
    """Puts so many deliveries, before there is a pool: first those that are tried again much later."""
    now = datetime.now(UTC)
    with socket.create_connection(("127.0.0.1", port)) as sock, sock.makefile("rb") as answers:
        sock.sendall(b"use glassq\r\n")
        answers.readline()
        kept = []
        for numbers in _packets(retrying):
            deliveries = [_failed(number, now) for number in numbers]
            ids = _put(sock, answers, [replace(each, buried="") for each in deliveries], LATER)
            kept += [_kept(each, "retrying", job) for each, job in zip(deliveries, ids, strict=True)]
        for numbers in _packets(buried):
            deliveries = [_failed(number, now) for number in numbers]
            ids = _put(sock, answers, deliveries, 0)
            sock.sendall(b"".join(b"reserve-job %d\r\nbury %d 1024\r\n" % (job, job) for job in ids))
            for _ in ids:
                size = int(answers.readline().split()[2])
                answers.read(size + 2)
                answers.readline()
            kept += [_kept(each, "buried", job) for each, job in zip(deliveries, ids, strict=True)]
    return kept


def _packets(many: int) -> Iterator[range]:
    return (range(first, min(first + PACKET, many)) for first in range(0, many, PACKET))


def _put(sock: socket.socket, answers: object, deliveries: Sequence[envelope.Delivery], delay: int) -> list[int]:
    bodies = [envelope.encode(each) for each in deliveries]
    sock.sendall(b"".join(b"put 1024 %d 120 %d\r\n%b\r\n" % (delay, len(body), body) for body in bodies))
    return [int(answers.readline().split()[1]) for _ in bodies]  # type: ignore[attr-defined]


def _failed(number: int, now: datetime) -> envelope.Delivery:
    words = CAUSES[number % len(CAUSES)].format(number)
    at = now - timedelta(seconds=number % 40_000)
    failure = Evidence(attempt=1, outcome="bury", error="HttpError", message=words, at=at, duration=0.1, host="a")
    return replace(envelope.new("mirror", _ping(number), LABELS), buried=words, evidence=(failure,))


def _ping(number: int) -> bytes:
    return json.dumps({"collection": "timeline", "itemId": f"item-{number}", "userToken": f"user-{number}"}).encode()


def _kept(delivery: envelope.Delivery, state: str, job: int) -> Kept:
    return Kept(delivery.id, state, job, delivery.evidence[-1].at, delivery.evidence[-1].message)


def record(file: Path, rows: int, kept: Sequence[Kept]) -> None:
    """A ledger with so many rows: those of what is kept, and the others done within the last day."""
    ledger = open_ledger(LedgerSettings(url=f"sqlite:///{file}"))
    now = datetime.now(UTC)
    ledger.record(Entry("first", "mirror", now, "done", 1, now, 0.1))
    ledger.close()
    with closing(sqlite3.connect(file)) as database, database:
        database.executemany(
            "INSERT INTO deliveries (delivery, source, received, state, attempts, updated, duration, job, result,"
            " reason, started, tube, labels, body) VALUES (?, 'mirror', ?, ?, 1, ?, 0.1, ?, ?, ?, ?, 'glassq', ?, ?)",
            _rows(rows, kept, now),
        )
        database.executemany(
            "INSERT INTO glassq_activity (id, at, actor, via, did, command, filter, chosen, done, failed, remaining,"
            " run, state, note, cause) VALUES (?, ?, ?, 'cli', ?, '', '', 1, 1, 0, 0, '', 'done', '', '')",
            (
                (f"{n:032x}", _stamp(now - timedelta(minutes=n)), f"user{n % 9}", ("kick", "sign-in")[n % 2])
                for n in range(ACTIVITIES)
            ),
        )


def _rows(rows: int, kept: Sequence[Kept], now: datetime) -> Iterator[tuple[object, ...]]:
    for each in kept:
        at = _stamp(each.at)
        yield each.delivery, at, each.state, at, str(each.job), "", each.reason, at, None, None
    others = max(0, rows - len(kept))
    labels = json.dumps(LABELS, separators=(",", ":"))
    for n in range(others):
        at = _stamp(now - timedelta(seconds=86_400 * n / others))
        yield done(n), at, "done", at, "", "stored a photo", "", at, labels, _ping(n)


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def done(number: int) -> str:
    """The id of a delivery that is done; the numbers begin with 0."""
    return f"00000000-0000-7000-8000-{number:012x}"
