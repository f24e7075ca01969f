"""The intake in front of Amazon SQS and SWF: what is answered 200 is there, or in the journal until it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from glassq.delivery import decode
from tests.intake.conftest import Web
from tests.intake.hostile import ask_a_hostile_service
from tests.queues.aws.pool import make_queue
from tests.queues.aws.service import CREDENTIALS, REGION
from tests.queues.sqs.faults import Faults as SqsFaults
from tests.queues.sqs.service import SqsService
from tests.queues.swf.faults import Faults as SwfFaults
from tests.queues.swf.service import SwfService

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def in_sqs(service: SqsService) -> set[str]:
    return {decode(each["body"].encode()).id for each in service.truth().messages}


def in_swf(service: SwfService) -> set[str]:
    return {run["execution"]["workflowId"] for run in service.truth().runs}


@pytest.mark.parametrize("acknowledge", ["queue", "journal"])
@pytest.mark.parametrize(
    ("kind", "scheme", "faults", "there"),
    [(SqsService, "sqs", SqsFaults, in_sqs), (SwfService, "swf", SwfFaults, in_swf)],
    ids=["sqs", "swf"],
)
def test_no_ping_is_lost_while_the_service_is_hostile_or_away(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    acknowledge: str,
    kind: Any,
    scheme: str,
    faults: Any,
    there: Callable[[Any], set[str]],
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with kind(tmp_path) as service:
        url = f"{scheme}://{REGION}/intake?endpoint={service.endpoint()}"
        web = Web(tmp_path / "web", url, acknowledge=acknowledge)
        make_queue(web.file)
        hostile = faults(seed=5, throttle=0.2, late=0.1, cut=0.1, broken=0.1)
        ask_a_hostile_service(web, service, hostile, faults(), lambda: there(service))
