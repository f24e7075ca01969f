"""Bodies that the database does not take now: they wait with the journal, and go before their deliveries."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from glassq.bodies import check, waiting
from glassq.bodies.table import TableBodies
from glassq.bodies.waiting import GRACE, WaitingBodies
from glassq.delivery import new_id
from glassq.errors import BodyError, BodyUnstored
from glassq.journal import Journal, JournalRecord
from tests.bodies.test_directory import put, read, states

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from glassq.errors import QueueError
    from tests.postgres import PostgresServer

BODY = os.urandom(600_000)


class Scene:
    """An intake's journal and its store; `moved` are the deliveries that the queue has taken."""

    def __init__(self, directory: Path, server: PostgresServer) -> None:
        self.server, self.database = server, server.database()
        self.store = TableBodies(server.url(self.database).whole)
        self.store.prepare()
        self.journal = Journal(directory / "spool", max_size=1 << 26, min_free=0)
        self.bodies = WaitingBodies(self.store, self.journal)
        self.waits = directory / "spool" / "bodies"
        self.moved: list[str] = []

    def away(self) -> None:
        self.server.execute("ALTER TABLE glassq_bodies RENAME TO away", self.database)

    def back(self) -> None:
        self.server.execute("ALTER TABLE away RENAME TO glassq_bodies", self.database)

    def journaled(self, *keys: str) -> None:
        self.journal.write([JournalRecord(key, b"{}") for key in keys])

    def move_on(self) -> int:
        return self.journal.move_on(self.bodies.first(self._put))

    def files(self) -> list[str]:
        return sorted(path.name for path in self.waits.iterdir()) if self.waits.exists() else []

    def _put(self, records: Sequence[JournalRecord]) -> Mapping[str, QueueError]:
        self.moved += [record.key for record in records]
        return {}


@pytest.fixture
def scene(tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    # a store that failed is asked again at once
    monkeypatch.setattr(waiting, "AGAIN", 0.0)
    made = Scene(tmp_path, postgres)
    yield made
    made.journal.close()


def test_what_the_database_takes_waits_nowhere(scene: Scene) -> None:
    key, _ = put(scene.bodies, BODY)  # type: ignore[arg-type]
    assert (scene.bodies.is_apart(key), scene.files(), read(scene.store, key)) == (False, [], BODY)


def test_what_it_does_not_take_waits_and_moves_on_before_its_delivery(scene: Scene) -> None:
    scene.away()
    key, stored = put(scene.bodies, BODY)  # type: ignore[arg-type]
    assert stored.size == len(BODY)
    assert [scene.bodies.is_apart(key), scene.bodies.is_apart(key)] == [True, False]
    other = new_id()
    scene.journaled(key, other)
    assert (scene.journal.look().count, scene.journal.look().bodies) == (2, 1)
    # who checks the journal finds it
    check(scene.bodies, key, stored)
    # the other one need not wait
    scene.move_on()
    assert (scene.moved, scene.files()) == ([other], [key])
    assert scene.journal.look().count == 1
    scene.back()
    scene.move_on()
    assert (scene.moved, scene.files(), scene.journal.look().count) == ([other, key], [], 0)
    assert (read(scene.store, key), states(scene.store)) == (BODY, {key: "live"})


def test_another_process_moves_on_what_a_dead_one_has_left(scene: Scene, tmp_path: Path) -> None:
    scene.away()
    key, _ = put(scene.bodies, BODY)  # type: ignore[arg-type]
    scene.journaled(key)
    scene.journal.close()
    scene.back()
    scene.journal = Journal(tmp_path / "spool", max_size=1 << 26, min_free=0)
    scene.bodies = WaitingBodies(scene.store, scene.journal)
    scene.move_on()
    assert (scene.moved, scene.files(), read(scene.store, key)) == ([key], [], BODY)


def test_a_database_that_hangs_keeps_no_sender_waiting(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PATIENCE", 0.3)
    with scene.server.connect(scene.database) as other, other.transaction():
        other.execute("LOCK TABLE glassq_bodies")
        key, _ = put(scene.bodies, BODY)  # type: ignore[arg-type]
        assert scene.files() == [key]
    assert states(scene.store) == {}


def test_a_body_whose_delivery_is_kept_nowhere_goes(scene: Scene) -> None:
    scene.away()
    key, _ = put(scene.bodies, BODY)  # type: ignore[arg-type]
    scene.bodies.delete(key)
    assert (scene.files(), scene.bodies.is_apart(key)) == ([], False)
    scene.back()
    key, _ = put(scene.bodies, BODY)  # type: ignore[arg-type]
    scene.bodies.delete(key)
    assert states(scene.store) == {}


def test_what_nobody_names_is_removed_in_time(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "TIDY", 0.0)
    scene.bodies = WaitingBodies(scene.store, scene.journal)
    scene.away()
    named, young, old = (put(scene.bodies, BODY)[0] for _ in range(3))  # type: ignore[arg-type]
    cut_off = scene.bodies.begin(new_id())
    scene.journaled(named)
    long_ago = time.time() - GRACE - 60
    for name in (named, old, f".{cut_off.key}"):
        os.utime(scene.waits / name, (long_ago, long_ago))
    scene.bodies.tend()
    assert scene.files() == sorted([named, young])
    cut_off.discard()


def test_without_room_in_the_journal_nothing_begins(scene: Scene) -> None:
    with pytest.raises(BodyError, match=r"no room for one on its way: journal .*: is full"):
        scene.bodies.begin(new_id(), 1 << 30)
    assert scene.files() == []


def test_a_delivery_whose_body_waits_is_no_trouble_of_the_queue(scene: Scene) -> None:
    scene.away()
    key, _ = put(scene.bodies, BODY)  # type: ignore[arg-type]
    left = scene.bodies.first(scene._put)([JournalRecord(key, b"{}")])
    assert isinstance(left[key], BodyUnstored)
    assert scene.moved == []
