"""Pings come while a service of Amazon's is hostile, and then away: none is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conftest import wait_for
from tests.intake.wire import request

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.intake.conftest import Web
    from tests.queues.aws.faults import AwsFaults
    from tests.queues.aws.service import AwsService


def ask_a_hostile_service(
    web: Web, service: AwsService, hostile: AwsFaults, calm: AwsFaults, kept: Callable[[], set[str]]
) -> None:
    """Each ping is answered well, and in the end the service has them all: `kept` are the ids that it has."""
    try:
        web.wait_ready()
        service.be(hostile)
        statuses = [web.ask(request()).status for _ in range(6)]
        service.stop()
        statuses += [web.ask(request()).status for _ in range(4)]
        assert statuses == [200] * 10
        assert web.journaled() >= 4
        service.be(calm)
        service.start()
        wait_for(lambda: not web.journaled(), "the pings to be moved on")
        assert len(kept()) == 10
    finally:
        web.stop()
