"""The article's program on Amazon SWF: nothing is changed but the queue's URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servers import running

from tests.conftest import wait_for
from tests.queues.swf.service import CREDENTIALS, REGION, SwfService

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_glassware_stores_what_a_user_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with (
        SwfService(tmp_path) as service,
        running(tmp_path / "example", queue=f"swf://{REGION}/glassware?endpoint={service.endpoint()}") as up,
    ):
        up.enrol("ada", up.callback)
        item = up.glass.share("ada", ["jpeg", "mp4"])
        assert up.glass.ping("ada", item).statuses == (200,)
        wait_for(lambda: all(path.exists() for path, _ in up.files(item)), "the photo to be stored")
        assert [path.read_bytes() for path, _ in up.files(item)] == [each.data for _, each in up.files(item)]
        wait_for(lambda: {run.get("closeStatus") for run in service.truth().runs} == {"COMPLETED"}, "the end of it all")
