"""What doctor, metrics and config check say of SWF: its limits, its rates, what it costs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from glassq.queues import remarks
from glassq.queues.base import NewJob, Receipt
from glassq.queues.swf import facts
from glassq.queues.swf.client import SwfClient
from glassq.queues.swf.inspector import SwfInspector
from glassq.queues.swf.limits import price, price_again
from glassq.queues.swf.making import SwfDomain
from glassq.queues.swf.place import SwfPlace
from glassq.queues.swf.producer import SwfProducer
from glassq.queues.swf.remarks import enough_hosts
from glassq.settings import parse
from tests.queues.aws.service import CREDENTIALS, REGION
from tests.queues.swf.service import SwfService

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

URL = f'[queue]\nurl = "swf://{REGION}/shop"\n'


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwfClient]:
    os.environ.update(CREDENTIALS)
    with SwfService(tmp_path_factory.mktemp("swf")) as service:
        made = SwfClient(SwfPlace(REGION, "shop", service.endpoint(), poll=1), connect_timeout=20, timeout=20)
        yield made
        made.close()


def test_doctor_says_whether_there_is_room_and_somebody_decides(
    client: SwfClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspector = SwfInspector(client, lease=60)
    with pytest.raises(Exception, match="domain"):
        list(inspector.facts(["pings"]))
    SwfDomain(client).upgrade()
    jobs = [NewJob(f"key {number}", b"ping", "pings") for number in range(3)]
    answers = SwfProducer(client, lease=60).put(jobs, within=20)
    assert all(isinstance(answer, Receipt) for answer in answers)
    said = {fact.name: fact for fact in inspector.facts(["pings"], job_size=24_000, thorough=True)}
    assert [fact.name for fact in said.values() if fact.ok is not True] == []
    assert said["open executions"].said == "3 executions are open, of 100,000"
    assert said["decisions"].said == "3 executions wait for a decision"
    assert {gauge.name: gauge.value for gauge in inspector.status().gauges} == {
        "glassq_queue_open_executions": 3.0,
        "glassq_queue_undecided": 3.0,
    }
    monkeypatch.setattr(facts, "_MUCH", 2)
    monkeypatch.setattr(facts, "_WAITING", 2)
    wrong = {fact.name: fact.todo for fact in inspector.facts(["pings"])}
    assert "ask Amazon for more" in wrong["open executions"]
    assert "each pool decides" in wrong["decisions"]


def test_a_type_that_is_missing_is_told(client: SwfClient, monkeypatch: pytest.MonkeyPatch) -> None:
    SwfDomain(client).upgrade()
    monkeypatch.setattr(SwfDomain, "known", 1_000)
    said = {fact.name: fact for fact in facts.of_place(client, lambda: 20.0, 100_000)}
    assert ("queue init" in said["domain"].todo, said["domain"].ok) == (True, False)
    assert (said["job size"].ok, said["queue"].ok) == (False, True)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            URL,
            ["a million deliveries cost up to $252", "($210 where none is)", "further attempts $120", "100 deliveri"],
        ),
        (f"{URL}[worker]\nprocesses = 1000\ndeadline = '40s'\n", ["heartbeat every 40 s", "used up by 7 such hosts"]),
    ],
)
def test_what_it_costs_and_where_its_rates_end_is_computed_of_the_settings(
    settings: str, says: list[str], tmp_path: Path
) -> None:
    said = "\n".join(remarks(parse(settings, str(tmp_path / "glassq.toml"))))
    for words in says:
        assert words in said


@pytest.mark.parametrize(("attempts", "lease", "hosts"), [(4, 630, 8400), (160, 3, 1), (161, 3, 0), (1000, 630, 33)])
def test_heartbeats_suffice_for_so_many_hosts(attempts: int, lease: int, hosts: int) -> None:
    assert enough_hosts(attempts, lease) == hosts


def test_prices() -> None:
    assert (price(1_000_000, days=0), price_again(1_000_000)) == (pytest.approx(210.0), pytest.approx(120.0))
    assert price(1_000_000, days=90) == pytest.approx(750.0)
