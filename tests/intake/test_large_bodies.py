"""GitHub's pushes of up to 25 MB: kept byte for byte, before the answer, and nothing stays of what is not kept."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
from collections import Counter as Counts
from typing import TYPE_CHECKING

import msgspec
import pytest

from glassq.bodies import INLINE, DirectoryBodies, check
from glassq.bodies.table import TableBodies
from glassq.delivery import decode
from glassq.intake.body_holder import MARGIN, BodyHolder
from glassq.intake.report import PATH as REPORT
from glassq.intake.report import SOCKET, SourcesReport
from glassq.journal import Journal, JournalRecord, journal_id
from glassq.local_http import fetch
from glassq.values import QueueUrl
from tests.bodies.test_directory import read, states
from tests.conftest import wait_for
from tests.intake.conftest import Web, empty
from tests.intake.wire import PATIENCE, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Beanstalkd
    from tests.postgres import PostgresServer

SECRET = "a-secret-that-nobody-guesses"
LARGEST = 25 << 20
PATH = "POST /hooks/github HTTP/1.1"


def push(size: int, *, secret: str = SECRET, path: str = PATH) -> bytes:
    """A push whose body has this size."""
    begin, end = b'{"ref":"refs/heads/main","filler":"', b'"}'
    return signed(begin + os.urandom((size - len(begin) - len(end) + 1) // 2).hex().encode() + end, secret, path, size)


def signed(body: bytes, secret: str, path: str, size: int) -> bytes:
    body = body[: size - 1] + b"}" if len(body) > size else body
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return request(body, f"X-Hub-Signature-256: sha256={digest}", "X-GitHub-Event: push", line=path)


def body_of(ping: bytes) -> bytes:
    return ping.partition(b"\r\n\r\n")[2]


@pytest.fixture
def start(
    tmp_path: Path, beanstalkd: Beanstalkd, start_web: Callable[..., Web]
) -> Iterator[Callable[..., tuple[Web, DirectoryBodies]]]:
    def started(
        *, url: str = "", bodies: str = "", sources: str = "", **settings: object
    ) -> tuple[Web, DirectoryBodies]:
        secrets = tmp_path / "github-secrets"
        secrets.write_text(SECRET + "\n")
        store = DirectoryBodies(tmp_path / "bodies")
        place = url or f"file://{store.directory}"
        sections = f'[bodies]\nurl = "{place}"\n{bodies}[sources.github]\nsecrets_file = "{secrets}"\n'
        sections += sources
        return start_web(beanstalkd.url, queue=sections, **settings), store

    yield started


@pytest.mark.parametrize("size", [INLINE, INLINE + 1, 1_000_000, LARGEST])
def test_a_push_is_kept_byte_for_byte_before_its_answer(
    beanstalkd: Beanstalkd, start: Callable[..., tuple[Web, DirectoryBodies]], size: int
) -> None:
    web, store = start()
    ping = push(size)
    assert web.ask(ping).status == 200
    (delivery,) = map(decode, empty(beanstalkd))
    assert delivery.labels["event"] == "push"
    if size > INLINE:
        assert (delivery.body, states(store)) == (b"", {delivery.id: "live"})
        assert delivery.stored is not None
        check(store, delivery.id, delivery.stored)
        assert read(store, delivery.id) == body_of(ping)
    else:
        assert (delivery.body, delivery.stored, states(store)) == (body_of(ping), None, {})


def test_what_is_refused_leaves_no_body(
    beanstalkd: Beanstalkd, start: Callable[..., tuple[Web, DirectoryBodies]]
) -> None:
    web, store = start()
    assert web.ask(push(1_000_000, secret="another")).status == 401
    assert web.ask(push(1_000_000, path="POST /hooks/nobody HTTP/1.1")).status == 404
    assert web.ask(push(INLINE, path="POST /hooks/mirror HTTP/1.1")).status == 413
    head = push(1_000_000).replace(b"Content-Length: 1000000", b"Content-Length: 26214401").partition(b"\r\n\r\n")[0]
    # nothing of the body is waited for
    assert web.ask(head + b"\r\n\r\n").status == 413
    wait_for(lambda: states(store) == {}, "the bodies to be gone")
    assert empty(beanstalkd) == []


def test_while_the_queue_is_away_the_journal_names_the_body(
    beanstalkd: Beanstalkd, start: Callable[..., tuple[Web, DirectoryBodies]]
) -> None:
    web, store = start()
    beanstalkd.stop()
    ping = push(1_000_000)
    assert web.ask(ping).status == 200
    (record,) = Journal(web.spool, max_size=1 << 30, min_free=0).waiting()
    assert states(store) == {record.key: "live"}
    assert decode(record.body).stored is not None
    beanstalkd.start()
    wait_for(lambda: web.journaled() == 0, "the journal to be moved on")
    (delivery,) = map(decode, empty(beanstalkd))
    assert read(store, delivery.id) == body_of(ping)


def test_while_its_database_is_away_a_body_waits_with_the_journal(
    beanstalkd: Beanstalkd, start: Callable[..., tuple[Web, DirectoryBodies]], postgres: PostgresServer
) -> None:
    database = postgres.database()
    store = TableBodies(postgres.url(database).whole)
    web, _ = start(url=postgres.url(database).whole)
    pings = [push(1_000_000) for _ in range(2)]
    assert web.ask(pings[0]).status == 200
    (first,) = map(decode, empty(beanstalkd))
    assert (first.body, read(store, first.id)) == (b"", body_of(pings[0]))
    postgres.execute("ALTER TABLE glassq_bodies RENAME TO away", database)
    assert web.ask(pings[1]).status == 200
    assert web.journaled() == 1
    # a small one is put as ever
    assert web.ask(push(1_000)).status == 200
    assert [len(delivery.body) for delivery in map(decode, empty(beanstalkd))] == [1_000]
    postgres.execute("ALTER TABLE away RENAME TO glassq_bodies", database)
    wait_for(lambda: web.journaled() == 0, "the body and its delivery to be moved on")
    (second,) = map(decode, empty(beanstalkd))
    assert second.stored is not None
    check(store, second.id, second.stored)


def test_kept_nowhere_means_no_body_either(
    beanstalkd: Beanstalkd, start: Callable[..., tuple[Web, DirectoryBodies]]
) -> None:
    # the journal is full from the start
    web, store = start(journal_min_free="1000000GiB")
    assert web.ask(push(1_000_000)).status == 200
    empty(beanstalkd)
    (key,) = states(store)
    store.delete(key)
    beanstalkd.stop()
    answers = [web.ask(push(1_000_000)) for _ in range(2)]
    assert [(answer.status, answer.headers["retry-after"]) for answer in answers] == [(503, "5")] * 2
    # what the queue was asked to take may be there all the same: that body stays for the sweep
    wait_for(lambda: len(states(store)) <= 1, "the second one to be gone")
    assert "unfinished" not in states(store).values()


def test_without_room_in_the_store_small_pings_are_taken_as_ever(
    beanstalkd: Beanstalkd, start: Callable[..., tuple[Web, DirectoryBodies]]
) -> None:
    web, store = start(bodies='min_free = "1000000GiB"\n')
    answer = web.ask(push(1_000_000))
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert "no room" in web.log()
    assert web.ask(push(1_000)).status == 200
    assert (len(empty(beanstalkd)), states(store)) == (1, {})


def test_where_the_store_cannot_be_made_the_start_says_so(
    tmp_path: Path, start: Callable[..., tuple[Web, DirectoryBodies]]
) -> None:
    (tmp_path / "bodies").write_text("in the way")
    with pytest.raises(AssertionError, match=r'\[bodies\] url = "file://.*/bodies": bodies .*: Not a directory'):
        start()


# Sources of every sort of proof that a head can have; those of HMAC need the body as well.
SORTS = """
[sources.word]
kind = "none"
path_token_file = "{secrets}"
[sources.near]
kind = "none"
allow = ["192.0.2.0/24"]
[sources.header]
kind = "token"
header = "X-Token"
secrets_file = "{secrets}"
[sources.basic]
kind = "token"
token = "basic"
username = "u"
secrets_file = "{secrets}"
[sources.bearer]
kind = "token"
token = "bearer"
secrets_file = "{secrets}"
[sources.json]
kind = "token"
token = "json:token"
secrets_file = "{secrets}"
[sources.slack]
secrets_file = "{secrets}"
[sources.standard]
secrets_file = "{keys}"
[sources.typed]
kind = "token"
header = "X-Token"
secrets_file = "{secrets}"
content_types = ["application/json"]
"""
LONG_AGO, NEVER = "X-Slack-Request-Timestamp: 1000000000", "X-Slack-Request-Timestamp: never"
SIGNED = "X-Slack-Signature: v0=" + 64 * "0"
OLD = ("webhook-id: 1", "webhook-timestamp: 1000000000", "webhook-signature: v1,AAAA")


@pytest.fixture
def sorts(tmp_path: Path, start: Callable[..., tuple[Web, DirectoryBodies]]) -> tuple[Web, DirectoryBodies, Path]:
    """One server with all sorts, its store, and its runtime directory."""
    keys, runtime = tmp_path / "keys", tmp_path / "run"
    keys.write_text("whsec_" + base64.b64encode(bytes(24)).decode() + "\n")
    runtime.mkdir()
    more = SORTS.format(secrets=tmp_path / "github-secrets", keys=keys)
    return (*start(sources=more, under=("env", f"RUNTIME_DIRECTORY={runtime}"), trusted_proxies=["127.0.0.1"]), runtime)


def test_what_the_head_shows_to_be_wrong_is_refused_before_its_body(
    sorts: tuple[Web, DirectoryBodies, Path],
) -> None:
    web, store, runtime = sorts
    basic = base64.b64encode(b"u:x").decode()
    refused = [
        ("word", 404, "path token", []),
        ("word/another", 404, "path token", []),
        ("near", 403, "address", []),
        ("header", 401, "no token", []),
        ("header", 401, "wrong token", ["X-Token: x"]),
        ("basic", 401, "wrong token", [f"Authorization: Basic {basic}"]),
        ("bearer", 401, "wrong token", ["Authorization: Bearer x"]),
        ("typed", 415, "content type", [f"X-Token: {SECRET}", "Content-Type: text/x"]),
        ("typed", 415, "encoding", [f"X-Token: {SECRET}", "Content-Encoding: gzip"]),
        ("github", 401, "no signature", []),
        ("slack", 401, "no signature", [LONG_AGO]),
        ("slack", 401, "too old", [LONG_AGO, SIGNED]),
        ("slack", 401, "malformed", [NEVER, SIGNED]),
        ("standard", 401, "no signature", OLD[:2]),
        ("standard", 401, "too old", OLD),
    ]
    for path, status, reason, headers in refused:
        kind = None if any(each.startswith("Content-Type") for each in headers) else "application/json"
        line = f"POST /hooks/{path} HTTP/1.1"
        with web.wire() as wire:
            wire.send(request(b"", *headers, "Expect: 100-continue", line=line, kind=kind, length=1_000_000))
            answer = wire.answer()
        assert (path, reason, answer.status, answer.closing) == (path, reason, status, True)
    counted = Counts((path.partition("/")[0], reason) for path, _, reason, _ in refused)
    told = report(runtime)
    for (name, reason), many in counted.items():
        assert (name, reason, told.sources[name].refused.get(reason)) == (name, reason, many)
    # a time that nobody has proven says nothing about the sender's clock
    assert told.sources["slack"].refused_skew is None
    assert states(store) == {}


def test_what_its_head_may_prove_is_received(sorts: tuple[Web, DirectoryBodies, Path], beanstalkd: Beanstalkd) -> None:
    web, store, _ = sorts
    basic, big = base64.b64encode(f"u:{SECRET}".encode()).decode(), b" " * 100_000
    asked = [
        (f"word/{SECRET}", 200, []),
        ("header", 200, [f"X-Token: {SECRET}"]),
        ("basic", 200, [f"Authorization: Basic {basic}"]),
        ("bearer", 200, [f"Authorization: Bearer {SECRET}"]),
        ("json", 401, []),
        ("slack", 401, [f"X-Slack-Request-Timestamp: {time.time():.0f}", SIGNED]),
    ]
    for path, status, headers in asked:
        line = f"POST /hooks/{path} HTTP/1.1"
        with web.wire() as wire:
            wire.send(request(b"", *headers, "Expect: 100-continue", line=line, length=len(big)))
            assert wire.answer().status == 100
            wire.send(big)
            assert (path, wire.answer().status) == (path, status)
    assert len(empty(beanstalkd)) == 4
    wait_for(lambda: len(states(store)) == 4, "the bodies of the refused to be gone")


def test_a_large_body_that_is_not_received_counts_as_its_sources(
    sorts: tuple[Web, DirectoryBodies, Path],
) -> None:
    web, store, runtime = sorts
    store.directory.joinpath("unfinished").rmdir()
    answer = web.ask(push(1_000_000))
    assert answer.status == 503
    store.directory.joinpath("unfinished").mkdir()
    with web.wire() as wire:
        wire.send(push(1_000_000)[:5000])
    wait_for(lambda: report(runtime).sources["github"].refused == {"not kept": 1, "cut off": 1}, "both to be counted")


def report(runtime: Path) -> SourcesReport:
    return msgspec.json.decode(fetch(str(runtime / SOCKET), REPORT, timeout=PATIENCE), type=SourcesReport)


def test_it_says_which_bodies_its_journal_may_name(
    beanstalkd: Beanstalkd, start: Callable[..., tuple[Web, DirectoryBodies]]
) -> None:
    web, store = start()
    wait_for(lambda: len(list(store.holders())) == 2, "it to be said")
    holder, queue = store.holders()
    assert (queue.key.startswith("queue-"), queue.since) == (True, 0)
    assert holder.key == journal_id(web.spool)
    assert holder.about.endswith(f": {web.spool}")
    # nothing is journaled
    assert holder.since == pytest.approx(time.time() - MARGIN, abs=PATIENCE)


def test_the_time_of_a_journal_is_that_of_its_oldest_delivery(tmp_path: Path) -> None:
    store, journal = DirectoryBodies(tmp_path / "bodies"), Journal(tmp_path / "spool", max_size=1 << 26, min_free=0)
    store.prepare()
    then = time.time() - 7200
    journal.write([JournalRecord(f"{int(then * 1000):012x}" + 20 * "0", b"{}")])
    BodyHolder(store, journal, QueueUrl("beanstalk://127.0.0.1:11300")).tend()
    assert [holder.since for holder in store.holders()] == [pytest.approx(then - MARGIN, abs=2), 0]
    # what is set aside may be of any age
    (tmp_path / "spool" / "refused" / "x.job").touch()
    journal.retire(["x"])
    BodyHolder(store, journal, QueueUrl("beanstalk://127.0.0.1:11300")).tend()
    assert [holder.since for holder in store.holders()] == [pytest.approx(then - MARGIN, abs=2), 0]
    journal.close()
