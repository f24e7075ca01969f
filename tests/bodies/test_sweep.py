"""What a sweep removes, and that it never takes a body that a job names."""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace as replaced

from glassq import delivery as envelope
from glassq.bodies import DirectoryBodies
from glassq.bodies.sweep import FULL_GRACE, GRACE, MAX_SILENCE, SAFE_AGE, Sweeper, count_bodies, named_in
from glassq.delivery import new_id, result_key
from glassq.errors import SearchIncomplete, Unsupported
from glassq.queues import open_inspector
from glassq.queues.beanstalk.inspector import CAPABILITIES
from glassq.settings import parse
from glassq.values import Tube
from tests.bodies.test_directory import put, states
from tests.cli.conftest import put_bytes
from tests.queues.raw import open_queue
from tests.syncers import queue_section

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Beanstalkd

DAY = 86_400.0
OLD = SAFE_AGE + 10


@pytest.fixture
def store(tmp_path: Path) -> DirectoryBodies:
    made = DirectoryBodies(tmp_path / "bodies")
    made.prepare()
    return made


def aged(store: DirectoryBodies, age: float, state: str = "live", size: int = 100) -> str:
    """A body that was touched so many seconds ago; its key."""
    if state == "unfinished":
        # as a process that was killed leaves it
        key = new_id()
        (store.directory / state / key).write_bytes(bytes(size))
    else:
        key, _ = put(store, os.urandom(size))
    if state == "done":
        store.retire(key)
    then = time.time() - age
    os.utime(store.directory / state / key, (then, then))
    return key


def sweeper(store: DirectoryBodies, *, retention: float = 30 * DAY, done_max: int = 1 << 30) -> Sweeper:
    return Sweeper(store, retention, done_max)


def nobody(wanted: frozenset[str]) -> frozenset[str]:
    return frozenset()


@pytest.mark.parametrize(
    ("state", "age", "settings", "stays"),
    [
        ("unfinished", GRACE - 10, {}, True),
        ("unfinished", GRACE + 10, {}, False),
        ("done", 29 * DAY, {}, True),
        ("done", 31 * DAY, {}, False),
        ("done", GRACE - 10, {"done_max": 0}, True),
        ("done", GRACE + 10, {"done_max": 0}, False),
        ("done", GRACE - 10, {"retention": 0.0}, True),
        ("done", GRACE + 10, {"retention": 0.0}, False),
        ("live", 99 * DAY, {"retention": 0.0, "done_max": 0}, True),
    ],
)
def test_what_goes_by_its_age_alone(
    store: DirectoryBodies, state: str, age: float, settings: dict[str, float], stays: bool
) -> None:
    key = aged(store, age, state)
    swept = sweeper(store, **settings).sweep(None)  # type: ignore[arg-type]
    assert states(store) == ({key: state} if stays else {})
    assert (swept.removed, swept.removed_bytes) == ((0, 0) if stays else (1, 100))


def test_beyond_their_limit_the_oldest_done_ones_go_first(store: DirectoryBodies) -> None:
    ages = [5 * DAY, 3 * DAY, 4 * DAY, 2 * DAY]
    keys = {age: aged(store, age, "done", 1000) for age in ages}
    assert sweeper(store, done_max=2500).sweep(None).removed == 2
    assert set(states(store)) == {keys[3 * DAY], keys[2 * DAY]}


def test_a_body_that_a_restore_has_put_back_stays_when_its_old_one_goes(store: DirectoryBodies) -> None:
    key = aged(store, DAY)
    left = store.directory / "done" / key
    left.write_bytes(b"as it was before the archive")
    os.utime(left, (0, 0))
    assert sweeper(store).sweep(None).removed == 1
    assert states(store) == {key: "live"}


def test_on_a_full_disk_all_done_ones_go(store: DirectoryBodies) -> None:
    aged(store, FULL_GRACE + 10, "done")
    live, young = aged(store, 2 * DAY), aged(store, 1, "done")
    full = DirectoryBodies(store.directory, min_free=1 << 60)
    assert sweeper(full).sweep(None).removed == 1
    assert states(store) == {live: "live", young: "done"}


def test_an_orphan_is_put_aside_and_what_is_named_touched_or_young_stays(store: DirectoryBodies) -> None:
    orphan, named, touched, young = aged(store, OLD), aged(store, OLD), aged(store, OLD), aged(store, SAFE_AGE - 60)

    def look(wanted: frozenset[str]) -> frozenset[str]:
        assert wanted == {orphan, named, touched}
        # a child puts a new form meanwhile, where the look has been already
        store.touch(touched)
        return frozenset({named})

    swept = sweeper(store).sweep(look)
    assert (swept.looked, swept.orphans) == (True, 1)
    assert states(store) == {orphan: "done", named: "live", touched: "live", young: "live"}
    # it can still be read: who was wrong loses nothing
    store.open(orphan).close()


