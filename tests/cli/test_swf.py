"""The commands on Amazon SWF: all states can be seen and decided on; everything moves there and back."""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from glassq.bodies import DirectoryBodies, with_body
from glassq.delivery import Delivery, decode, encode
from glassq.ledger import Entry, open_ledger
from glassq.operations import Operations
from glassq.queues.base import ALL_STATES
from glassq.queues.beanstalk.protocol import JobStats
from glassq.queues.swf.client import SwfClient
from glassq.queues.swf.deciding import SwfDeciding
from glassq.queues.swf.place import SwfPlace
from glassq.queues.swf.versions import NEWEST
from glassq.settings import load
from tests.cli.amazon import ROUTE, buried, counts, ids, put
from tests.cli.conftest import Cli, a_delivery, evidence
from tests.cli.conftest import put as raw_put
from tests.conftest import Beanstalkd, Process, wait_for
from tests.queues.raw import open_queue
from tests.queues.swf.faults import Faults
from tests.queues.swf.service import CREDENTIALS, REGION, SwfService

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from glassq.queues.base import State
    from tests.queues.raw import Queue


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwfService]:
    with SwfService(tmp_path_factory.mktemp("swf"), poll=0.2) as made:
        yield made


@pytest.fixture
def url(service: SwfService) -> str:
    """A domain that is not there yet."""
    return f"swf://{REGION}/d{secrets.token_hex(6)}?endpoint={service.endpoint()}&poll=1"


@pytest.fixture
def swf(url: str, tmp_path: Path) -> Cli:
    made = Cli(tmp_path, url, dict(CREDENTIALS))
    made.configure(ROUTE)
    assert made("queue", "init").code == 0
    return made


