"""What others of the account start or say in our domain: operators find it, and it stops nothing."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from glassq.delivery import decode
from glassq.errors import DamagedDelivery
from glassq.queues import open_inspector
from glassq.queues.swf.client import shared_client
from glassq.queues.swf.decider import VERSION
from glassq.queues.swf.forms import MAX_TEXT
from glassq.queues.swf.names import NOBODY, PAUSE_TYPE, PAUSE_VERSION, TYPE, decision_list
from glassq.queues.swf.pauses import paused
from glassq.queues.swf.place import place_of
from tests.conftest import wait_for
from tests.queues.swf.pool import SwfPool
from tests.queues.swf.service import SwfService

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.queues.base import Job
    from glassq.queues.swf.client import SwfClient


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwfPool]:
    home = tmp_path_factory.mktemp("swf")
    with SwfService(home) as service:
        running = SwfPool(home, service, ttr=600, processes=1)
        running.start()
        yield running
        running.end()


def client_of(pool: SwfPool) -> SwfClient:
    return shared_client(place_of(pool.settings.queue.url), 5.0, 5.0)


def start(client: SwfClient, name: str, text: str, tags: list[str]) -> None:
    client.once(
        "start_workflow_execution",
        workflowId=name,
        workflowType={"name": TYPE, "version": VERSION},
        taskList=decision_list(VERSION),
        executionStartToCloseTimeout="31536000",
        taskStartToCloseTimeout="15",
        childPolicy="TERMINATE",
        tagList=tags,
        input=text,
    )


def buried(pool: SwfPool) -> list[Job]:
    with closing(open_inspector(pool.settings)) as inspector:
        return list(inspector.find(frozenset({"buried"}), ["pings"]))


INPUTS = {
    "words": "Hello",
    "large": "x" * MAX_TEXT,
    "nested": '{"tube":"pings","a":' + "[" * 16_000 + "]" * 16_000 + "}\n",
    "late": '{"tube":"pings","state":"delayed","delay":1e308}\nbody',
    "no lease": '{"tube":"pings","lease":-1}\nbody',
    "no tube": '{"tube":""}\nbody',
    "large form": '{"tube":"pings"}\n' + "y" * (MAX_TEXT - 20),
    "damaged": '{"tube":"pings"}\nnot a delivery',
}


def test_whatever_is_started_in_our_domain_is_buried_and_stops_nothing(pool: SwfPool) -> None:
    client = client_of(pool)
    for name, text in INPUTS.items():
        start(client, name, text, ["tube:pings"])
    # without a tag nobody knows where it belongs: it waits, and is in no way
    start(client, "no tags", "Hello", [])
    [ours] = pool.put([{}])
    wait_for(lambda: pool.done() == [ours], "our own to be worked")
    wait_for(lambda: len(buried(pool)) == len(INPUTS), "all others to be buried")
    for job in buried(pool):
        with pytest.raises(DamagedDelivery):
            decode(job.body)
    assert "Traceback" not in (pool.home / "pool.log").read_text()
    assert "cannot be decided" not in (pool.home / "pool.log").read_text()
    with closing(open_inspector(pool.settings)) as inspector:
        for job in buried(pool):
            assert inspector.history(job.ref.removeprefix("swf:"))
            inspector.delete(job)
    wait_for(lambda: not buried(pool), "none to be left")


def test_a_signal_of_nonsense_changes_nothing(pool: SwfPool) -> None:
    [ours] = pool.put([{"fails": "always", "delay": 0}])
    wait_for(lambda: pool.buried() == [ours], "it to be buried")
    client = client_of(pool)
    for name in ("change", "state", "?"):
        for text in ("", "nonsense", "{" * 30_000, '{"tube":"","seen":1}\n', '{"tube":"pings","seen":-1}\n'):
            client.once("signal_workflow_execution", workflowId=ours, signalName=name, input=text or " ")
    [after] = pool.put([{}])
    wait_for(lambda: after in pool.done(), "another one to be worked")
    assert pool.buried() == [ours]
    assert "cannot be decided" not in (pool.home / "pool.log").read_text()


def test_a_pause_that_another_program_wrote_stops_no_pool(pool: SwfPool) -> None:
    client = client_of(pool)
    for number, until in enumerate(("", "tomorrow", "nan", "inf", "-1", f"{time.time() + 600}")):
        client.once(
            "start_workflow_execution",
            workflowId=f"pause {number}",
            workflowType={"name": PAUSE_TYPE, "version": PAUSE_VERSION},
            taskList=NOBODY,
            executionStartToCloseTimeout="600",
            taskStartToCloseTimeout="NONE",
            childPolicy="TERMINATE",
            tagList=[f"paused:other-{number}", f"until:{until}"],
        )
    found = paused(client)
    assert found.keys() == {"other-3", "other-5"}
    # for ever is as long as a pause may be
    assert 0 < found["other-5"] < found["other-3"] < 366 * 86_400
    [ours] = pool.put([{}])
    wait_for(lambda: ours in pool.done(), "one to be worked")
    assert "Traceback" not in (pool.home / "pool.log").read_text()
