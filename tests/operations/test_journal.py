"""What is in the journal goes into the queue, through a producer, which may say that it is not sure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glassq import settings
from glassq.bodies import DirectoryBodies
from glassq.delivery import new, new_id
from glassq.errors import NotDurable, QueueUnavailable, Stopped
from glassq.journal.mover import PACKET
from glassq.operations import Operations, journal
from glassq.operations.progress import Silent
from tests.cli.conftest import a_delivery
from tests.journal.conftest import files, fill_journal
from tests.operations.conftest import StopsAt
from tests.operations.test_put import producing, waiting
from tests.syncers import queue_section

if TYPE_CHECKING:
    from glassq.delivery import Delivery
    from tests.conftest import Beanstalkd


@pytest.fixture
def filled(beanstalkd: Beanstalkd, tmp_path: Path) -> Operations:
    """Operations with a packet and three deliveries in the journal."""
    file = tmp_path / "glassq.toml"
    file.write_text(f'{queue_section(beanstalkd.url)}[intake]\njournal = "{tmp_path}/journal"\n')
    fill_journal(tmp_path / "journal", [a_delivery() for _ in range(PACKET + 3)])
    return Operations(settings.load(str(file), {}), actor="ada")


def test_moving_on_is_stopped_between_two_packets_with_a_report(filled: Operations) -> None:
    came_to = journal.move_on(filled, StopsAt(PACKET))
    assert isinstance(came_to.error, Stopped)
    assert (came_to.before, came_to.moved, came_to.left) == (PACKET + 3, PACKET, 3)
    assert journal.move_on(filled, Silent()).document() == {
        "moved": 3, "left": 0, "damaged": 0, "refused": 0, "drained": 3
    }  # fmt: skip
    with filled.queue() as queue:
        assert waiting(queue) == PACKET + 3


def test_a_delivery_that_is_not_proven_durable_stays_in_the_journal(filled: Operations) -> None:
    came_to = journal.move_on(producing(filled, sure=PACKET, unproven=NotDurable("in memory")), Silent())
    assert isinstance(came_to.error, NotDurable)
    assert (came_to.moved, came_to.left) == (0, PACKET + 3)


def test_what_is_not_proven_in_time_stays_in_the_journal_alone(filled: Operations) -> None:
    came_to = journal.move_on(producing(filled, sure=PACKET, unproven=QueueUnavailable("too slow")), Silent())
    assert isinstance(came_to.error, QueueUnavailable)
    assert (came_to.moved, came_to.left) == (0, PACKET + 3)
    with filled.queue() as queue:
        assert waiting(queue) == 0


def test_a_queue_that_goes_away_keeps_what_it_has_not_taken(filled: Operations) -> None:
    came_to = journal.move_on(producing(filled, sure=1), Silent())
    assert isinstance(came_to.error, QueueUnavailable)
    assert (came_to.moved, came_to.left) == (PACKET, 3)


def test_a_check_tells_of_each_file_what_is_in_it_and_changes_nothing(filled: Operations) -> None:
    directory = Path(filled.settings.intake.journal)
    (segment,) = (directory / "segments").glob("*.segment")
    (directory / "019a.job").write_bytes(b"?")
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    found = {Path(file.file).name: file for file in journal.check(filled, Silent()).files}
    assert (found[segment.name].deliveries, found[segment.name].left, found[segment.name].damage) == (
        PACKET + 3, PACKET + 3, ""
    )  # fmt: skip
    assert "not put by glassq" in found["019a.job"].damage
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


def test_a_check_names_large_bodies_that_are_lost_or_damaged(tmp_path: Path) -> None:
    file, store = tmp_path / "glassq.toml", DirectoryBodies(tmp_path / "bodies")
    file.write_text(f'[intake]\njournal = "{tmp_path}/journal"\n[bodies]\nurl = "file://{store.directory}"\n')
    store.prepare()
    whole, damaged, lost = deliveries = [with_stored(store, bytes(100)) for _ in range(3)]
    fill_journal(tmp_path / "journal", deliveries)
    (store.directory / "live" / damaged.id).write_bytes(b"x" * 100)
    store.delete(lost.id)
    found = journal.check(Operations(settings.load(str(file), {}), actor="ada"), Silent())
    assert found.damaged == 0
    assert [each.split()[1] for each in found.bodiless] == [damaged.id, lost.id]
    assert whole.id not in str(found.document())


def with_stored(store: DirectoryBodies, content: bytes) -> Delivery:
    key = new_id()
    writer = store.begin(key)
    writer.write(content)
    return new("github", b"", {}, stored=writer.finish(), key=key)


def test_what_is_missing_of_the_last_commit_was_promised_to_nobody(filled: Operations) -> None:
    directory = Path(filled.settings.intake.journal)
    (segment,) = (directory / "segments").glob("*.segment")
    data = bytearray(segment.read_bytes())
    data[100] ^= 1
    segment.write_bytes(data)
    # all of them are of one commit, so it may never have ended
    assert journal.check(filled, Silent()).damaged == 0
    came_to = journal.move_on(filled, Silent())
    assert (came_to.moved, came_to.left, came_to.damaged) == (PACKET + 2, 0, 0)
    assert files(directory) == []
