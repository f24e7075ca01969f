"""What only beanstalkd's inspector meets: a search while its server takes no jobs, its own figures, and its binlog."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from glassq.errors import JobNotFound, NoProof, NotDurable, QueueRefused, QueueUnavailable, SearchIncomplete
from glassq.queues import open_inspector, open_producer, open_receiver
from glassq.queues.base import ALL_STATES
from glassq.queues.beanstalk import facts, scan
from glassq.queues.beanstalk.connection import BeanstalkConnection
from glassq.queues.beanstalk.inspector import BeanstalkInspector
from glassq.queues.beanstalk.local import LocalBeanstalkd
from glassq.queues.beanstalk.producer import BeanstalkProducer
from glassq.queues.beanstalk.receiver import BeanstalkReceiver
from glassq.settings import Settings
from glassq.values import QueueUrl
from tests.cli.conftest import put_bytes
from tests.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue


@pytest.fixture
def inspector(beanstalkd: Beanstalkd) -> Iterator[BeanstalkInspector]:
    connection = BeanstalkConnection(beanstalkd.url, "default", ttr=60, connect_timeout=20, timeout=20)
    opened = BeanstalkInspector(connection, beanstalkd.url, beanstalkd.syncer.prover)
    yield opened
    opened.close()


def drain(beanstalkd: Beanstalkd, inspector: BeanstalkInspector) -> None:
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: not inspector.status().accepting, "the server to drain")


def test_a_search_that_cannot_find_all_yields_what_it_found_and_says_so(
    beanstalkd: Beanstalkd, inspector: BeanstalkInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "MAX_SEARCH", 200)
    near = inspector.insert(b"near", tube="glassq", state="buried")
    for number in range(300):
        inspector.delete(inspector.get(inspector.insert(b"%d" % number, tube="glassq", state="ready")))
    far = inspector.insert(b"far", tube="glassq", state="buried")
    beanstalkd.stop()
    beanstalkd.start()
    inspector.close()
    drain(beanstalkd, inspector)
    found: list[str] = []
    told: list[tuple[int, int]] = []
    searched = inspector.find(frozenset({"buried"}), ["glassq"], progress=lambda *seen: told.append(seen))
    with pytest.raises(SearchIncomplete) as caught:
        found.extend(job.ref for job in searched)
    assert found == [near]
    assert (caught.value.found, caught.value.promised, caught.value.looked) == (1, 2, 200)
    assert told[0] == (0, 200)
    # a hint leads there
    assert [job.ref for job in inspector.find(frozenset({"buried"}), ["glassq"], hints=[far, near])] == [far, near]


def test_a_mark_is_kept_to_while_the_server_takes_no_jobs(
    beanstalkd: Beanstalkd, inspector: BeanstalkInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    # ids are beyond what a search looks at, as on a server that has run for long
    monkeypatch.setattr(scan, "MAX_SEARCH", 20)
    for _ in range(30):
        inspector.newest()
    inspector.insert(b"old", tube="glassq", state="ready")
    mark = inspector.newest()
    inspector.insert(b"new", tube="glassq", state="ready")
    drain(beanstalkd, inspector)
    assert [job.body for job in inspector.find(ALL_STATES, ["glassq"], since=mark)] == [b"new"]


def test_the_servers_own_figures_are_told(inspector: BeanstalkInspector) -> None:
    inspector.insert(b"ping", tube="glassq", state="ready")
    status = inspector.status()
    assert {"id", "connections", "puts", "records", "files", "jobs", "pid"} <= status.details.keys()
    gauges = {gauge.name: gauge.value for gauge in status.gauges}
    assert gauges["glassq_binlog_files"] == 1
    assert gauges["glassq_queue_connections"] == status.details["connections"]
    assert {name for name in gauges if not name.startswith("glassq_syncer_")} == set(list(gauges)[:2])
    [job] = inspector.find(ALL_STATES, ["glassq"])
    assert (job.counters["reserves"], job.counters["ttr"]) == (0, 60)


def test_a_server_without_a_binlog_is_told_with_what_to_do_and_gets_no_job(
    beanstalkd: Beanstalkd, inspector: BeanstalkInspector, queue: Queue
) -> None:
    queue.close()
    beanstalkd.stop()
    beanstalkd.start(durable=False)
    assert not inspector.status().durable
    for thorough in (False, True):
        [wrong] = [fact for fact in inspector.facts(["glassq"], thorough=thorough) if fact.ok is False]
        assert (wrong.name, "-b DIRECTORY" in wrong.todo) == ("durability", True)
    with pytest.raises(NotDurable):
        inspector.insert(b"ping", tube="glassq", state="ready")
    assert list(inspector.find(ALL_STATES, ["glassq"])) == []
    queue.put(b"ping")
    assert not inspector.find(ALL_STATES, ["glassq"]).__next__().durable


def test_an_id_that_a_new_server_gave_to_another_delivery_is_left_alone(
    beanstalkd: Beanstalkd, inspector: BeanstalkInspector, queue: Queue
) -> None:
    def restarted() -> None:
        for connection in (inspector, queue):
            connection.close()
        beanstalkd.stop()
        beanstalkd.start(durable=False)

    restarted()
    seen = inspector.get(str(put_bytes(queue, b"ours", "buried")))
    restarted()
    assert str(put_bytes(queue, b"another's", "buried")) == seen.ref
    for call in (
        lambda: inspector.delete(seen),
        lambda: inspector.change(seen, state="ready"),
        lambda: inspector.change(seen, state="delayed", delay=60),
        lambda: inspector.change(seen, state="buried", body=b"another form"),
    ):
        with pytest.raises(JobNotFound, match="another delivery"):
            call()
    assert [(job.state, job.body) for job in inspector.find(ALL_STATES, ["glassq"])] == [("buried", b"another's")]


@pytest.mark.parametrize(
    ("error", "name", "todo"),
    [
        (NotDurable("lazy"), "durability", "restart it"),
        (QueueRefused("full"), "queue", "make room on its disk"),
        (QueueUnavailable("gone"), "queue", "systemctl start glassq-beanstalkd"),
        (NoProof("frozen"), "syncer", "systemctl status glassq-syncer"),
    ],
)
def test_an_error_is_explained_in_beanstalkds_own_terms(
    inspector: BeanstalkInspector, error: QueueRefused, name: str, todo: str
) -> None:
    fact = inspector.explain(error)
    assert (fact.name, todo in fact.todo) == (name, True)


def test_a_url_of_beanstalkds_opens_beanstalkds_roles(beanstalkd: Beanstalkd) -> None:
    settings = Settings(queue=beanstalkd.settings)
    opened = (open_producer(settings), open_receiver(settings), open_inspector(settings))
    assert [type(role) for role in opened] == [BeanstalkProducer, BeanstalkReceiver, BeanstalkInspector]
    for role in opened:
        role.close()


def test_the_first_job_is_the_next_one_where_a_worker_takes_it_between_two_looks(
    beanstalkd: Beanstalkd, inspector: BeanstalkInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, left = (inspector.insert(b"ping", tube="glassq", state="ready") for _ in range(2))
    worker = beanstalkd.queue()
    peek_first = BeanstalkConnection.peek_first

    def and_then_it_is_taken(self: BeanstalkConnection, *arguments: Any) -> Any:
        found = peek_first(self, *arguments)
        if found is not None and str(found.id) == taken:
            worker.delete(found.id)
        return found

    monkeypatch.setattr(BeanstalkConnection, "peek_first", and_then_it_is_taken)
    job = inspector.first("ready", "glassq")
    worker.close()
    assert job is not None
    assert job.ref == left


@pytest.mark.parametrize("address", ["127.0.0.1:1", "192.0.2.1:{port}"], ids=["nobody's", "elsewhere"])
def test_the_directory_of_another_server_is_not_ours(beanstalkd: Beanstalkd, address: str) -> None:
    here = LocalBeanstalkd(beanstalkd.url)
    assert ("binlog", beanstalkd.dir) in here.directories()
    other = LocalBeanstalkd(QueueUrl(f"beanstalk://{address.format(port=beanstalkd.port)}"))
    assert ("binlog", beanstalkd.dir) not in list(other.directories())


def test_few_old_jobs_that_keep_files_are_wrong_and_very_many_jobs_are_not(
    inspector: BeanstalkInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "MANY_FILES", 0)
    monkeypatch.setattr(facts, "FEW_A_FILE", 3)

    def verdict() -> bool | None:
        (found,) = [fact.ok for fact in inspector.facts(["glassq"], thorough=True) if fact.name == "binlog"]
        return found

    inspector.insert(b"", tube="glassq", state="buried")
    assert verdict() is False
    for _ in range(10):
        inspector.insert(b"", tube="glassq", state="buried")
    assert verdict() is None