def test_what_a_worker_may_take_first_is_not_told_as_put_aside(
    swf: Cli, service: SwfService, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has been decided that somebody may work it, and no pool runs any more."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    ready = put(swf)
    place = SwfPlace(REGION, url.partition(f"{REGION}/")[2].partition("?")[0], service.endpoint(), poll=1)
    client = SwfClient(place, connect_timeout=5, timeout=5)
    deciding = SwfDeciding(client, NEWEST)
    wait_for(deciding.step, "a decision")
    done = swf("bury", ready)
    assert done.code != 0
    assert "asked, and not decided yet" in done.out + done.err
    # the pool decides when it runs
    wait_for(deciding.step, "the next one")
    assert counts(swf) == {"ready": 0, "delayed": 0, "buried": 1}
    client.close()


def test_what_waits_can_be_seen_and_decided_on_before_anybody_decides_for_it(swf: Cli) -> None:
    """No pool runs here: an operator sees what the history says, and what is changed is changed at once."""
    ready, late = put(swf), put(swf, "--delay", "2h")
    assert counts(swf) == {"ready": 1, "delayed": 1, "buried": 0}
    assert "ready" in swf("show", ready).out
    assert swf("bury", ready).code == 0
    assert swf("bury", late).code == 0
    assert counts(swf) == {"ready": 0, "delayed": 0, "buried": 2}
    assert swf("kick", late).code == 0
    assert counts(swf) == {"ready": 1, "delayed": 0, "buried": 1}
    assert swf("delete", ready, "--yes").code == 0
    shown = swf("show", late)
    assert (shown.code, "ready" in shown.out) == (0, True), shown
    assert swf("show", ready).code == 1
    assert swf("pause", "glassq", "--for", "10m").code == 0
    assert "paused" in swf("status").out
    assert swf("resume", "glassq").code == 0


def test_everything_moves_to_swf_and_back_though_the_service_is_hostile(
    cli: Cli, queue: Queue, service: SwfService, url: str
) -> None:
    cli.env.update(CREDENTIALS)
    told: dict[State, Delivery] = {"ready": a_delivery(), "delayed": a_delivery(), "buried": buried()}
    for state, each in told.items():
        raw_put(queue, each, state)
    elsewhere = [a_delivery() for _ in range(5)]
    for each in elsewhere:
        queue.put(encode(each), tube="glassq.queue.gone")
    said = cli("move", "--to-engine", url, "--yes")
    assert (said.code, "queue init" in said.err) == (78, True), said
    assert cli("queue", "init", "--url", url).code == 0
    service.set(Faults(seed=3, late=0.05, throttle=0.1, broken=0.05, cut=0.02, cut_before=0.05))
    try:
        for way in ("--to-engine", "--from-engine"):
            moved = 0
            for _ in range(20):
                # a service that does not answer ends it, and the same command goes on
                there = cli("move", way, url, "--yes", "--json")
                assert there.code in (0, 69), there
                moved += there.json["sums"].get("moved", 0)
                if not there.code:
                    break
            # one whose answer was cut off is moved, and not counted
            assert moved <= 8
            if way == "--to-engine":
                assert not any(ids(queue, tube) for tube in ("glassq", "glassq.queue.gone"))
                service.set()
    finally:
        service.set()
    tubes = ("glassq", "glassq.queue.gone")
    found = {state: set.union(*(ids(queue, tube, {state}) for tube in tubes)) for state in told}
    assert found["ready"] == {told["ready"].id, *(each.id for each in elsewhere)}
    assert (found["delayed"], found["buried"]) == ({told["delayed"].id}, {told["buried"].id})


def test_what_was_just_moved_is_shown_before_anybody_decides_for_it(swf: Cli) -> None:
    """No pool runs here, and the ledger knows of nothing; the tube that it goes to is not in any list yet."""
    buried = put(swf)
    assert swf("bury", buried).code == 0
    assert swf("move", buried, "--to", "glassq.queue.slow").code == 0
    for text in (buried, buried[:30]):
        shown = swf("show", text)
        assert (shown.code, f"delivery {buried}" in shown.out) == (0, True), shown


SIZES = (10, 24_000, 24_001, 60_000)


def test_bodies_of_any_size_move_there_and_back_by_way_of_the_body_store(
    cli: Cli, queue: Queue, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    told = [a_delivery(body=secrets.token_bytes(size)) for size in SIZES]
    told += [a_delivery(body=b"x" * size, evidence=(evidence(),), buried="no photo") for size in SIZES]
    for each in told:
        raw_put(queue, each, "buried" if each.buried else "ready")
    assert cli("queue", "init", "--url", url).code == 0
    store = DirectoryBodies(cli.directory / "bodies")
    moved = cli("move", "--to-engine", url, "--yes", "--json")
    assert (moved.code, moved.json["sums"]) == (0, {"moved": 8}), moved
    there = Operations(load(str(cli.file), {}, queue_url=url), actor="me")
    with there.queue() as inspector:
        found = {job.ref: decode(job.body) for job in inspector.find(ALL_STATES, ["glassq"])}
        assert digests(found.values(), store) == digests(told, store)
        assert {each.id for each in found.values() if each.stored} == {each.id for each in told if len(each.body) > 10}
    assert cli("move", "--from-engine", url, "--yes").code == 0
    back = [decode(queue.peek(each.id).body) for each in queue.scan(ALL_STATES, "glassq") if isinstance(each, JobStats)]
    assert digests(back, store) == digests(told, store)
    assert {each.id: each.evidence for each in back} == {each.id: each.evidence for each in told}


def test_what_is_restored_or_replayed_there_has_its_large_body_in_the_store(
    cli: Cli, queue: Queue, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    archived, done = a_delivery(body=secrets.token_bytes(30_000), buried="no photo"), a_delivery(body=b"x" * 30_001)
    raw_put(queue, archived, "buried")
    assert cli("archive", "--all", "--yes").code == 0
    ledger = open_ledger(cli.ledger)
    entry = Entry(done.id, done.source, done.received, "done", 1, done.received, 0.5)
    ledger.record(replace(entry, body=done.body, labels=done.labels))
    ledger.close()
    [file] = (cli.directory / "archive").iterdir()
    there = Cli(cli.directory, url, dict(CREDENTIALS))
    there.configure(ROUTE)
    assert there("queue", "init").code == 0
    for said in (there("restore", str(file), "--yes"), there("replay", done.id)):
        assert said.code == 0, said
    store = DirectoryBodies(cli.directory / "bodies")
    with Operations(load(str(there.file), {}), actor="me").queue() as inspector:
        found = [decode(job.body) for job in inspector.find(ALL_STATES, ["glassq"])]
    assert all(each.stored and not each.body for each in found)
    assert sorted(digests(found, store).values()) == sorted(
        hashlib.sha256(each.body).hexdigest() for each in (archived, done)
    )


def digests(deliveries: Iterable[Delivery], store: DirectoryBodies) -> dict[str, str]:
    return {each.id: hashlib.sha256(with_body(each, store).body).hexdigest() for each in deliveries}


def test_without_a_body_store_nothing_moves_and_the_setting_is_named(cli: Cli, queue: Queue, url: str) -> None:
    cli.env.update(CREDENTIALS)
    cli.configure("[bodies]\n")
    told = [a_delivery(), a_delivery(body=b"x" * 24_001)]
    for each in told:
        raw_put(queue, each, "ready")
    assert cli("queue", "init", "--url", url).code == 0
    said = cli("move", "--to-engine", url, "--yes")
    assert (said.code, "[bodies] url is not set: 1 body is too large for a job there" in said.err) == (78, True), said
    assert ids(queue, "glassq") == {each.id for each in told}
    # one that can be written by nobody is told as well
    cli.configure('[bodies]\nurl = "file:///proc/glassq"\n')
    said = cli("move", "--to-engine", url, "--yes")
    assert (said.code != 0, "bodies /proc/glassq: cannot be written" in said.err) == (True, True), said
    assert ids(queue, "glassq") == {each.id for each in told}


def test_what_comes_to_swf_meanwhile_follows(swf: Cli, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    beanstalkd = Beanstalkd(tmp_path / "other", options=("-f0",))
    first = put(swf)
    arguments = ["--config", str(swf.file), "move", "--follow", "--yes", "--to-engine", beanstalkd.url]
    moving = Process(arguments, swf.directory / "move.log", forks="glassq", env={**os.environ, **CREDENTIALS})
    other = open_queue(beanstalkd.settings)
    try:
        wait_for(lambda: ids(other, "glassq") == {first}, "the first one to be moved")
        second = put(swf)
        wait_for(lambda: ids(other, "glassq") == {first, second}, "what came meanwhile to be moved")
    finally:
        ended = moving.end(signal.SIGINT)
        other.close()
        beanstalkd.stop()
    assert ended == 0, moving.output()
    assert counts(swf) == {"ready": 0, "delayed": 0, "buried": 0}
