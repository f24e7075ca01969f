"""The console on every engine: what it shows and does there, and what it says of what an engine cannot."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from glassq.console.routes import ROUTES
from glassq.delivery import Delivery, decode, encode
from glassq.queues.base import ALL_STATES, NewJob
from tests.cli.conftest import a_delivery, evidence
from tests.conftest import wait_for
from tests.console.served import Served
from tests.queues.conformance.engine import TIMEOUT
from tests.queues.conformance.engines import ENGINES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.queues.base import Capabilities, Inspector
    from tests.queues.conformance.engine import Engine

TUBE = "glassq"
GONE, SLOW = "KeyError: photo", "HttpError: 503"


class House:
    """An engine that holds deliveries, with a console, and an operator who has signed in there."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.inspector: Inspector = engine.inspector()
        engine.make([TUBE])
        self.buried = [self._bury(GONE) for _ in range(3)] + [self._bury(SLOW) for _ in range(2)]
        self.ready, self.late = a_delivery(), a_delivery()
        put = [NewJob(self.ready.id, encode(self.ready), TUBE), NewJob(self.late.id, encode(self.late), TUBE, 7200.0)]
        engine.producer().put(put, within=TIMEOUT)
        # where an engine keeps something beside it, that is in the ledger's place
        self.served = Served(engine.directory, engine.section())
        self.served.sign_in()
        wait_for(lambda: self.groups() == {"KeyError": 3, "HttpError": 2}, "the groups")

    @property
    def able(self) -> Capabilities:
        return self.inspector.capabilities

    def groups(self) -> dict[str, int]:
        """How many lie buried by what error."""
        return {group["error"].partition(":")[0]: group["count"] for group in self.document("/buried")["groups"]}

    def document(self, path: str) -> Any:
        """A page's twin."""
        name, _, query = path.partition("?")
        twin = f"{'' if name == '/' else name}.json".replace("//", "/") if name != "/" else "/.json"
        return self.served.json(f"{twin}{'?' if query else ''}{query}")

    def words(self, path: str) -> str:
        """What a page says, without its tags."""
        return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", self.served.get(path).body.decode()))

    def kinds(self) -> dict[str, int]:
        return self.groups()

    def cause(self, error: str) -> str:
        """The id of a group."""
        return next(group["id"] for group in self.document("/buried")["groups"] if group["error"].startswith(error))

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
        receiver = self.engine.receiver()
        held = None

        def reserved() -> bool:
            nonlocal held
            held = receiver.reserve([TUBE], 0)
            return held is not None

        wait_for(reserved, "a delivery")
        assert held is not None
        receiver.complete(held)
        receiver.close()
        return decode(held.body)

    def end(self) -> None:
        self.inspector.close()
        self.served.end()

    def _bury(self, why: str) -> str:
        told = a_delivery(evidence=(evidence(why),), buried=why)
        self.inspector.insert(encode(told), tube=TUBE, state="buried")
        return told.id


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    kind = ENGINES[request.param]
    if missing := kind.missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    running = kind(tmp_path_factory.mktemp(kind.name))
    yield running
    running.end()


@pytest.fixture(scope="module")
def house(engine: Engine) -> Iterator[House]:
    made = House(engine)
    yield made
    made.end()


def test_every_page_and_its_twin_answers_and_says_what_the_engine_cannot(house: House) -> None:
    values = {"name": TUBE, "id": house.buried[0]}
    paths = [route.path for route in ROUTES if route.method == "GET" and not route.path.startswith(("/plans", "/runs"))]
    for path in paths:
        if path == "/sources/{name}":
            continue
        given = house.cause("KeyError") if path == "/buried/{id}" else values["id"]
        asked = path.format(name=TUBE, id=given)
        assert house.served.get(asked).status == 200, asked
        twin = "/.json" if asked == "/" else f"{asked}.json"
        answer = house.served.get(twin)
        assert answer.status == 200, twin
        if not path.endswith("/body"):
            json.loads(answer.body)
    overview = house.words("/")
    assert house.able.oldest != ("does not tell how old" in overview), overview
    assert house.able.exact_counts != ("approximate" in overview), overview
    if house.able.lists == ALL_STATES:
        assert house.ready.id in house.words(f"/d/{house.ready.id}")
        assert house.ready.id in house.words(f"/search?q={house.ready.id[:20]}")
    else:
        unseen = house.able.unseen.partition(":")[0]
        assert unseen in house.words(f"/d/{house.ready.id}")
        assert unseen in house.words(f"/search?q={house.ready.id[:20]}")
    assert house.late.id in house.words(f"/d/{house.late.id}")


def test_a_group_is_kicked_and_worked_and_another_archived_and_brought_back(house: House) -> None:
    assert house.take().id == house.ready.id
    run = house.carry_out("kick", "KeyError")
    assert (run["state"], run["report"]["done"]) == ("done", 3), run
    assert sorted(house.take().id for _ in range(3)) == sorted(house.buried[:3])
    wait_for(lambda: house.groups() == {"HttpError": 2}, "the group to be gone")
    run = house.carry_out("archive", "HttpError")
    assert (run["state"], run["report"]["done"]) == ("done", 2), run
    wait_for(lambda: not house.groups(), "the other one to be gone")
    undone = house.ended(house.served.send(f"/runs/{run['id']}/undo", {}))
    assert undone["state"] == "done", undone
    wait_for(lambda: house.groups() == {"HttpError": 2}, "what was archived")


def test_a_tube_is_paused_and_goes_on(house: House) -> None:
    receiver = house.engine.receiver()
    house.served.send("/pause", {"tube": TUBE, "for": "30m"})
    assert receiver.is_paused(TUBE)
    wait_for(lambda: "is paused" in house.words("/"), "the pause on the page")
    house.served.send("/resume", {"tube": TUBE})
    assert not receiver.is_paused(TUBE)
    wait_for(lambda: "is paused" not in house.words("/"), "the page to say so")
    receiver.close()


def test_an_engine_that_is_away_is_told_and_comes_back_by_itself(house: House) -> None:
    paths = ("/", "/buried", "/queues", "/search", "/live", "/activity", "/health", f"/d/{house.buried[3]}")
    house.engine.stop()
    try:
        wait_for(lambda: "WRONG the queue cannot be looked at" in house.words("/"), "the verdict")
        for path in paths:
            assert house.served.get(path).status in (200, 503), path
    finally:
        house.engine.start()
    wait_for(lambda: "WRONG" not in house.words("/"), "the verdict to change")
    assert house.groups() == {"HttpError": 2}
    assert house.served.get(f"/d/{house.buried[3]}").status == 200
