"""What a primary with standbys tells of itself, and what becomes of bodies, on a real cluster."""

from __future__ import annotations

import io
import os
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

from glassq.bodies import waiting
from glassq.bodies.table import TableBodies
from glassq.bodies.waiting import WaitingBodies
from glassq.database.postgres import PostgresSession, Unreplicated
from glassq.errors import BodyError, QueueError, QueueUnavailable
from glassq.journal import Journal, JournalRecord
from glassq.queues.postgres import schema
from glassq.queues.postgres.opening import inspector_at
from tests.bodies.test_directory import put, read
from tests.conftest import wait_for
from tests.postgres import ROLE, missing
from tests.postgres_cluster import PostgresCluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.queues.base import Fact
    from glassq.values import QueueUrl

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
BODY = os.urandom(700_000)


class Site:
    """A cluster with a database of the queue's, and what an operator sees of it."""

    def __init__(self, cluster: PostgresCluster) -> None:
        self.cluster = cluster
        self.url: QueueUrl = cluster.url(cluster.database())
        with closing(self.session()) as session:
            schema.upgrade(session)
        # to see standbys takes a right that not every role has
        self.execute(f"GRANT pg_read_all_stats TO {ROLE}")

    def session(self) -> PostgresSession:
        return PostgresSession(self.url, name="tests", connect_timeout=10, timeout=10)

    def execute(self, statement: str) -> None:
        self.cluster.primary.running.execute(statement)

    def configure(self, names: str) -> None:
        self.cluster.primary.running.configure(synchronous_standby_names=names)

    def standbys(self) -> list[tuple[bool | None, str]]:
        """How doctor judges them, and its words."""
        with closing(inspector_at(self.url, 10, 10)) as inspector:
            facts: list[Fact] = list(inspector.facts(["glassq"], thorough=True))
        return [(fact.ok, fact.said) for fact in facts if fact.name == "standbys"]

    def gauges(self) -> dict[str, float]:
        """Those of the metrics, and whether a put is kept."""
        with closing(inspector_at(self.url, 10, 10)) as inspector:
            status = inspector.status()
        told = {gauge.name.removeprefix("glassq_queue_"): gauge.value for gauge in status.gauges}
        return {**told, "durable": float(status.durable)}

    def counts(self) -> tuple[float, ...]:
        """Standbys that are connected, those in sync, those that a commit waits for, and whether a put is kept."""
        told = self.gauges()
        return tuple(told[name] for name in ("standbys", "standbys_in_sync", "standbys_needed", "durable"))

    def say(self, ok: bool | None, words: str, *counts: float) -> None:
        """Waits until doctor and metrics say this."""
        wait_for(lambda: self.counts() == counts, f"{counts}, not {self.counts()}")
        assert any(judged is ok and words in said for judged, said in self.standbys()), self.standbys()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with PostgresCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield Site(cluster)


def test_standbys_are_told_as_they_are(site: Site) -> None:
    site.say(True, "a commit waits for 1 of 2 synchronous standbys", 2, 2, 1, 1)
    site.configure("ANY 1 (b)")
    site.say(True, "a commit waits for 1 of 1 synchronous standbys; 1 more are asynchronous", 2, 1, 1, 1)
    site.configure("")
    site.say(True, "no synchronous standby is named", 2, 0, 0, 1)
    # one that is named, and is not there
    site.configure("ANY 1 (nobody)")
    site.say(False, "a commit waits for 1 synchronous standbys, and 0 are connected: nothing is taken", 2, 0, 1, 0)
    site.configure("ANY 1 (b, c)")
    site.say(True, "a commit waits for 1 of 2", 2, 2, 1, 1)


def test_a_standby_that_falls_behind_is_told_by_bytes(site: Site) -> None:
    _, c = site.cluster.standbys
    c.freeze()
    try:
        with closing(site.session()) as session:
            session.rows("CREATE TABLE IF NOT EXISTS much (data bytea)")
            session.rows("INSERT INTO much VALUES (%s)", [os.urandom(3 << 20)])
        assert site.gauges()["replication_lag_bytes"] > 2 << 20
        assert any("the slowest is" in said and not said.endswith(" 0 KiB behind") for _, said in site.standbys())
    finally:
        c.thaw()
    wait_for(lambda: site.gauges()["replication_lag_bytes"] < 1 << 20, "it to catch up")


def test_a_body_that_no_standby_confirms_waits_with_the_journal_and_one_that_is_kept_survives_the_primary(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a store that failed is asked again at once
    monkeypatch.setattr(waiting, "AGAIN", 0.0)
    store = TableBodies(site.url.whole)
    store.prepare()
    journal = Journal(tmp_path / "spool", max_size=1 << 26, min_free=0)
    bodies = WaitingBodies(store, journal)
    kept, _ = put(bodies, BODY)  # type: ignore[arg-type]
    assert not bodies.is_apart(kept)
    site.configure("ANY 1 (nobody)")
    # the commit is given up in time, and counts as not kept
    with closing(site.session()) as session:
        session.set_deadline(time.monotonic() + 2)
        with pytest.raises(Unreplicated):
            session.rows("INSERT INTO glassq_tubes (name) VALUES ('t')")
    apart, _ = put(bodies, BODY)  # type: ignore[arg-type]
    assert bodies.is_apart(apart)
    with pytest.raises(BodyError, match="cannot be written"):
        store.put(apart, io.BytesIO(BODY), len(BODY), 1.0)
    journal.write([JournalRecord(apart, b"{}")])

    def moved() -> bool:
        journal.move_on(bodies.first(lambda records: {}))
        return not list(journal.waiting())

    assert not moved()
    # the primary is gone for good, before the other one was stored
    site.configure("ANY 1 (b, c)")
    site.cluster.wait_until_in_sync(2)
    site.cluster.primary.kill()
    with closing(inspector_at(site.url, 10, 10)) as inspector:
        with pytest.raises(QueueUnavailable):
            inspector.counts()
        # whoever only looks is shown what a standby has
        inspector.only_looks()
        assert inspector.counts() == []
        assert (inspector.status().behind, inspector.status().accepting) == (True, False)
        assert [fact.name for fact in inspector.facts(["glassq"]) if fact.ok is False] == ["primary"]
    site.cluster.promote(site.cluster.longest())
    found: list[bytes] = []

    def there() -> bool:
        with suppress(BodyError, QueueError):
            found[:] = [read(store, kept)]  # type: ignore[arg-type]
        return bool(found)

    wait_for(there, "the new primary to be found")
    assert found == [BODY]
    wait_for(moved, "what waited to move on")
    assert read(store, apart) == BODY  # type: ignore[arg-type]
    journal.close()
