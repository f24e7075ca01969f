"""A beanstalkd that syncs only at an interval, and no syncer: its answers prove nothing, and it is refused by name."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from glassq.errors import NotDurable
from glassq.queues import open_inspector, open_producer, open_receiver
from glassq.queues.base import ALL_STATES, NewJob, Receipt
from glassq.settings import QueueSettings, Settings
from glassq.values import SyncerAddress
from tests.conftest import Beanstalkd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WITHIN = 20.0
# beanstalkd takes the last of several options; the first case is its own default
INTERVALS = {"": "once in 50 ms (-f50)", "-f1000": "once in 1000 ms (-f1000)", "-F": "never syncs its files (-F)"}
TODO = r"start it with -f0, or run glassq-syncer beside it and name that in \[queue\] syncer"


@pytest.fixture(params=["tcp", "unix"])
def unix(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "unix")


@pytest.fixture(params=INTERVALS)
def lone(request: pytest.FixtureRequest, tmp_path: Path, unix: bool) -> Iterator[tuple[Settings, str]]:
    """Settings that name no syncer, and what is to be said of the interval."""
    options = (request.param,) if request.param else ("-f", "50")
    server = Beanstalkd(tmp_path, unix=unix, options=options)
    yield without_syncer(server), INTERVALS[request.param]
    server.stop()


def without_syncer(server: Beanstalkd) -> Settings:
    return Settings(queue=QueueSettings(url=server.url, syncer=SyncerAddress("none")))


def test_nothing_is_proven_by_the_answers_of_such_a_server(lone: tuple[Settings, str]) -> None:
    settings, said = lone
    with closing(open_producer(settings)) as producer:
        with pytest.raises(NotDurable, match=TODO) as refused:
            producer.check(within=WITHIN)
        assert said in str(refused.value)
        (receipt,) = producer.put([NewJob("", b"ping", "glassq")], within=WITHIN)
        assert isinstance(receipt, Receipt)
        with pytest.raises(NotDurable, match=TODO):
            producer.confirm([receipt], within=WITHIN)


def test_no_old_form_goes_on_the_word_of_such_a_server(lone: tuple[Settings, str]) -> None:
    settings, _ = lone
    with closing(open_producer(settings)) as producer:
        producer.put([NewJob("", b"ping", "glassq")], within=WITHIN)
    with closing(open_receiver(settings)) as receiver:
        held = receiver.reserve(["glassq"], 0)
        assert held is not None
        with pytest.raises(NotDurable, match=TODO):
            receiver.retry(held, b"again", delay=0, tube="glassq")
        receiver.release(held)
    with closing(open_inspector(settings)) as inspector:
        with pytest.raises(NotDurable, match=TODO):
            inspector.insert(b"more", tube="glassq", state="ready")
        assert [job.body for job in inspector.find(ALL_STATES, ["glassq"])] == [b"ping"]


def test_it_is_looked_at_once_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    monkeypatch.setattr("glassq.queues.beanstalk.connection.sync_interval", lambda *asked: looked.append(asked))
    server = Beanstalkd(tmp_path)
    try:
        with closing(open_producer(without_syncer(server))) as producer:
            for _ in range(3):
                # what cannot be seen is taken for -f0, as on another host
                producer.check(within=WITHIN)
            assert len(looked) == 1
            producer.close()
            producer.check(within=WITHIN)
        assert len(looked) == 2
    finally:
        server.stop()
