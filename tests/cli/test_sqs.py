"""Each command on Amazon SQS: it works, or says before it does anything what the service cannot, and what works."""

from __future__ import annotations

import os
import secrets
import signal
from typing import TYPE_CHECKING

import pytest

from glassq.delivery import encode
from glassq.queues.shelf import Shelf, Shelved
from glassq.queues.sqs.inspector import UNSEEN
from glassq.queues.sqs.names import queue_name
from tests.cli.amazon import ROUTE, buried, counts, ids, put
from tests.cli.conftest import Cli, a_delivery
from tests.cli.conftest import put as raw_put
from tests.conftest import Beanstalkd, Process, wait_for
from tests.queues.raw import open_queue
from tests.queues.sqs.faults import Faults
from tests.queues.sqs.service import CREDENTIALS, REGION, SqsService

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from glassq.delivery import Delivery
    from glassq.queues.base import State
    from tests.queues.raw import Queue

CANNOT = UNSEEN.partition(":")[0]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqsService]:
    with SqsService(tmp_path_factory.mktemp("sqs")) as made:
        yield made


@pytest.fixture
def sqs(service: SqsService, tmp_path: Path) -> Cli:
    """An installation on SQS with queues of its own, which are not there yet."""
    prefix = secrets.token_hex(6)
    made = Cli(tmp_path, f"sqs://{REGION}/{prefix}?endpoint={service.endpoint()}&poll=1", dict(CREDENTIALS))
    made.configure(f'{ROUTE}[push]\nqueue_yaml = "{tmp_path}/queue.yaml"\nnames = "sqlite:///{tmp_path}/names.db"\n')
    (tmp_path / "queue.yaml").write_text("queue:\n- name: mail\n  rate: 5/s\n")
    return made


@pytest.fixture
def ready(sqs: Cli) -> Cli:
    said = sqs("queue", "init")
    assert said.code == 0, said.err
    return sqs


def make_shelf(cli: Cli) -> None:
    """As a pool makes it when it starts."""
    shelf = Shelf(cli.ledger.url)
    shelf.pause("glassq", 0)
    shelf.close()


def bury(cli: Cli, *told: Delivery) -> None:
    """These deliveries are on the shelf, buried."""
    shelf = Shelf(cli.ledger.url)
    shelf.put([Shelved("glassq", "buried", encode(each)) for each in told])
    shelf.close()


def test_queues_are_made_for_every_tube_of_the_settings_and_of_queue_yaml(sqs: Cli, service: SqsService) -> None:
    prefix = sqs.url.partition("?")[0].rpartition("/")[2]
    names = [queue_name(prefix, f"glassq{more}") for more in ("", ".queue.slow", ".push.default", ".push.mail")]
    missing = sqs("queue", "check")
    assert (missing.code, "glassq.push.mail: run `glassq" in missing.out) == (1, True)
    assert "no queues of glassq" in sqs("queue", "upgrade").err
    first = sqs("queue", "init", "--json").json
    assert set(first["made"]) == set(names)
    again = sqs("queue", "init")
    assert "are there already" in again.out and "sqs:SendMessage" in again.out
    assert ";" not in again.out.partition("{")[2]
    assert sqs("queue", "check").code == 0
    # one that another tool has made, with the service's own 4 days
    service.drop(names[:1])
    service.make(names[:1])
    short = sqs("queue", "check")
    assert (short.code, "a delivery that waits longer is lost: glassq 4 days" in short.out) == (1, True)
    assert f"keep deliveries for 14 days: {names[0]}" in sqs("queue", "init").out
    assert sqs("queue", "check").code == 0
    assert sqs("queue", "init", "--grant", "role").code == 2


