"""The intake in front of Amazon SQS: what is answered 200 is there, or in the journal until it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glassq.delivery import decode
from tests.conftest import wait_for
from tests.intake.conftest import Web
from tests.intake.wire import request
from tests.queues.sqs.faults import Faults
from tests.queues.sqs.service import CREDENTIALS, REGION, SqsService

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("acknowledge", ["queue", "journal"])
def test_no_ping_is_lost_while_the_service_is_hostile_or_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, acknowledge: str
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with SqsService(tmp_path) as service:
        service.make("intake-glassq")
        web = Web(tmp_path / "web", f"sqs://{REGION}/intake?endpoint={service.endpoint()}", acknowledge=acknowledge)
        try:
            web.wait_ready()
            service.set(Faults(seed=5, throttle=0.2, late=0.1, cut=0.1, broken=0.1))
            statuses = [web.ask(request()).status for _ in range(6)]
            service.stop()
            statuses += [web.ask(request()).status for _ in range(4)]
            assert statuses == [200] * 10
            assert web.journaled() >= 4
            service.set()
            service.start()
            wait_for(lambda: not web.journaled(), "the pings to be moved on")
            assert len({decode(each["body"].encode()).id for each in service.truth().messages}) == 10
        finally:
            web.stop()
