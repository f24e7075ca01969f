"""Looking costs calls, of which an account has few: only what can match is read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from glassq.delivery import encode, new
from glassq.errors import JobNotFound
from glassq.queues.base import ALL_STATES
from glassq.queues.swf.client import SwfClient
from glassq.queues.swf.counting import SAMPLE
from glassq.queues.swf.deciding import SwfDeciding
from glassq.queues.swf.inspector import SwfInspector
from glassq.queues.swf.making import SwfDomain
from glassq.queues.swf.place import SwfPlace
from glassq.queues.swf.receiver import SwfReceiver
from glassq.queues.swf.versions import NEWEST
from tests.queues.swf.service import CREDENTIALS, REGION, SwfService

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.queues.base import State, TubeCounts, WaitingState

LISTS, HISTORIES = "ListOpenWorkflowExecutions", "GetWorkflowExecutionHistory"


class Domain:
    """A domain of its own, in which a test decides when it wants to."""

    def __init__(self, service: SwfService) -> None:
        self.service = service
        place = SwfPlace(REGION, "looking", service.endpoint(), poll=1)
        self.client = SwfClient(place, connect_timeout=20, timeout=20)
        SwfDomain(self.client).upgrade()
        self._deciding = SwfDeciding(self.client, NEWEST)

    def inspector(self) -> SwfInspector:
        """One that knows nothing yet. Calls are counted from now on."""
        made = SwfInspector(self.client, lease=60)
        self.service.calls(clear=True)
        return made

    def put(self, state: WaitingState, many: int, tube: str = "pings") -> list[str]:
        """The ids of so many deliveries; what follows from their puts is decided."""
        inspector = SwfInspector(self.client, lease=60)
        deliveries = [new("mirror", b"{}", {}) for _ in range(many)]
        for each in deliveries:
            inspector.insert(encode(each), tube=tube, state=state, delay=3600.0)
        self.decide()
        return [each.id for each in deliveries]

    def decide(self) -> None:
        while self._deciding.step():
            pass

    def calls(self) -> tuple[int, int]:
        """How many lists, and how many histories were read."""
        found = self.service.calls()
        return found.get(LISTS, 0), found.get(HISTORIES, 0)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwfService]:
    os.environ.update(CREDENTIALS)
    with SwfService(tmp_path_factory.mktemp("swf"), poll=0.05) as made:
        yield made


@pytest.fixture
def domain(service: SwfService) -> Iterator[Domain]:
    made = Domain(service)
    yield made
    service.clear("looking")
    made.client.close()


def short(counts: TubeCounts) -> tuple[int, int, int, int]:
    return counts.ready, counts.reserved, counts.delayed, counts.buried


def test_what_is_ready_or_buried_is_counted_without_a_history(domain: Domain) -> None:
    domain.put("ready", 30)
    domain.put("buried", 5)
    [counts] = domain.inspector().counts(["pings"])
    # one list is that of pauses
    assert (short(counts), domain.calls()) == ((30, 0, 0, 5), (2, 0))


def test_what_is_at_work_is_found_among_the_oldest_and_no_further_one_is_read(domain: Domain) -> None:
    domain.put("ready", 25)
    receiver = SwfReceiver(domain.client, lease=60)
    held = receiver.reserve(["pings"], 5)
    assert held is not None
    [counts] = domain.inspector().counts(["pings"])
    assert (short(counts), domain.calls()) == ((24, 1, 0, 0), (2, 1))
    receiver.close()


def test_of_many_that_wait_some_are_read(domain: Domain) -> None:
    domain.put("delayed", SAMPLE + 10)
    [counts] = domain.inspector().counts(["pings"])
    assert (short(counts), domain.calls()) == ((0, 0, SAMPLE + 10, 0), (2, SAMPLE))


def test_a_search_reads_only_what_can_match(domain: Domain) -> None:
    ready = domain.put("ready", 10)
    domain.put("buried", 3)
    domain.put("buried", 2, tube="other")
    inspector = domain.inspector()
    assert sorted(inspector.tubes()) == ["other", "pings"]
    searches: list[tuple[State, list[str], int]] = [
        ("buried", ["pings"], 3), ("buried", ["pings", "other"], 5), ("ready", ["pings"], 10),
    ]  # fmt: skip
    for state, tubes, many in searches:
        inspector = domain.inspector()
        assert len(list(inspector.find(frozenset({state}), tubes))) == many
        assert domain.calls() == (1, many)
    inspector = domain.inspector()
    [job] = inspector.find(ALL_STATES, ["pings", "other"], wanted=lambda key: key == ready[4])
    assert (job.ref, domain.calls()) == (inspector.ref_of(ready[4]), (1, 1))
    # its run is known by now
    assert (inspector.get(job.ref).ref, domain.calls()) == (job.ref, (1, 2))
    # the first one is the oldest
    inspector = domain.inspector()
    first = inspector.first("ready", "pings")
    assert first is not None
    assert (first.ref, domain.calls()) == (inspector.ref_of(ready[0]), (1, 1))


def test_a_known_run_that_is_over_is_followed_to_the_one_after_it_or_to_a_new_execution(domain: Domain) -> None:
    [key] = domain.put("buried", 1)
    inspector = domain.inspector()
    [job] = inspector.find(frozenset({"buried"}), ["pings"])
    inspector.change(job, state="ready")
    domain.decide()
    assert inspector.get(job.ref).state == "ready"
    inspector.delete(inspector.get(job.ref))
    with pytest.raises(JobNotFound):
        inspector.get(job.ref)
    inspector.insert(job.body, tube="pings", state="buried")
    assert (inspector.get(job.ref).state, job.ref) == ("buried", inspector.ref_of(key))


def test_what_was_moved_a_moment_ago_is_found_before_that_is_decided(domain: Domain) -> None:
    domain.put("buried", 1)
    inspector = domain.inspector()
    [job] = inspector.find(frozenset({"buried"}), ["pings"])
    inspector.change(job, state="buried", tube="new")
    [moved] = domain.inspector().find(frozenset({"buried"}), ["pings"])
    assert (moved.ref, moved.tube) == (job.ref, "new")
    domain.decide()
    assert list(domain.inspector().find(frozenset({"buried"}), ["pings"])) == []
    assert [each.ref for each in domain.inspector().find(frozenset({"buried"}), [moved.tube])] == [job.ref]