def test_status_doctor_and_config_say_what_there_is_and_nothing_that_the_service_does_not_tell(ready: Cli) -> None:
    put(ready)
    put(ready, "--delay", "2h")
    assert counts(ready) == {"ready": 1, "delayed": 1, "buried": 0}
    said = ready("status")
    assert (said.code, said.err) == (0, "")
    assert "Amazon SQS does not tell" in said.out and "its counts are approximate" in said.out
    assert "up 0s" not in said.out and "consumers" not in said.out and "nobody takes" not in said.out
    told = {check["name"]: check for check in ready("doctor", "--json").json["checks"]}
    assert all(told[name]["ok"] for name in ("queue", "queues", "retention", "lost")), told
    assert (told["shelf"]["ok"], "a file of this host alone" in told["shelf"]["said"]) == (None, True)
    assert "consumers" not in told
    checked = ready("config", "check")
    assert "botocore" not in checked.out + checked.err
    assert "an attempt may take 12 hours" not in checked.err
    queues = ready("queues")
    assert (queues.code, "mail" in queues.out) == (0, True)
    ready.configure(ROUTE.replace("[worker", 'deadline = "13h"\n[worker'))
    said = '[[routes]] (1st) deadline = "13h": at Amazon SQS an attempt may take 12 hours'
    assert said in ready("config", "check").err
    assert any(said in check["said"] for check in ready("doctor", "--json").json["checks"])


def test_what_lies_on_the_shelf_can_be_shown_and_decided_on(ready: Cli) -> None:
    told = [buried(f"photo {number}") for number in range(4)]
    bury(ready, *told)
    for each in told:
        ready.record(each, "buried")
    assert all(each.id in ready("buried").out for each in told)
    assert "photo 1" in ready("show", told[1].id).out
    assert ready("kick", told[0].id).code == 0
    assert counts(ready) == {"ready": 1, "delayed": 0, "buried": 3}
    assert ready("delete", told[1].id, "--yes").code == 0
    archive = ready("archive", told[2].id, "--yes", "--json")
    assert archive.code == 0, archive.err
    assert counts(ready)["buried"] == 1
    restored = ready("restore", *(str(file) for file in ready.directory.rglob("*.jsonl")), "--yes")
    assert restored.code == 0, restored.err
    # a delivery that waits may be the same: nobody can tell
    assert CANNOT in restored.err
    assert counts(ready)["buried"] == 2
    moved = ready("move", "--all", "--to", "glassq.queue.slow", "--yes")
    assert (moved.code, counts(ready, "glassq.queue.slow")["buried"]) == (0, 2)
    # what was kicked waits, and is not told as lost
    told_lost = {check["name"]: check for check in ready("doctor", "--json").json["checks"]}["lost"]
    assert told_lost["ok"], told_lost


def test_a_far_delayed_delivery_can_be_buried_and_a_tube_paused(ready: Cli) -> None:
    late = put(ready, "--delay", "2h")
    assert "delayed" in ready("show", late).out
    assert ready("bury", late).code == 0
    assert counts(ready)["buried"] == 1
    assert ready("pause", "glassq", "--for", "10m").code == 0
    assert "is paused" in ready("status").out
    assert ready("resume").code == 0
    assert "is paused" not in ready("status").out
    assert ready("tail", "--once").code == 0


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["move", "--from", "glassq", "--to", "glassq.queue.slow", "--yes"], 1),
        (["queues", "purge", "mail", "--yes"], 1),
        (["replay", "--state", "lost", "--yes"], 1),
        (["delete", "--lost", "--yes"], 1),
        (["show", "ID"], 1),
        (["bury", "ID"], 1),
        (["kick", "ID"], 1),
        (["delete", "ID", "--yes"], 1),
        (["move", "ID", "--to", "glassq.queue.slow"], 1),
        (["forget", "label.customer=1", "--yes"], 1),
    ],
    ids=lambda each: " ".join(each[:2]) if isinstance(each, list) else "",
)
def test_a_command_that_needs_what_waits_says_so_and_does_nothing(
    waiting: tuple[Cli, str], command: Sequence[str], code: int
) -> None:
    cli, name = waiting
    said = cli(*(name if each == "ID" else each for each in command))
    assert (said.code, CANNOT in said.err + said.out) == (code, True), said
    assert "buried` and" in said.err + said.out
    assert "is it running" not in said.err
    assert "has lost it" not in said.err
    assert counts(cli) == {"ready": 1, "delayed": 0, "buried": 0}


