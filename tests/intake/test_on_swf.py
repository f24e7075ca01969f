"""The intake in front of Amazon SWF: what is answered 200 is there, or in the journal until it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.intake.conftest import Web
from tests.intake.hostile import ask_a_hostile_service
from tests.queues.aws.pool import make_queue
from tests.queues.swf.faults import Faults
from tests.queues.swf.service import CREDENTIALS, REGION, SwfService

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("acknowledge", ["queue", "journal"])
def test_no_ping_is_lost_while_the_service_is_hostile_or_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, acknowledge: str
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with SwfService(tmp_path) as service:
        url = f"swf://{REGION}/intake?endpoint={service.endpoint()}"
        web = Web(tmp_path / "web", url, acknowledge=acknowledge)
        make_queue(web.file)
        hostile = Faults(seed=5, throttle=0.2, late=0.1, cut=0.1, broken=0.1)
        ask_a_hostile_service(
            web,
            service,
            hostile,
            Faults(),
            lambda: {run["execution"]["workflowId"] for run in service.truth().runs},
        )