def test_nobody_looks_where_nothing_is_old(store: DirectoryBodies) -> None:
    aged(store, SAFE_AGE - 60)

    def look(_: frozenset[str]) -> frozenset[str]:
        raise AssertionError

    assert not sweeper(store).sweep(look).looked


def test_while_not_all_jobs_can_be_seen_no_orphan_is_touched(store: DirectoryBodies) -> None:
    key = aged(store, OLD)

    def look(_: frozenset[str]) -> frozenset[str]:
        raise SearchIncomplete(1, 2, 3)

    swept = sweeper(store).sweep(look)
    assert (swept.looked, swept.orphans, states(store)) == (False, 0, {key: "live"})
    assert "1 of 2 jobs were not found" in swept.unsure


@pytest.mark.parametrize(
    ("since", "silent", "own", "stays"),
    [
        # its journal names nothing as old as that
        (OLD - 60, 0, False, False),
        # deliveries wait in it, or its host is down
        (OLD + 60, 0, False, True),
        (OLD + 60, MAX_SILENCE - DAY, False, True),
        (None, 0, False, True),
        (OLD + 60, MAX_SILENCE + DAY, False, False),
        # this one was read
        (OLD + 60, 0, True, False),
    ],
)
def test_what_another_hosts_journal_may_name_stays(
    store: DirectoryBodies, since: float | None, silent: float, own: bool, stays: bool
) -> None:
    key, now = aged(store, OLD), time.time()
    store.hold("a" * 32, None if since is None else now - since, "there: /its/journal")
    place = store.directory / "holders" / ("a" * 32)
    os.utime(place, (now - silent, now - silent))
    swept = replace(sweeper(store), own=frozenset({"a" * 32 if own else "b" * 32})).sweep(nobody)
    assert states(store) == {key: "live" if stays else "done"}
    assert swept.looked
    assert swept.unsure == ("1 may be named by other journals or queues: there: /its/journal" if stays else "")
    assert place.exists() == (silent < MAX_SILENCE)


def test_a_journal_stands_still_where_something_was_set_aside(store: DirectoryBodies) -> None:
    for since in (1000.0, None, 2000.0, None):
        store.hold("a" * 32, since, "there")
    (holder,) = store.holders()
    assert (holder.since, holder.about) == (2000.0, "there")
    (store.directory / "holders" / ("a" * 32)).write_text("")
    assert [holder.since for holder in store.holders()] == [0.0]


def test_a_job_is_found_in_every_state_and_tube_and_in_the_journal(beanstalkd: Beanstalkd, tmp_path: Path) -> None:
    keys = [new_id() for _ in range(7)]
    stored = envelope.StoredBody(1, "0" * 64)
    jobs = [envelope.encode(envelope.new("github", b"", {}, stored=stored, key=key)) for key in keys]
    # anybody's tube
    queue = open_queue(replaced(beanstalkd.settings, tube=Tube("elsewhere")))
    held = queue.put(jobs[3])
    reserved = queue.reserve(0)
    assert reserved is not None
    assert reserved.id == held
    for job, state in zip(jobs, ("ready", "delayed", "buried"), strict=False):
        put_bytes(queue, job, state)
    # whatever is in it, it may be mended
    queue.put(jobs[4][:-1] + b"?")
    with closing(open_inspector(parse(queue_section(beanstalkd.url), ""))) as inspector:
        results = {result_key(key, "a step") for key in keys}
        found = named_in(frozenset({*keys, *results}), [jobs[5]], inspector)
    queue.close()
    assert found == {*keys[:6], *(result_key(key, "a step") for key in keys[:6])}


def test_an_engine_that_cannot_show_all_jobs_proves_no_orphan(store: DirectoryBodies) -> None:
    class Blind:
        engine = "this engine"
        capabilities = replaced(CAPABILITIES, lists=frozenset({"buried"}))

    with pytest.raises(Unsupported, match="this engine cannot show all its jobs"):
        named_in(frozenset({new_id()}), [], Blind())  # type: ignore[arg-type]


def test_a_survey_counts_each_state(store: DirectoryBodies) -> None:
    aged(store, 100, size=10)
    aged(store, 50, size=20)
    aged(store, 70, "done", size=5)
    aged(store, 0, "unfinished", size=7)
    found = count_bodies(store)
    assert found[:6] == (2, 30, 1, 5, 1, 7)
    assert 99 < found.oldest < 200
