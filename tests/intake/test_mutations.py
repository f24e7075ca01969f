"""Spoiled pings: whatever a stranger makes of a right ping is refused as his mistake, or is as genuine as before.

600 of them, by chance; `make mutations` sends 20,000 (GLASSQ_MUTATIONS). A failure names its seed (GLASSQ_SEED).
"""

from __future__ import annotations

import os
import random
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.intake.mutations import Ping, may_be_genuine, pings, sections, spoil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Beanstalkd
    from tests.intake.conftest import Web

MANY = int(os.environ.get("GLASSQ_MUTATIONS", "600"))
SEED = int(os.environ.get("GLASSQ_SEED", time.time_ns() % 1_000_000_000))
PINGS = pings()
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\n]*\r\n(?!\r\n)")


@pytest.fixture(scope="module")
def many_sources(tmp_path_factory: pytest.TempPathFactory, shared_beanstalkd: Beanstalkd) -> Iterator[Web]:
    """A source for each ping, in one intake."""
    from tests.intake.conftest import Web

    directory = tmp_path_factory.mktemp("mutations")
    web = Web(directory / "web", shared_beanstalkd.url, queue=sections(directory))
    web.wait_ready()
    yield web
    web.stop()


def answered(web: Web, data: bytes) -> list[int]:
    """The statuses of all answers to these bytes."""
    with web.wire() as wire:
        wire.send(data)
        wire.half_close()
        with suppress(ConnectionResetError):
            wire.rest()
        return [int(status) for status in _STATUS.findall(wire.seen)]


@pytest.mark.parametrize("ping", PINGS, ids=lambda ping: ping.name)
def test_as_it_is_each_is_taken(many_sources: Web, ping: Ping) -> None:
    (status,) = answered(many_sources, ping.data)
    assert status in (200, 202, 204)
    assert may_be_genuine(ping, ping.data)


def test_spoiled_ones_are_refused_or_as_genuine_as_before(many_sources: Web, jobs: Callable[[], list[bytes]]) -> None:
    chance = random.Random(SEED)
    refused = 0
    for number in range(MANY):
        ping = PINGS[number % len(PINGS)]
        data = spoil(ping, PINGS, chance)
        statuses = answered(many_sources, data)
        told = f"seed {SEED}, number {number}, {ping.name}: {data!r} -> {statuses}"
        assert statuses, told
        assert all(status < 500 for status in statuses), told
        if any(status < 300 and status != 100 for status in statuses):
            assert may_be_genuine(ping, data) or is_challenge(data), told
        else:
            refused += 1
        if number % 1000 == 0:
            jobs()
    jobs()
    # most are spoiled for good
    assert refused > MANY / 2


def is_challenge(data: bytes) -> bool:
    """Whether it is answered without a proof, and nothing is kept of it."""
    return not data.startswith(b"POST") or b"validationToken=" in data.partition(b"\r\n")[0]
