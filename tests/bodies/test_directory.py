"""The store of large bodies as a directory: when a body counts, and what each step leaves."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glassq.bodies import DirectoryBodies, check
from glassq.bodies.base import BodyInfo
from glassq.delivery import StoredBody, new_id
from glassq.errors import BodyDamaged, BodyError, BodyLost

if TYPE_CHECKING:
    from glassq.bodies import BodyStore

BODY = os.urandom(100_000)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryBodies:
    made = DirectoryBodies(tmp_path / "bodies")
    made.prepare()
    return made


def put(store: BodyStore, body: bytes = BODY, key: str = "") -> tuple[str, StoredBody]:
    key = key or new_id()
    writer = store.begin(key, len(body))
    for start in range(0, len(body), 30_000):
        writer.write(body[start : start + 30_000])
    return key, writer.finish()


def read(store: BodyStore, key: str) -> bytes:
    with store.open(key) as file:
        return file.read()


def states(store: BodyStore) -> dict[str, str]:
    return {info.key: info.state for info in store.list()}


def test_a_finished_body_is_what_was_written(store: DirectoryBodies) -> None:
    key, stored = put(store)
    assert stored == StoredBody(len(BODY), hashlib.sha256(BODY).hexdigest())
    assert read(store, key) == BODY
    check(store, key, stored)
    (info,) = store.list()
    assert info == BodyInfo(key, len(BODY), info.touched, "live")


def test_nobody_opens_what_is_not_finished_but_its_writer_sees_it(store: DirectoryBodies) -> None:
    key = new_id()
    writer = store.begin(key)
    writer.write(BODY)
    with writer.view() as seen:
        assert seen[:] == BODY
    with pytest.raises(BodyLost, match="is not in"):
        store.open(key)
    assert states(store) == {key: "unfinished"}
    writer.discard()
    writer.discard()
    assert states(store) == {}


def test_a_discard_after_the_end_removes_nothing(store: DirectoryBodies) -> None:
    key = new_id()
    writer = store.begin(key)
    writer.write(BODY)
    writer.finish()
    writer.discard()
    assert read(store, key) == BODY


def test_a_body_is_synced_before_it_has_its_name_and_the_name_before_it_counts(
    store: DirectoryBodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        place = str(Path(f"/proc/self/fd/{descriptor}").readlink()).removeprefix(str(store.directory))
        calls.append(f"{place.replace(key, 'KEY')} {states(store)[key]}")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    key = new_id()
    put(store, key=key)
    assert calls == ["/unfinished/KEY unfinished", "/live live"]


def test_only_the_owner_reads_them(store: DirectoryBodies) -> None:
    put(store)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (store.directory, *store.directory.rglob("*"))}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


def test_a_done_body_can_still_be_read_and_is_deleted(store: DirectoryBodies) -> None:
    key, _ = put(store)
    store.retire(key)
    store.retire(key)
    assert states(store) == {key: "done"}
    assert read(store, key) == BODY
    store.delete(key)
    store.delete(key)
    assert states(store) == {}


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("done", [True, False])
def test_two_deliveries_share_a_body_and_neither_takes_it_from_the_other(
    store: DirectoryBodies, monkeypatch: pytest.MonkeyPatch, links: bool, done: bool
) -> None:
    if not links:

        def refused(*_: object) -> None:
            raise OSError(errno.EPERM, "no second names here")

        monkeypatch.setattr(os, "link", refused)
    old, _ = put(store)
    if done:
        store.retire(old)
    new = new_id()
    store.link(old, new)
    assert states(store) == {old: "done" if done else "live", new: "live"}
    store.delete(old)
    assert read(store, new) == BODY
    with pytest.raises(BodyLost):
        store.link(old, new_id())


def test_a_touch_is_seen_by_whoever_lists(store: DirectoryBodies) -> None:
    key, _ = put(store)
    os.utime(store.directory / "live" / key, (1.0, 1.0))
    assert [info.touched for info in store.list()] == [1.0]
    store.touch(key)
    assert [info.touched > 1.0 for info in store.list()] == [True]
    store.touch(new_id())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda body: body[:-1], "has 99999 bytes, and had 100000"),
        (lambda body: body[:-1] + bytes([body[-1] ^ 1]), "its SHA-256 is another"),
    ],
)
def test_a_body_that_was_changed_is_found_out(store: DirectoryBodies, change: object, says: str) -> None:
    key, stored = put(store)
    (store.directory / "live" / key).write_bytes(change(BODY))  # type: ignore[operator]
    with pytest.raises(BodyDamaged, match=says):
        check(store, key, stored)


def test_without_room_nothing_begins(tmp_path: Path) -> None:
    store = DirectoryBodies(tmp_path, min_free=1 << 60)
    store.prepare()
    with pytest.raises(BodyError, match=r"no room: 5 bytes are more than the 0 it may take"):
        store.begin(new_id(), 5)
    assert states(store) == {}


def test_a_store_that_is_not_there_is_no_lost_body(tmp_path: Path) -> None:
    store = DirectoryBodies(tmp_path / "not mounted")
    with pytest.raises(BodyError, match="cannot be read: No such file") as caught:
        store.open(new_id())
    assert not isinstance(caught.value, BodyLost)
    assert list(store.list()) == []


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "../x", "a\0b", "x" * 65, ".hidden"])
def test_a_key_is_never_a_path(store: DirectoryBodies, key: str) -> None:
    for use in (store.begin, store.open, store.delete, store.retire, store.touch):
        with pytest.raises(BodyError, match="not a key"):
            use(key)


def test_a_place_where_it_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BodyError, match=r"file/bodies: cannot be written: Not a directory"):
        DirectoryBodies(tmp_path / "file" / "bodies").prepare()
