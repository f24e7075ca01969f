"""What a further engine needs: a row of its URL, and its package. Nothing else asks which engine it is."""

from __future__ import annotations

import sys
from contextlib import closing
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from glassq import queues
from glassq.dev.queue_server import queue_server
from glassq.errors import QueueUnavailable
from glassq.operations import Operations, queue_tables
from glassq.programs.gating import keys_over_hosts
from glassq.settings import parse, remarks_on_shared
from glassq.values import QueueUrl, SyncerAddress, queue_url
from glassq.values.queue_url import EngineUrl

if TYPE_CHECKING:
    from pathlib import Path


def check(text: str) -> None:
    if not text.startswith("paper://"):
        raise ValueError("expected paper://DESK")


@pytest.fixture(autouse=True)
def paper(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An engine of sheets of paper: `asked` tells what it was asked to open."""
    row = EngineUrl("paper", ("paper",), ("paper://DESK",), check, many_hosts=True)
    monkeypatch.setitem(queue_url._BY_SCHEME, "paper", row)
    opening = ModuleType("glassq.queues.paper.opening")
    vars(opening).update(
        NAME="Paper",
        open_producer=lambda settings: f"producer of {settings.queue.url}",
        open_receiver=lambda settings: f"receiver of {settings.queue.url}",
        open_inspector=lambda settings: f"inspector of {settings.queue.url}",
        local_engine=lambda settings: f"parts of {settings.queue.url}",
        open_tables=lambda settings, url, tubes: None,
        advice=lambda settings, error: f"sharpen the pencil: {error}",
        remarks=lambda settings: iter(["paper is patient"]),
    )
    monkeypatch.setitem(sys.modules, "glassq.queues.paper", ModuleType("glassq.queues.paper"))
    monkeypatch.setitem(sys.modules, "glassq.queues.paper.opening", opening)
    return opening


def test_it_is_opened_by_its_url(tmp_path: Path) -> None:
    settings = parse('[queue]\nurl = "paper://desk"\n', str(tmp_path / "glassq.toml"))
    assert str(queues.open_producer(settings)) == "producer of paper://desk"
    assert str(queues.open_receiver(settings)) == "receiver of paper://desk"
    assert str(queues.open_inspector(settings)) == "inspector of paper://desk"
    assert str(queues.local_engine(settings)) == "parts of paper://desk"
    assert queues.advice(settings, QueueUnavailable("blunt")) == "sharpen the pencil: blunt"
    assert list(queues.remarks(settings)) == ["paper is patient"]
    queues.check_tables(settings)


def test_what_other_engines_have_it_has_not(tmp_path: Path) -> None:
    settings = parse('[queue]\nurl = "paper://desk"\n', str(tmp_path / "glassq.toml"))
    assert SyncerAddress("").beside(QueueUrl("paper://desk")) is None
    assert keys_over_hosts(settings) is None
    assert settings.ledger.url.startswith("sqlite:")
    # its hosts are many, so what is a file of one is remarked on
    assert any("[ledger] url" in remark and "queue's database" not in remark for remark in remarks_on_shared(settings))
    report = queue_tables.init(Operations(settings, actor="tester"))
    assert (report.engine, report.known) == ("Paper", 0)
    with closing(queue_server(settings, tmp_path)) as server:
        assert server.processes() == []


def test_its_row_says_what_is_wrong_with_its_url() -> None:
    with pytest.raises(ValueError, match="expected paper://DESK"):
        QueueUrl("paper:desk")
