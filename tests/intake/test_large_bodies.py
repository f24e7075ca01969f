"""GitHub's pushes of up to 25 MB: kept byte for byte, before the answer, and nothing stays of what is not kept."""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import TYPE_CHECKING

import pytest

from glassq.bodies import INLINE, DirectoryBodies, check
from glassq.delivery import decode
from glassq.journal import Journal
from tests.bodies.test_directory import read, states
from tests.conftest import wait_for
from tests.intake.conftest import Web, empty
from tests.intake.wire import request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Beanstalkd

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
    def started(*, bodies: str = "", **settings: object) -> tuple[Web, DirectoryBodies]:
        secrets = tmp_path / "github-secrets"
        secrets.write_text(SECRET + "\n")
        store = DirectoryBodies(tmp_path / "bodies")
        sections = f'[bodies]\nurl = "file://{store.directory}"\n{bodies}[sources.github]\nsecrets_file = "{secrets}"\n'
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
