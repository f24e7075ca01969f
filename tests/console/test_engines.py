"""The console on every engine: what it shows and does there, and what it says of what an engine cannot."""

from __future__ import annotations

import contextlib
import json
import os
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from glassq.console.routes import ROUTES
from glassq.delivery import Delivery, decode, encode
from glassq.operations import Operations
from glassq.operations.census import Census
from glassq.operations.checks.examine import glance
from glassq.operations.progress import Silent
from glassq.operations.sampler import Sampler
from glassq.operations.watcher import METERED
from glassq.queues.base import ALL_STATES, NewJob, Receipt
from glassq.settings import parse
from tests.cli.conftest import a_delivery, evidence
from tests.conftest import ROOT, wait_for
from tests.console.served import Served
from tests.queues.conformance.engine import TIMEOUT
from tests.queues.conformance.engines import ENGINES

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.queues.base import Capabilities, Inspector
    from tests.queues.conformance.engine import Engine

TUBE = "glassq"
GONE, SLOW = "KeyError", "TimeoutError"


class House:
    """An engine that holds deliveries, with a console, and an operator who has signed in there."""

    def __init__(self, engine: Engine, closing: ExitStack) -> None:
        self.engine = engine
        engine.make([TUBE])
        self.inspector: Inspector = closing.enter_context(contextlib.closing(engine.inspector()))
        self.buried = [self._bury(GONE) for _ in range(3)] + [self._bury(SLOW) for _ in range(2)]
        self.ready, self.late = a_delivery(), a_delivery()
        put = [NewJob(self.ready.id, encode(self.ready), TUBE), NewJob(self.late.id, encode(self.late), TUBE, 7200.0)]
        with contextlib.closing(engine.producer()) as producer:
            assert all(isinstance(each, Receipt) for each in producer.put(put, within=TIMEOUT))
        # where an engine keeps something beside it, that is in the ledger's place
        self.served = Served(engine.directory, engine.section())
        closing.callback(self.served.end)
        self.served.sign_in()
        wait_for(lambda: self.groups() == {GONE: 3, SLOW: 2}, "the groups")

    @property
    def able(self) -> Capabilities:
        return self.inspector.capabilities

    def groups(self) -> dict[str, int]:
        """How many lie buried by what error."""
        return {group["words"].partition(":")[0]: group["count"] for group in self.document("/buried")["groups"]}

    def document(self, path: str) -> Any:
        """A page's twin."""
        name, _, query = path.partition("?")
        twin = f"{'' if name == '/' else name}.json".replace("//", "/") if name != "/" else "/.json"
        return self.served.json(f"{twin}{'?' if query else ''}{query}")

    def words(self, path: str) -> str:
        """What a page says, without its tags."""
        answer = self.served.get(path)
        if answer.status == 303:
            # one hit goes straight there
            answer = self.served.get(answer.headers["location"])
        return said(answer.body)

    def verdict(self) -> str:
        """The line that is on every page."""
        _, _, rest = self.served.get("/").body.partition(b'<section id="verdict"')
        return said(rest.partition(b">")[2].partition(b"</section>")[0])

    def kinds(self) -> dict[str, int]:
        return self.groups()

    def cause(self, error: str) -> str:
        """The id of a group."""
        return next(group["id"] for group in self.document("/buried")["groups"] if group["words"].startswith(error))

    def carry_out(self, kind: str, error: str) -> dict[str, Any]:
        """Plans it for a group, carries it out, and waits; the run's document."""
        plan = self.served.send(f"/plan/{kind}", {"cause": self.cause(error)})
        return self.ended(self.served.send(plan, {"pace": "all"}))

    def ended(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def over() -> bool:
            found.update(self.document(run))
            return found["state"] not in ("waiting", "running")

        wait_for(over, "the run to end")
        return found

    def take(self) -> Delivery:
        """The next delivery that a worker gets."""
        with contextlib.closing(self.engine.receiver()) as receiver:
            held = receiver.reserve([TUBE], 10)
            assert held is not None
            receiver.complete(held)
            return decode(held.body)

    def _bury(self, why: str) -> str:
        told = a_delivery(evidence=(evidence("no such photo", error=why),), buried="tried too often")
        self.inspector.insert(encode(told), tube=TUBE, state="buried")
        return told.id


def said(page: bytes) -> str:
    """The words of a page, or of a part of it."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.decode()))


def look_at_everything(house: House) -> None:
    """Every page and its twin answers, and says what the engine cannot."""
    for route in ROUTES:
        if route.method == "GET" and not route.path.startswith(("/plans/", "/runs/", "/sources/")):
            given = house.cause(GONE) if route.path == "/buried/{id}" else house.buried[0]
            path = route.path.replace(":path", "").format(name=TUBE, id=given)
            assert house.served.get(path).status == (303 if path.endswith("/group") else 200), path
            answer = house.served.get("/.json" if path == "/" else f"{path}.json")
            assert answer.status == 200, path
            assert path.endswith("/body") or json.loads(answer.body) is not None
    overview, queue, able = house.words("/"), house.words(f"/queues/{TUBE}"), house.able
    assert {able.oldest} == {"does not tell how old" not in page for page in (overview, queue)}, overview
    assert able.exact_counts == ("approximate" not in overview), overview
    for page in (house.words(f"/d/{house.ready.id}"), house.words(f"/search?q={house.ready.id[:30]}")):
        assert (house.ready.id if able.lists == ALL_STATES else able.unseen.partition(":")[0]) in page
    assert house.late.id in house.words(f"/d/{house.late.id}")
    assert house.buried[0] in house.words(f"/search?q={house.buried[0][:30]}")


def kick_a_group_and_bring_back_another(house: House) -> None:
    """A plan for a group is carried out in the engine; what was archived comes back."""
    assert house.take().id == house.ready.id
    run = house.carry_out("kick", GONE)
    assert (run["state"], run["done"]) == ("done", 3), run
    assert sorted(house.take().id for _ in range(3)) == sorted(house.buried[:3])
    wait_for(lambda: house.groups() == {SLOW: 2}, "the group to be gone")
    run = house.carry_out("archive", SLOW)
    assert (run["state"], run["done"]) == ("done", 2), run
    wait_for(lambda: not house.groups(), "the other one to be gone")
    undone = house.ended(house.served.send(f"/runs/{run['id']}/undo", {}))
    assert undone["state"] == "done", undone
    wait_for(lambda: house.groups() == {SLOW: 2}, "what was archived")
    moved = house.served.send("/plan/move", {"id": house.buried[3], "to": f"{TUBE}.queue.aside"})
    assert house.ended(house.served.send(moved, {}))["state"] == "done"
    assert {counts.name: counts.buried for counts in house.inspector.counts() if counts.buried} == {
        TUBE: 1,
        f"{TUBE}.queue.aside": 1,
    }


def pause_a_tube(house: House) -> None:
    """A tube is paused, and goes on."""
    with contextlib.closing(house.engine.receiver()) as receiver:
        house.served.send("/pause", {"tube": TUBE, "for": "30m"})
        assert receiver.is_paused(TUBE)
        wait_for(lambda: "is paused" in house.words("/"), "the pause on the page")
        house.served.send("/resume", {"tube": TUBE})
        assert not receiver.is_paused(TUBE)
        wait_for(lambda: "is paused" not in house.words("/"), "the page to say so")


def outlive_the_engine(house: House) -> None:
    """An engine that is away is told, all pages answer, and all comes back by itself."""
    paths = ("/", "/buried", "/queues", "/search", "/live", "/activity", "/health", f"/d/{house.buried[3]}")
    away = re.compile("WRONG (the queue|queue:)")
    house.engine.stop()
    try:
        wait_for(lambda: "WRONG the queue cannot be looked at" in house.verdict(), "the verdict")
        for path in paths:
            assert house.served.get(path).status in (200, 503), path
    finally:
        house.engine.start()
    wait_for(lambda: not away.search(house.verdict()), "the verdict to change")
    assert house.served.get(f"/d/{house.buried[3]}").status == 200


def look_rarely(house: House) -> None:
    """Where each look is metered, a console that nobody watches makes so few calls an hour as the page says."""
    operations = Operations(parse(house.served.file.read_text(), str(house.served.file)), actor="")
    census, sampler = Census(operations), Sampler(operations)
    for _ in range(2):
        # the first looks are those of the start
        house.engine.calls(clear=True)
        for watcher in (census, sampler):
            with operations.looking() as queue:
                watcher.step(queue)
        list(glance(operations, Silent()))
    calls = {name: round(count * 3600 / METERED[1]) for name, count in house.engine.calls().items() if count}
    waiting = sum(counts.ready + counts.delayed for counts in house.inspector.counts())
    if house.engine.name == "sqs":
        # that of the tube, and the one that is always there
        each = calls.pop("GetQueueAttributes") // 2
        told = f"{each} for each queue, and {calls.pop('ListQueues')} ListQueues"
    else:
        told = f"and {calls.pop('GetWorkflowExecutionHistory') // waiting} for each of up to 20 that wait in a tube"
        told = f"{sum(calls.values())}, {told}"
        calls.clear()
    assert not calls
    assert f" {told} |" in (ROOT / "docs" / f"{house.engine.name}.md").read_text(), told


# one test for each engine: its server, and the console's process, are most of what it costs
@pytest.mark.parametrize("name", ENGINES)
def test_an_operator_sees_and_decides_on_all_that_the_engine_can(name: str, tmp_path: Path) -> None:
    kind = ENGINES[name]
    if missing := kind.missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    with ExitStack() as closing:
        engine = kind(tmp_path)
        closing.callback(engine.end)
        house = House(engine, closing)
        look_at_everything(house)
        kick_a_group_and_bring_back_another(house)
        pause_a_tube(house)
        outlive_the_engine(house)
        if house.able.metered:
            look_rarely(house)
