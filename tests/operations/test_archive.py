"""Out of the queue into a file, and back, as values: what a face gets beside what the commands show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glassq.errors import Conflict, InvalidRequest, QueueUnavailable, Stopped
from glassq.operations import archive, archive_file, pace, restore
from glassq.operations.filters import Filter, Selection
from glassq.operations.progress import Silent
from glassq.operations.result import Did
from tests.cli.conftest import a_delivery, put, put_bytes
from tests.operations.conftest import Blind, Heard, StopsAt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from glassq.errors import QueueError
    from glassq.operations import Operations
    from glassq.operations.archive import ArchiveReport
    from glassq.queues import Queue
    from glassq.queues.base import Inspector, Job

ALL = Selection(everything=True)


def buried(inspector: Inspector) -> list[bytes]:
    return [job.body for job in inspector.find(frozenset({"buried"}), ["glassq"])]


def items(file: Path | None) -> int:
    assert file is not None
    mistakes: list[str] = []
    count = len(list(archive_file.read(file, mistakes)))
    assert mistakes == []
    return count


def archived(operations: Operations, inspector: Inspector, directory: Path) -> ArchiveReport:
    plan = archive.plan(operations, inspector, ALL, Silent())
    return archive.carry_out(operations, inspector, plan, Silent(), directory)


def test_a_plan_of_either_changes_nothing_and_says_the_same_as_what_is_done(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path
) -> None:
    for number in range(3):
        put(queue, a_delivery(b"%d" % number, buried="busy"), "buried")
    put_bytes(queue, b"damaged", "buried")
    before = buried(inspector)
    plan = archive.plan(operations, inspector, ALL, Silent())
    assert (buried(inspector), list(tmp_path.glob("*.jsonl"))) == (before, [])
    preview = plan.preview()
    assert {result.words for result in preview.results} == {"would be archived"}
    report = archive.carry_out(operations, inspector, plan, Silent(), tmp_path)
    assert [result.id for result in report.results] == [result.id for result in preview.results]
    assert (report.complete, items(report.file), buried(inspector)) == (True, 4, [])
    assert report.file is not None
    back = restore.plan(operations, inspector, [report.file], Silent())
    assert ([result.words for result in back.preview().results], buried(inspector)) == (["would be restored"] * 4, [])
    done = restore.carry_out(operations, inspector, back, Silent())
    assert (done.complete, done.count(Did.RESTORED)) == (True, 4)
    assert all(result.job and inspector.get(result.job).state == "buried" for result in done.results)
    assert buried(inspector) == before


def test_of_those_that_fit_the_oldest_are_archived_first(
    operations: Operations, inspector: Inspector, queue: Queue
) -> None:
    jobs = [put(queue, a_delivery(buried="busy"), "buried") for _ in range(3)]
    plan = archive.plan(operations, inspector, Selection(everything=True, limit=2), Silent())
    assert [job.ref for job in plan.chosen] == [str(job) for job in jobs[:2]]


def test_a_stop_while_the_file_is_written_leaves_no_file_and_the_queue_as_it_was(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PACKET", 1)
    for _ in range(3):
        put(queue, a_delivery(buried="busy"), "buried")
    plan = archive.plan(operations, inspector, ALL, Silent())
    report = archive.carry_out(operations, inspector, plan, StopsAt(2, "written"), tmp_path)
    assert isinstance(report.error, Stopped)
    assert (report.file, report.results, len(buried(inspector))) == (None, [], 3)
    assert [path.name for path in tmp_path.iterdir() if "jsonl" in path.name] == []


def test_a_stop_between_two_packets_keeps_the_report_and_names_the_file(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PACKET", 1)
    for _ in range(3):
        put(queue, a_delivery(buried="busy"), "buried")
    plan = archive.plan(operations, inspector, ALL, Silent())
    report = archive.carry_out(operations, inspector, plan, StopsAt(2, "archived"), tmp_path)
    assert isinstance(report.error, Stopped)
    assert [result.did for result in report.results] == [Did.ARCHIVED, Did.ARCHIVED, Did.NOTHING]
    assert report.results[-1].why.startswith("interrupted: 1 delivery in the file are not deleted from the queue")
    assert (items(report.file), len(buried(inspector))) == (3, 1)


def test_a_queue_that_goes_away_between_two_deletes_keeps_the_report(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path
) -> None:
    class Dying(Blind):
        capabilities = inspector.capabilities
        left = 1

        def delete_all(self, jobs: Sequence[Job]) -> list[QueueError | None]:
            answers = self._inspector.delete_all(jobs[: self.left])
            return [*answers, *(QueueUnavailable("gone") for _ in jobs[self.left :])]

    for _ in range(3):
        put(queue, a_delivery(buried="busy"), "buried")
    plan = archive.plan(operations, inspector, ALL, Silent())
    dying: Inspector = Dying(inspector)  # type: ignore[assignment]
    report = archive.carry_out(operations, dying, plan, Silent(), tmp_path)
    assert (str(report.error), report.count(Did.ARCHIVED), items(report.file)) == ("gone", 1, 3)
    assert report.results[-1].why.startswith("gone: 2 deliveries in the file are not deleted")


def test_a_directory_that_cannot_be_written_is_a_conflict_in_the_report(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path
) -> None:
    put(queue, a_delivery(buried="busy"), "buried")
    plan = archive.plan(operations, inspector, ALL, Silent())
    report = archive.carry_out(operations, inspector, plan, Silent(), tmp_path / "nowhere")
    assert isinstance(report.error, Conflict)
    assert "nothing was archived, the queue is as it was" in str(report.error)
    assert len(buried(inspector)) == 1


def test_a_request_that_names_nothing_or_two_things_is_refused(operations: Operations, inspector: Inspector) -> None:
    for selection in (Selection(), Selection(ids=("1",), everything=True), Selection(ids=("1",), limit=2)):
        with pytest.raises(InvalidRequest):
            archive.plan(operations, inspector, selection, Silent())
    with pytest.raises(InvalidRequest, match="tube other is not ours"):
        archive.plan(operations, inspector, Selection(filter=Filter(tube="other")), Silent())


def test_where_the_engine_does_not_show_all_jobs_a_restore_warns_that_one_may_be_there_already(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path
) -> None:
    put(queue, a_delivery(buried="busy"), "buried")
    file = archived(operations, inspector, tmp_path).file
    assert file is not None
    blind: Inspector = Blind(inspector)  # type: ignore[assignment]
    put(queue, a_delivery(), "ready")
    heard = Heard()
    assert len(restore.plan(operations, blind, [file], heard).jobs) == 1
    assert any("SQS cannot show a delivery that waits; about 1" in words for words in heard.warnings), heard.warnings


def test_a_restore_that_is_stopped_keeps_the_report_and_goes_on_later(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PACKET", 1)
    for number in range(3):
        put(queue, a_delivery(b"%d" % number, buried="busy"), "buried")
    before = buried(inspector)
    file = archived(operations, inspector, tmp_path).file
    assert file is not None
    plan = restore.plan(operations, inspector, [file], Silent())
    report = restore.carry_out(operations, inspector, plan, StopsAt(1))
    assert isinstance(report.error, Stopped)
    assert report.results[-1].why == "interrupted: 1 of 3 are restored; the same command goes on with the rest"
    again = restore.plan(operations, inspector, [file], Silent())
    assert [result.did for result in again.results] == [Did.LEFT_OUT]
    assert restore.carry_out(operations, inspector, again, Silent()).complete
    assert sorted(buried(inspector)) == sorted(before)


def test_a_file_that_changes_or_goes_after_the_plan_restores_nothing_else(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path
) -> None:
    for _ in range(2):
        put(queue, a_delivery(buried="busy"), "buried")
    file = archived(operations, inspector, tmp_path).file
    assert file is not None
    plan = restore.plan(operations, inspector, [file], Silent())
    whole = file.read_bytes().splitlines(keepends=True)
    # The two jobs change places, and the rest of the file says that this is right.
    file.write_bytes(b"".join([whole[0], whole[2], whole[1], whole[3]]))
    report = restore.carry_out(operations, inspector, plan, Silent())
    assert {result.why for result in report.results} == {"the file was changed since it was checked"}
    file.unlink()
    report = restore.carry_out(operations, inspector, plan, Silent())
    assert isinstance(report.error, Conflict)
    assert "cannot be read: No such file or directory" in str(report.error)
    assert buried(inspector) == []


def test_what_is_wrong_with_a_file_is_warned_of_and_restores_nothing_unless_that_is_asked_for(
    operations: Operations, inspector: Inspector, queue: Queue, tmp_path: Path
) -> None:
    for _ in range(2):
        put(queue, a_delivery(buried="busy"), "buried")
    file = archived(operations, inspector, tmp_path).file
    assert file is not None
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], lines[1], lines[3]]))
    heard = Heard()
    with pytest.raises(Conflict, match="nothing was restored"):
        restore.plan(operations, inspector, [file], heard)
    assert [words.startswith(f"{file}: line 3: ") for words in heard.warnings] == [True]
    plan = restore.plan(operations, inspector, [file], Silent(), skip_damaged=True)
    assert (len(plan.jobs), len(plan.damage)) == (1, 1)


def test_two_operators_do_not_restore_one_file_at_once(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.touch()
    # a delivery that two have archived at once stands in a file of each
    other = tmp_path / "b.jsonl"
    other.touch()
    for again in (restore.locked([file]), restore.locked([other])):
        with restore.locked([file, file]), pytest.raises(Conflict, match="somebody restores files of it right now"):
            again.__enter__()
    with restore.locked([file]):
        file.unlink()
    with pytest.raises(InvalidRequest, match="cannot be read"), restore.locked([file]):
        pass
