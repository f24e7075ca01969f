"""beanstalkd on a host whose name is not ASCII: it repeats the name raw in its statistics."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from glassq.settings import QueueSettings
from glassq.values import QueueUrl
from tests.intake.conftest import empty, start_web
from tests.intake.wire import request
from tests.proxy import Proxy
from tests.queues.raw import open_queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Beanstalkd
    from tests.intake.conftest import Web
    from tests.proxy import Way
    from tests.queues.raw import Queue

__all__ = ["start_web"]

NAMES = {
    "UTF-8": "münchen".encode(),
    "latin-1": b"m\xfcnchen",
    "no text at all": b"\xff\xfe\x80",
    "quotes": b'"a" "b',
    "a number": b"007",
    "empty": b"",
    "a colon": b"a: b: c",
    "line ends": b"a\r\nb\n\x85c\ncurrent-jobs-ready: 99\ndraining: true",
    "separators": "a\u2028b\x1c\x0bc".encode(),
}
_STATS = re.compile(rb"OK \d+\r\n(---\n.*\nhostname: )[^\n]*(\n.*)\r\n", re.DOTALL)


def named(name: bytes) -> Callable[[Way, bytes], bytes]:
    """Makes of the statistics of a beanstalkd here those of one on a host of this name."""

    def rewrite(way: Way, data: bytes) -> bytes:
        found = _STATS.fullmatch(data) if way == "back" else None
        if found is None:
            return data
        body = found[1] + name + found[2]
        return b"OK %d\r\n%b\r\n" % (len(body), body)

    return rewrite


@pytest.fixture(params=NAMES.values(), ids=NAMES)
def odd(request: pytest.FixtureRequest, beanstalkd: Beanstalkd) -> Iterator[Proxy]:
    with Proxy(beanstalkd.port, named(request.param)) as proxy:
        yield proxy


@pytest.fixture
def odd_queue(odd: Proxy) -> Iterator[Queue]:
    opened = open_queue(QueueSettings(url=QueueUrl(odd.url)), require_durable=True)
    yield opened
    opened.close()


def test_its_statistics_are_read(beanstalkd: Beanstalkd, odd_queue: Queue) -> None:
    plain = beanstalkd.queue()
    here, there = plain.stats(), odd_queue.stats()
    plain.close()
    assert (there.id, there.version, there.durable, there.max_job) == (here.id, here.version, True, here.max_job)
    assert not there.draining
    odd_queue.put(b"x")
    assert odd_queue.stats_tube().ready == 1
    assert odd_queue.tubes() == ["default", "glassq"]


def test_a_tube_may_be_named_by_a_number(queue: Queue) -> None:
    job = queue.put(b"x", tube="0042")
    assert queue.stats_job(job).tube == "0042"
    assert "0042" in queue.tubes()


def test_pings_go_into_its_queue(beanstalkd: Beanstalkd, odd: Proxy, start_web: Callable[..., Web]) -> None:
    web = start_web(odd.url)
    assert web.ask(request()).status == 200
    assert web.ask(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").body == b"ready\n"
    assert len(empty(beanstalkd)) == 1
