"""The intake in front of Amazon SQS: what is answered 200 is there, or in the journal until it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glassq.delivery import decode
from tests.intake.conftest import Web
from tests.intake.hostile import ask_a_hostile_service
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
        service.make(["intake-glassq"])
        web = Web(tmp_path / "web", f"sqs://{REGION}/intake?endpoint={service.endpoint()}", acknowledge=acknowledge)
        hostile = Faults(seed=5, throttle=0.2, late=0.1, cut=0.1, broken=0.1)
        ask_a_hostile_service(
            web,
            service,
            hostile,
            Faults(),
            lambda: {decode(each["body"].encode()).id for each in service.truth().messages},
        )
