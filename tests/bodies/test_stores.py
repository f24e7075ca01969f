"""What every store of bodies promises: a directory, tables, buckets; each with its real server."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from glassq.bodies import DirectoryBodies, check
from glassq.bodies.base import BodyInfo
from glassq.bodies.gcs import GoogleBucket
from glassq.bodies.objects import ObjectBodies
from glassq.bodies.s3 import AmazonBucket
from glassq.bodies.table import TableBodies
from glassq.delivery import StoredBody, new_id
from glassq.errors import BodyError, BodyLost
from tests.bodies.test_directory import put, read, states
from tests.fakes.gcs import FakeGcs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.bodies.base import BodyStore
    from tests.postgres import PostgresServer

# more than two chunks of each store
BODY = os.urandom((2 << 20) + 17)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    # in this process, in a thread of its own: state in memory
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["directory", "table", "gs", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BodyStore]:
    if request.param == "directory":
        made = DirectoryBodies(tmp_path / "bodies")
        made.prepare()
        yield made
    elif request.param == "table":
        server: PostgresServer = request.getfixturevalue("postgres")
        yield TableBodies(server.url(server.database()).whole)
    elif request.param == "gs":
        with FakeGcs("pings") as gcs:
            yield ObjectBodies(GoogleBucket("pings", endpoint=gcs.url), "a/b/")
    else:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import boto3

        endpoint, name = request.getfixturevalue("s3"), f"bucket{time.monotonic_ns()}"
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=name)
        yield ObjectBodies(AmazonBucket(name, endpoint=endpoint), "")


def test_a_body_lives_is_done_and_goes(store: BodyStore) -> None:
    assert list(store.list()) == []
    began = time.time()
    key, stored = put(store, BODY)
    assert stored == StoredBody(len(BODY), hashlib.sha256(BODY).hexdigest())
    check(store, key, stored)
    assert read(store, key) == BODY
    (info,) = store.list()
    assert info == BodyInfo(key, len(BODY), info.touched, "live")
    assert abs(info.touched - began) < 3600
    store.delete(key, "done")
    store.touch(key)
    store.retire(key)
    store.retire(key)
    assert states(store) == {key: "done"}
    assert read(store, key) == BODY
    store.delete(key, "live")
    assert states(store) == {key: "done"}
    store.delete(key)
    store.delete(key)
    assert states(store) == {}
    with pytest.raises(BodyLost, match=key):
        store.open(key)


def test_a_body_that_is_touched_when_it_is_done_is_live_again(store: BodyStore) -> None:
    """Its job is there after all, and comes in a new form."""
    key, stored = put(store, BODY)
    store.retire(key)
    store.touch(key)
    assert states(store) == {key: "live"}
    check(store, key, stored)
    # no mark of the old state is left
    store.delete(key, "done")
    assert states(store) == {key: "live"}
    store.touch(gone := new_id())
    assert gone not in states(store)


def test_two_deliveries_share_a_body_and_neither_takes_it_from_the_other(store: BodyStore) -> None:
    old, stored = put(store, BODY)
    store.retire(old)
    new = new_id()
    store.link(old, new)
    assert states(store) == {old: "done", new: "live"}
    store.delete(old)
    check(store, new, stored)
    with pytest.raises(BodyLost):
        store.link(old, new_id())


def test_a_body_that_is_discarded_was_never_there(store: BodyStore) -> None:
    writer = store.begin(new_id(), 5)
    writer.write(b"hello")
    with writer.view() as seen:
        assert seen[:] == b"hello"
    writer.discard()
    writer.discard()
    assert states(store) == {}


def test_a_body_that_comes_again_replaces_what_was_there(store: BodyStore) -> None:
    key, _ = put(store, BODY)
    put(store, b"shorter", key)
    assert (read(store, key), states(store)) == (b"shorter", {key: "live"})


def test_journals_say_what_they_may_name(store: BodyStore) -> None:
    put(store, b"something")
    store.hold("one", None, "host: /spool")
    store.hold("two", 50.0, "other")
    store.hold("one", 70.0, "host: /spool")
    store.hold("one", None, "host: /spool")
    assert {(each.key, each.since, each.about) for each in store.holders()} == {
        ("one", 70.0, "host: /spool"),
        ("two", 50.0, "other"),
    }
    assert all(abs(each.seen - time.time()) < 3600 for each in store.holders())
    store.let_go("two")
    assert [each.key for each in store.holders()] == ["one"]


def test_hosts_tell_each_other_when_all_jobs_were_looked_at(store: BodyStore) -> None:
    assert store.looked() == 0
    store.note_look(1_000_000.0)
    store.note_look(2_000_000.0)
    assert store.looked() == 2_000_000


@pytest.mark.parametrize("key", ["", "..", "a/b", "a\0b", "x" * 65, ".hidden"])
def test_a_key_is_never_a_path(store: BodyStore, key: str) -> None:
    with pytest.raises(BodyError, match="not a key"):
        store.begin(key)


def test_one_host_at_a_time_sweeps_the_tables(postgres: PostgresServer) -> None:
    url = postgres.url(postgres.database()).whole
    one, two = TableBodies(url), TableBodies(url)
    with one.alone() as first, two.alone() as second:
        assert (first, second) == (True, False)
    with two.alone() as second:
        assert second


def test_two_hosts_put_the_same_body_at_once(postgres: PostgresServer) -> None:
    """As two intakes move on the same delivery: one waits for the other, and both are right."""
    url, key = postgres.url(postgres.database()).whole, new_id()
    stores = [TableBodies(url) for _ in range(4)]
    threads = [threading.Thread(target=put, args=(store, BODY, key)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(stores[0], key) == BODY
    assert states(stores[0]) == {key: "live"}


def test_a_body_in_tables_that_is_deleted_while_it_is_read_is_lost(postgres: PostgresServer) -> None:
    store = TableBodies(postgres.url(postgres.database()).whole)
    key, _ = put(store, BODY)
    with store.open(key) as file:
        file.read(10)
        store.delete(key)
        with pytest.raises(BodyLost):
            file.read()


def test_tables_far_away_that_are_down_are_said_so(tmp_path: Path, postgres: PostgresServer) -> None:
    store = TableBodies(postgres.url("nowhere").whole)
    with pytest.raises(BodyError, match=r'bodies cannot be written: .*"nowhere" does not exist') as caught:
        put(store, BODY)
    assert not isinstance(caught.value, BodyLost)
