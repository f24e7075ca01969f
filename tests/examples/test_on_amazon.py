"""The article's program on Amazon SQS and SWF: nothing is changed but the queue's URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from servers import running

from tests.conftest import wait_for
from tests.queues.aws.service import CREDENTIALS, REGION
from tests.queues.sqs.service import SqsService
from tests.queues.swf.service import SwfService

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def sqs_is_empty(service: SqsService) -> bool:
    return not service.truth().messages and service.calls()["DeleteMessage"] >= 1


def swf_has_completed_all(service: SwfService) -> bool:
    return {run.get("closeStatus") for run in service.truth().runs} == {"COMPLETED"}


@pytest.mark.parametrize(
    ("kind", "scheme", "over"),
    [(SqsService, "sqs", sqs_is_empty), (SwfService, "swf", swf_has_completed_all)],
    ids=["sqs", "swf"],
)
def test_the_glassware_stores_what_a_user_shares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, scheme: str, over: Callable[[Any], bool]
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with (
        kind(tmp_path) as service,
        running(
            tmp_path / "example", queue=f"{scheme}://{REGION}/glassware?endpoint={service.endpoint()}&poll=2"
        ) as up,
    ):
        up.enrol("ada", up.callback)
        item = up.glass.share("ada", ["jpeg", "mp4"])
        assert up.glass.ping("ada", item).statuses == (200,)
        wait_for(lambda: all(path.exists() for path, _ in up.files(item)), "the photo to be stored")
        assert [path.read_bytes() for path, _ in up.files(item)] == [each.data for _, each in up.files(item)]
        wait_for(lambda: over(service), "the end of it all")
