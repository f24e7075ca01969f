"""`glassq move --to-engine`: everything goes to another queue, while pings come."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from glassq.bodies import DirectoryBodies
from glassq.bodies.queue_holder import queue_id
from glassq.bodies.sweep import SAFE_AGE
from glassq.delivery import StoredBody, decode, encode
from glassq.errors import BodyLost
from glassq.operations import Operations, move_engine
from glassq.operations import bodies as bodies_operation
from glassq.operations.progress import Silent
from glassq.operations.result import Did
from glassq.queues.beanstalk.protocol import JobStats
from glassq.settings import QueueSettings, load
from glassq.values import BodiesUrl, QueueUrl
from tests.bodies.test_directory import states
from tests.cli.conftest import a_delivery, evidence, put
from tests.conftest import Beanstalkd, Process, wait_for
from tests.queues.raw import open_queue
from tests.queues.raw_postgres import fresh_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.bodies import BodyStore
    from glassq.delivery import Delivery
    from glassq.queues.base import State
    from glassq.settings import Settings
    from tests.cli.conftest import Cli
    from tests.postgres import PostgresServer
    from tests.queues.raw import Queue

STATES: frozenset[State] = frozenset({"ready", "reserved", "delayed", "buried"})


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Beanstalkd]:
    """Another server: it syncs each job by itself, as its URL says nothing of a syncer."""
    (tmp_path / "other").mkdir()
    server = Beanstalkd(tmp_path / "other", options=("-f0",))
    yield server
    server.stop()


@pytest.fixture
def there(other: Beanstalkd) -> Iterator[Queue]:
    queue = open_queue(other.settings)
    yield queue
    queue.close()


def held(queue: Queue, tube: str = "glassq") -> list[tuple[str, Delivery]]:
    """State and delivery of each job of the tube, in the order of the puts."""
    found = sorted((each for each in queue.scan(STATES, tube) if isinstance(each, JobStats)), key=lambda each: each.id)
    return [(each.state, decode(queue.peek(each.id).body)) for each in found]


def test_everything_goes_in_the_state_and_the_order_it_has(
    queue: Queue, there: Queue, cli: Cli, other: Beanstalkd
) -> None:
    told = {
        "ready": [a_delivery() for _ in range(3)],
        "delayed": [a_delivery()],
        "buried": [a_delivery(evidence=(evidence(),), buried="no such photo")],
    }
    for state, deliveries in told.items():
        for each in deliveries:
            put(queue, each, state)
    aside = a_delivery()
    queue.put(encode(aside), tube="glassq.push.mail")
    damaged = b"no delivery"
    queue.put(damaged, tube="glassq.queue.a")
    said = cli("move", "--to-engine", other.url, "--yes", "--json")
    assert (said.code, said.json["sums"]) == (0, {"moved": 7})
    wanted = [(state, each.id) for state, deliveries in told.items() for each in deliveries]
    assert [(state, each.id) for state, each in held(there)] == wanted
    assert held(there)[-1][1].evidence == told["buried"][0].evidence
    assert [each.id for _, each in held(there, "glassq.push.mail")] == [aside.id]
    [job] = [each for each in there.scan(STATES, "glassq.queue.a") if isinstance(each, JobStats)]
    assert there.peek(job.id).body == damaged
    assert not any(held(queue, tube) for tube in ("glassq", "glassq.push.mail"))


def test_what_is_at_work_stays_and_is_told(queue: Queue, there: Queue, cli: Cli, other: Beanstalkd) -> None:
    worked, waits = a_delivery(), a_delivery()
    put(queue, worked, "reserved")
    put(queue, waits, "ready")
    said = cli("move", "--to-engine", other.url, "--yes")
    assert said.code == 0
    assert "0 deliveries that wait and 1 at work: give the same command again" in said.err
    assert [each.id for _, each in held(there)] == [waits.id]
    assert [each.id for _, each in held(queue)] == [worked.id]


def test_it_comes_back_the_same_way(queue: Queue, there: Queue, cli: Cli, other: Beanstalkd) -> None:
    told = [a_delivery() for _ in range(3)]
    for each in told:
        put(there, each, "ready")
    assert cli("move", "--from-engine", other.url, "--yes").code == 0
    assert [each.id for _, each in held(queue)] == [each.id for each in told]
    assert held(there) == []


def test_what_comes_meanwhile_follows_until_it_is_stopped(
    queue: Queue, there: Queue, cli: Cli, other: Beanstalkd
) -> None:
    told = [a_delivery() for _ in range(6)]
    put(queue, told[0], "ready")
    arguments = ["--config", str(cli.file), "move", "--follow", "--yes", "--to-engine", other.url]
    moving = Process(arguments, cli.directory / "move.log", forks="glassq")
    try:
        for number, each in enumerate(told[1:], start=1):
            wait_for(lambda number=number: len(held(there)) == number, "what came to be moved")  # type: ignore[misc]
            put(queue, each, "ready")
        wait_for(lambda: len(held(there)) == len(told), "the last one to be moved")
    finally:
        ended = moving.end(signal.SIGINT)
    assert ended == 0, moving.output()
    assert [each.id for _, each in held(there)] == [each.id for each in told]


def test_a_dry_run_moves_nothing(queue: Queue, there: Queue, cli: Cli, other: Beanstalkd) -> None:
    put(queue, a_delivery(), "ready")
    said = cli("move", "--to-engine", other.url, "--dry-run")
    assert (said.code, "would be moved" in said.out) == (0, True)
    assert (len(held(queue)), held(there)) == (1, [])


def test_nothing_goes_while_the_other_queue_takes_nothing(queue: Queue, cli: Cli, other: Beanstalkd) -> None:
    put(queue, a_delivery(), "ready")
    other.send(signal.SIGUSR1)
    with_it = open_queue(other.settings)
    wait_for(lambda: with_it.stats().draining, "the other beanstalkd to drain")
    with_it.close()
    said = cli("move", "--to-engine", other.url, "--yes")
    assert said.code == 75
    assert len(held(queue)) == 1


def test_a_queue_that_is_the_same_or_is_not_there_is_told(queue: Queue, cli: Cli, tmp_path: Path) -> None:
    said = cli("move", "--to-engine", cli.url, "--yes")
    assert (said.code, "is the queue of these settings already" in said.err) == (2, True)
    put(queue, a_delivery(), "ready")
    said = cli("move", "--to-engine", f"beanstalk://{tmp_path}/nobody.sock", "--yes")
    assert said.code == 69
    assert len(held(queue)) == 1


def test_a_large_body_stays_where_both_queues_find_it(queue: Queue, there: Queue, cli: Cli, other: Beanstalkd) -> None:
    store = DirectoryBodies(cli.directory / "bodies")
    store.prepare()
    told = a_delivery(body=b"")
    writer = store.begin(told.id)
    writer.write(b"large")
    stored = writer.finish()
    assert isinstance(stored, StoredBody)
    put(queue, msgspec.structs.replace(told, stored=stored), "ready")
    assert cli("move", "--to-engine", other.url, "--yes").code == 0
    [(_, moved)] = held(there)
    assert moved.stored == stored
    with store.open(told.id) as body:
        assert body.read() == b"large"


@pytest.fixture
def store(cli: Cli) -> DirectoryBodies:
    """That of both queues."""
    made = DirectoryBodies(cli.directory / "bodies")
    made.prepare()
    return made


def a_large_one(store: BodyStore) -> Delivery:
    told = a_delivery(body=b"")
    writer = store.begin(told.id)
    writer.write(b"large")
    return msgspec.structs.replace(told, stored=writer.finish())


def a_day_later(store: DirectoryBodies) -> None:
    """Nobody has touched the bodies for so long that they may be orphans."""
    then = time.time() - SAFE_AGE - 60
    for place in (store.directory / "live").iterdir():
        os.utime(place, (then, then))


def at(cli: Cli, other: Beanstalkd, bodies: str = "") -> Settings:
    """The settings of the other queue."""
    here = load(str(cli.file), {})
    store = BodiesUrl(bodies) if bodies else here.bodies.url
    return msgspec.structs.replace(
        here,
        queue=QueueSettings(url=QueueUrl(other.url)),
        bodies=msgspec.structs.replace(here.bodies, url=store),
    )


def test_a_sweep_that_knows_the_old_queue_leaves_what_has_moved(
    queue: Queue, cli: Cli, other: Beanstalkd, store: DirectoryBodies
) -> None:
    put(queue, told := a_large_one(store), "ready")
    assert cli("move", "--to-engine", other.url, "--yes").code == 0
    # nothing is left in the old one, which names no body any more
    assert [holder.key for holder in store.holders()] == [queue_id(QueueUrl(other.url))]
    a_day_later(store)
    said = cli("bodies", "sweep", "--json")
    assert states(store) == {told.id: "live"}, said
    assert "1 may be named by other journals or queues: queue beanstalk://" in said.out + said.err


def test_a_sweep_that_knows_the_new_queue_leaves_what_has_stayed(
    queue: Queue, cli: Cli, other: Beanstalkd, store: DirectoryBodies
) -> None:
    put(queue, stays := a_large_one(store), "reserved")
    put(queue, goes := a_large_one(store), "ready")
    assert cli("move", "--to-engine", other.url, "--yes").code == 0
    a_day_later(store)
    there = Operations(at(cli, other), actor="me")
    with there.queue() as new:
        swept = bodies_operation.sweep(there, new, Silent())
    assert states(store) == {stays.id: "live", goes.id: "live"}
    assert (swept.orphans, "1 may be named by other" in swept.unsure) == (0, True)


@pytest.mark.parametrize("kind", ["directory", "table"])
def test_a_store_that_has_two_names_keeps_the_body(
    queue: Queue, there: Queue, cli: Cli, other: Beanstalkd, request: pytest.FixtureRequest, kind: str
) -> None:
    if kind == "directory":
        (alias := cli.directory / "alias").symlink_to(place := cli.directory / "bodies")
        names = [f"file://{place}", f"file://{alias}"]
    else:
        url = fresh_url(request.getfixturevalue("postgres"))
        names = [url, url.replace("postgres://", "postgresql://")]
    here, elsewhere = load(str(cli.file), {}), at(cli, other, names[1])
    here = msgspec.structs.replace(here, bodies=msgspec.structs.replace(here.bodies, url=BodiesUrl(names[0])))
    move = move_engine.between(Operations(here, actor="me"), elsewhere)
    assert move.names_other_store
    store = move.origin.bodies
    store.prepare()
    put(queue, told := a_large_one(store), "ready")
    with move.origin.queue() as old, move.target.queue() as new:
        report = move_engine.carry_out(move, old, new, move_engine.plan(move, old, Silent()), Silent())
    assert (report.error, report.count(Did.MOVED)) == (None, 1)
    assert [each.id for _, each in held(there)] == [told.id]
    assert states(store) == {told.id: "live"}
    with store.open(told.id) as body:
        assert body.read() == b"large"
    assert [holder.key for holder in store.holders()] == [queue_id(QueueUrl(other.url))]


def test_everything_goes_to_postgresql_and_its_large_body_into_the_same_database(
    queue: Queue, cli: Cli, postgres: PostgresServer
) -> None:
    told = {"ready": a_delivery(body=b""), "delayed": a_delivery()}
    told["buried"] = a_delivery(evidence=(evidence(),), buried="no such photo")
    here = load(str(cli.file), {})
    # as if neither file had a key for the bodies
    bodies = msgspec.structs.replace(here.bodies, url=BodiesUrl(postgres_url := fresh_url(postgres)))
    there = msgspec.structs.replace(here, queue=QueueSettings(url=QueueUrl(postgres_url)), bodies=bodies)
    move = move_engine.between(Operations(here, actor="me"), there)
    move.origin.bodies.prepare()
    move.target.bodies.prepare()
    writer = move.origin.bodies.begin(told["ready"].id)
    writer.write(large := bytes(range(256)) * 4096)
    told["ready"] = msgspec.structs.replace(told["ready"], stored=writer.finish())
    for state, each in told.items():
        put(queue, each, state)
    with move.origin.queue() as old, move.target.queue() as new:
        plan = move_engine.plan(move, old, Silent())
        report = move_engine.carry_out(move, old, new, plan, Silent())
        assert (report.error, report.count(Did.MOVED)) == (None, 3)
        found = {decode(job.body).id: job.state for job in new.find(STATES, ["glassq"])}
    assert found == {each.id: state for state, each in told.items()}
    assert held(queue) == []
    with move.target.bodies.open(told["ready"].id) as body:
        assert body.read() == large
    with pytest.raises(BodyLost):
        move.origin.bodies.open(told["ready"].id)


@pytest.mark.parametrize(
    ("cli", "there", "says"),
    [
        ("postgres", "beanstalk:///nowhere/queue.sock", "; is it running, and is --from-engine right?"),
        ("beanstalkd", "postgres://glassq@127.0.0.1:9/glassq", "or mend --from-engine\n"),
    ],
    indirect=["cli"],
)
def test_what_to_do_is_said_of_the_queue_that_does_not_answer(cli: Cli, there: str, says: str) -> None:
    said = cli("move", "--from-engine", there, "--dry-run")
    assert (said.code, says in said.err) == (69, True), said.err
    assert "systemctl" not in said.err
