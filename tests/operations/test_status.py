"""The system's status as values: what each face makes a table or a page of."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from glassq import settings
from glassq.delivery import encode
from glassq.operations import Operations, status
from glassq.operations.progress import Silent
from tests.cli.conftest import a_delivery
from tests.journal.conftest import fill_journal

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from glassq.queues.base import Inspector, WaitingState


def insert(inspector: Inspector, state: WaitingState, tube: str = "glassq") -> str:
    return inspector.insert(encode(a_delivery()), tube=tube, state=state, delay=600)


def test_the_tubes_of_ours_come_first_and_strangers_apart(operations: Operations, inspector: Inspector) -> None:
    for tube in ("elsewhere", "glassq.push.mail", "glassq.pushed"):
        insert(inspector, "ready", tube)
    found = status.snapshot(operations, inspector, Silent()).queue
    assert [tube.name for tube in found.tubes] == ["glassq", "glassq.push.mail"]
    assert [tube.name for tube in found.foreign] == ["elsewhere", "glassq.pushed"]
    assert found.oldest is not None
    assert found.oldest.tube == "glassq.push.mail"


def test_hints_name_commands_that_a_face_can_adapt(operations: Operations, inspector: Inspector) -> None:
    insert(inspector, "buried")
    [hint] = status.snapshot(operations, inspector, Silent()).hints
    assert (hint.words, hint.command) == ("1 delivery is buried", "buried")
    insert(inspector, "buried")
    [hint] = status.snapshot(operations, inspector, Silent()).hints
    assert (hint.words, hint.command) == ("2 deliveries are buried; for their causes", "buried --by reason")


def test_the_document_is_whole_and_has_what_only_the_engine_tells(operations: Operations, inspector: Inspector) -> None:
    ready = insert(inspector, "ready")
    document = status.snapshot(operations, inspector, Silent()).document()
    queue = document["queue"]
    assert queue["oldest_ready"]["job"] == ready
    assert (queue["engine"], queue["draining"], queue["workers"]) == ("beanstalkd", False, 0)
    assert (queue["reserved"], queue["files_missing"], queue["files"]) == (0, "", 1)
    assert document["missing"] == {"count": 0, "sure": True}
    assert (document["journal"], document["spool"]) == (None, None)
    json.dumps({**document, "ledger": {**document["ledger"], "since": ""}})


def test_the_ledger_is_asked_about_the_day_before_the_clock(operations: Operations, inspector: Inspector) -> None:
    now = datetime(2026, 5, 1, 12, tzinfo=UTC)
    told = Operations(operations.settings, actor="ada", clock=lambda: now)
    assert status.snapshot(told, inspector, Silent()).since == datetime(2026, 4, 30, 12, tzinfo=UTC)


def test_what_is_in_memory_only_is_told_though_the_engine_says_that_it_writes(
    operations: Operations, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(inspector, "ready")
    seen = status.snapshot(operations, inspector, Silent()).queue
    assert seen.on_disk
    assert seen.oldest is not None
    lost = replace(seen.oldest, durable=False)
    monkeypatch.setattr(type(inspector), "first", lambda *_: lost)
    found = status.snapshot(operations, inspector, Silent())
    assert not found.queue.on_disk
    assert any("the oldest ready job is in memory only" in hint.words for hint in found.hints)


def test_what_the_journal_has_set_aside_is_a_hint(operations: Operations, inspector: Inspector, tmp_path: Path) -> None:
    journal = fill_journal(tmp_path / "journal", [])
    (journal / "damaged" / "one").write_text("?")
    file = tmp_path / "glassq.toml"
    told = Operations(settings.load(str(file), {}), actor="ada")
    [hint] = status.snapshot(told, inspector, Silent()).hints
    assert (hint.words, hint.command) == ("1 damaged in the journal", "journal check")
    (journal / "refused" / "one.job").write_text("?")
    assert [hint.words for hint in status.snapshot(told, inspector, Silent()).hints] == [
        "1 damaged in the journal",
        "1 in the journal are too big for the queue",
    ]


def test_ready_jobs_that_nobody_takes_are_told(operations: Operations, inspector: Inspector) -> None:
    insert(inspector, "ready")
    [hint] = status.snapshot(operations, inspector, Silent()).hints
    assert hint.words == "jobs are ready and nobody takes them: is glassq-worker running?"
    # An inspector that buries is a consumer to the server.
    insert(inspector, "buried")
    hint = status.snapshot(operations, inspector, Silent()).hints[-1]
    assert "glassq-worker is connected, but pauses" in hint.words
