"""An operator's night: 200 buried deliveries of 5 causes are understood and mended with ten commands."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from glassq import delivery as envelope
from tests.cli.conftest import Cli, Said
from tests.conftest import wait_for
from tests.worker.pools import PoolRun

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

# How many deliveries fail for which cause.
NIGHT = {"target": 80, "release": 60, "consent": 30, "disk": 20, "video": 10}
# A cause fails until there is a file of its name beside the handler: then somebody has mended it.
HANDLERS = """
import errno, json
from pathlib import Path
from glassq.errors import Bury

HERE = Path(__file__).parent

def handle(delivery):
    ping = json.loads(delivery.body)
    if not (HERE / ping["cause"]).exists():
        globals()[ping["cause"]](ping)
    return "stored " + ping["itemId"]

def target(ping):
    raise ConnectionError(f"https://api.example/v1/items/{ping['itemId']}?t=1 answered 503")

def release(ping):
    return ping["photo"]

def consent(ping):
    raise Bury(f"user {ping['userToken']} took the consent back")

def disk(ping):
    raise OSError(errno.ENOSPC, "No space left on device", f"/srv/photos/{ping['userToken']}/{ping['itemId']}.jpg")

def video(ping):
    raise ValueError(f"no codec for 'video-{ping['itemId']}'")
"""
USERS = ("anna", "otto", "eva_17", "kim", "x9")


@dataclass
class Night:
    """The operator's terminal: every command that was typed, and what it said."""

    cli: Cli
    typed: list[tuple[str, Said]] = field(default_factory=list)

    def __call__(self, *arguments: str) -> Said:
        said = self.cli(*arguments)
        self.typed.append((" ".join(("glassq", *arguments)), said))
        return said

    def transcript(self) -> str:
        return "\n".join(f"$ {command}\n{said.out}{said.err}" for command, said in self.typed)


@pytest.fixture
def pool(beanstalkd: Beanstalkd, queue: Queue, tmp_path: Path) -> Iterator[PoolRun]:
    run = PoolRun(tmp_path, beanstalkd, queue, max_attempts=1, processes=2)
    # a loaded machine's disk may keep the queue waiting
    run.write_settings(timeout="60s")
    run.write_handlers(HANDLERS)
    with run.start().ready():
        yield run


def fail(queue: Queue) -> None:
    """Puts the deliveries of that night, mixed."""
    number = 0
    left = dict(NIGHT)
    while any(left.values()):
        for cause in [cause for cause, count in left.items() if count]:
            left[cause] -= 1
            number += 1
            ping = {"cause": cause, "userToken": USERS[number % len(USERS)], "itemId": f"item-{number * 7919:x}"}
            made = envelope.new("mirror", json.dumps(ping).encode(), {"collection": "timeline"})
            queue.put(envelope.encode(made))


def causes(said: Said) -> dict[str, dict[str, Any]]:
    """The groups that were listed, by the cause of ours that they are."""
    marks = {
        "target": "answered 503",
        "release": "KeyError",
        "consent": "consent",
        "disk": "Errno 28",
        "video": "codec",
    }
    groups = said.json["groups"]
    assert len(groups) == len(marks)
    return {cause: next(group for group in groups if mark in group["words"]) for cause, mark in marks.items()}


def test_two_hundred_buried_deliveries_of_five_causes_are_mended_with_ten_commands(pool: PoolRun, queue: Queue) -> None:
    night = Night(Cli(pool.dir, ""))
    fail(queue)
    wait_for(lambda: queue.stats_tube().buried == 200, f"all to be buried\n{pool.log()}", 120)

    assert night("status").code == 0
    table = night("buried", "--by", "reason").out
    assert "200 of 200 buried: 5 causes" in table
    found = causes(night.cli("buried", "--by", "reason", "--json"))
    assert {cause: group["count"] for cause, group in found.items()} == NIGHT
    assert all(group["id"] in table and group["example"] in table for group in found.values())

    # a bug of the release: the story names the line, and which handler it was
    story = night("show", found["release"]["example"]).out
    assert "handlers:handle" in story
    assert 'return ping["photo"]' in story
    assert found["release"]["id"] in story

    # nobody has mended the target yet: the canary finds out, and the rest stays
    said = night("kick", "--group", found["target"]["id"], "--canary", "--yes")
    assert (said.code, "79 were left buried" in said.out) == (1, True)
    assert queue.stats_tube().buried == 200

    for cause in ("target", "release", "disk"):
        (pool.dir / cause).touch()
    said = night("kick", "--group", found["release"]["id"], "--canary", "--yes")
    assert said.code == 0, night.transcript()
    assert "60 kicked" in said.out
    assert "canary: 1 done" in said.out
    assert night("kick", "--group", found["target"]["id"], "--rate", "200/s", "--canary", "--yes").code == 0
    said = night("kick", "--group", found["disk"]["id"], "--follow", "--yes")
    assert said.code == 0, night.transcript()
    assert "20 kicked" in said.out
    assert "outcomes: 20 done" in said.out
    said = night("delete", "--where", f"cause={found['consent']['id']}", "--yes")
    assert (said.code, "30 deleted" in said.out) == (0, True)
    said = night("move", "--group", found["video"]["id"], "--to", "no-codec", "--yes")
    assert (said.code, "10 moved" in said.out) == (0, True)
    assert "nothing is buried" in night("buried", "--by", "reason").out

    assert len(night.typed) == 10, night.transcript()
    wait_for(lambda: queue.stats_tube().ready == queue.stats_tube().reserved == 0, "the rest to be worked")
    assert queue.stats_tube("no-codec").buried == 10
    outcomes = [json.loads(line) for line in night.cli("tail", "-n", "400", "--once", "--json").out.splitlines()]
    states = [entry["state"] for entry in outcomes]
    assert (states.count("done"), states.count("deleted"), states.count("buried")) == (160, 30, 10)