@pytest.fixture(scope="module")
def waiting(service: SqsService, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cli, str]:
    """An installation in which one delivery waits, and its id."""
    directory = tmp_path_factory.mktemp("waiting")
    cli = Cli(directory, f"sqs://{REGION}/waiting?endpoint={service.endpoint()}&poll=1", dict(CREDENTIALS))
    cli.configure(f'{ROUTE}[push]\nqueue_yaml = "{directory}/queue.yaml"\nnames = "sqlite:///{directory}/names.db"\n')
    (directory / "queue.yaml").write_text("queue:\n- name: mail\n  rate: 5/s\n")
    assert cli("queue", "init").code == 0
    cli.record(a_delivery(), "done")
    return cli, put(cli)


def test_everything_moves_to_sqs_and_back_though_the_service_is_hostile(
    cli: Cli, queue: Queue, service: SqsService
) -> None:
    cli.env.update(CREDENTIALS)
    told: dict[State, Delivery] = {"ready": a_delivery(), "delayed": a_delivery(), "buried": buried()}
    for state, each in told.items():
        raw_put(queue, each, state)
    elsewhere = [a_delivery() for _ in range(12)]
    for each in elsewhere:
        queue.put(encode(each), tube="glassq.queue.gone")
    url = f"sqs://{REGION}/{secrets.token_hex(6)}?endpoint={service.endpoint()}&poll=1"
    said = cli("move", "--to-engine", url, "--yes")
    assert (said.code, "queue init" in said.err) == (78, True), said
    assert cli("queue", "init", "--url", url).code == 0
    before = cli("status", "--json").json["queue"]["tubes"]
    said = cli("move", "--to-engine", url, "--yes")
    # before anything is done, as one of these is buried
    assert (said.code != 0, "a pool makes it when it starts" in said.err) == (True, True), said
    assert cli("status", "--json").json["queue"]["tubes"] == before
    make_shelf(cli)
    service.set(Faults(seed=3, late=0.05, throttle=0.1, broken=0.05, reorder=0.5, cut_before=0.05))
    try:
        moved = 0
        for _ in range(20):
            # a service that does not answer ends it, and the same command goes on
            there = cli("move", "--to-engine", url, "--yes", "--json")
            assert there.code in (0, 69), there
            moved += there.json["sums"].get("moved", 0)
            if not there.code:
                break
        assert moved == 15
        assert cli("status", "--json").json["queue"]["tubes"][0]["ready"] == 0
        service.set(Faults(seed=4, late=0.05, reorder=0.5, again=0.1))
        asked = cli("move", "--from-engine", url)
        assert "and about 13 that wait to beanstalk" in asked.err + asked.out, asked
        dry = cli("move", "--from-engine", url, "--dry-run")
        assert "about 13 more wait, and would be received" in dry.err
        back = cli("move", "--from-engine", url, "--yes")
        assert back.code == 0, back
    finally:
        service.set()
    tubes = ("glassq", "glassq.queue.gone")
    found = {state: set.union(*(ids(queue, tube, {state}) for tube in tubes)) for state in told}
    assert found["ready"] == {told["ready"].id, *(each.id for each in elsewhere)}
    assert (found["delayed"], found["buried"]) == ({told["delayed"].id}, {told["buried"].id})


def test_what_comes_to_sqs_meanwhile_follows_and_a_paused_tube_stays(ready: Cli, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    beanstalkd = Beanstalkd(tmp_path / "other", options=("-f0",))
    make_shelf(ready)
    held = put(ready, "--tube", "glassq.queue.slow")
    assert ready("pause", "glassq.queue.slow").code == 0
    first = put(ready)
    arguments = ["--config", str(ready.file), "move", "--follow", "--yes", "--to-engine", beanstalkd.url]
    moving = Process(arguments, ready.directory / "move.log", forks="glassq", env={**os.environ, **CREDENTIALS})
    other = open_queue(beanstalkd.settings)
    try:
        wait_for(lambda: ids(other, "glassq") == {first}, "the first one to be moved")
        second = put(ready)
        wait_for(lambda: ids(other, "glassq") == {first, second}, "what came meanwhile to be moved")
    finally:
        ended = moving.end(signal.SIGINT)
        other.close()
        beanstalkd.stop()
    assert ended == 0, moving.output()
    assert "is paused, so nothing of it is received" in moving.output()
    assert (counts(ready)["ready"], counts(ready, "glassq.queue.slow")["ready"]) == (0, 1)
    assert held
