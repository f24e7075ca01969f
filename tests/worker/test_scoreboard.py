from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

from glassq.systemd import Notifier
from glassq.worker.layout import State
from glassq.worker.scoreboard import MAX_SLOTS, Scoreboard
from tests.conftest import PATIENCE, wait_for

if TYPE_CHECKING:
    from pathlib import Path


def test_what_a_child_writes_its_parent_reads() -> None:
    board = Scoreboard(2)
    board.slots[1].reset()
    pid = os.fork()
    if pid == 0:
        board.slots[1].begin("9" * 60, "0199" + "a" * 60, 1, 12.5)
        os._exit(0)
    os.waitpid(pid, 0)
    status = board.status(1)
    assert (status.state, status.job, status.deadline) == (State.WORKING, "9" * 48, 12.5)
    assert status.delivery == "0199" + "a" * 36
    assert board.status(0).state is State.EMPTY


def test_a_slot_is_counted_up_and_cleared() -> None:
    board = Scoreboard(MAX_SLOTS)
    slot = board.slots[-1]
    slot.reset()
    assert board.status(slot.index).state is State.STARTING
    for worked in (1, 2):
        slot.begin("7", "id", 1, 1.0)
        slot.end()
        status = board.status(slot.index)
        assert (status.state, status.worked, status.job, status.delivery) == (State.WAITING, worked, "", "")
    slot.clear()
    assert (board.status(slot.index).state, board.status(slot.index).worked) == (State.EMPTY, 0)


def test_a_process_that_dies_over_a_job_leaves_its_handle_for_the_next_one(tmp_path: Path) -> None:
    directory = str(tmp_path)
    board = Scoreboard(2, directory)
    for slot, handle in zip(board.slots, ("tube handle", "x" * 5000), strict=True):
        slot.begin("7", "id", 1, 1.0, 0.0, handle)
    board.slots[0].reset()
    # one that is too long cannot be left; none is read twice
    assert [slot.left_behind() for slot in board.slots] == ["tube handle", ""]
    assert [slot.left_behind() for slot in board.slots] == ["", ""]
    board.slots[1].begin("8", "id", 1, 1.0, 0.0, "of the last pool")
    board.slots[0].begin("9", "id", 1, 1.0, 0.0, "settled")
    board.slots[0].end()
    after = Scoreboard(2, directory)
    assert [slot.left_behind() for slot in after.slots] == ["", "of the last pool"]


def test_a_card_read_while_it_is_written_never_makes_a_child_look_silent() -> None:
    board = Scoreboard(1)
    slot = board.slots[0]
    slot.reset()
    pid = os.fork()
    while pid == 0:
        slot.begin("7", "0199", 1, float("inf"))
        slot.beat()
        slot.state(State.WORKING)
        slot.end()
    try:
        wait_for(lambda: board.status(0).worked, "the child to write")
        statuses = [board.status(0) for _ in range(100_000)]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert [status for status in statuses if not status.beat or not status.started] == []
    assert {status.state for status in statuses} == {State.WORKING, State.WAITING}
    assert {status.deadline for status in statuses} == {0.0, float("inf")}


def test_an_id_that_is_no_ascii_can_be_shown() -> None:
    board = Scoreboard(1)
    board.slots[0].begin("1", "ü" * 40, 1, 1.0)
    assert board.status(0).delivery


def test_systemd_is_told_by_path_and_by_abstract_address(tmp_path: Path) -> None:
    abstract = f"glassq-test-{os.getpid()}"
    for bound, named in [(str(tmp_path / "n"), str(tmp_path / "n")), (f"\0{abstract}", f"@{abstract}")]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(bound)
            Notifier(named)(READY=1, STATUS="two children wait")
            sock.settimeout(PATIENCE)
            assert sock.recv(4096) == b"READY=1\nSTATUS=two children wait"


def test_without_systemd_nothing_is_told(tmp_path: Path) -> None:
    Notifier(None)(READY=1)
    Notifier("")(READY=1)
    Notifier(str(tmp_path / "gone"))(READY=1)


def test_a_child_sees_who_else_is_at_its_job() -> None:
    board = Scoreboard(3)
    board.slots[0].begin("7", "0199-a", 1, 0.0)
    board.slots[1].begin("7", "0199-a", 1, 0.0)
    assert [board.slots[1].claimed_elsewhere(job) for job in ("7", "8")] == [True, False]
    board.slots[0].clear()
    assert not board.slots[1].claimed_elsewhere("7")


def test_a_child_reads_of_the_deaths_its_parent_has_seen() -> None:
    board = Scoreboard(1)
    board.crashes.add("7", "0199-a", "SIGKILL", "it is silent", 1.5)
    board.crashes.add("7", "0199-b", "exit 3", "", 0.0)
    board.crashes.add("8", "0199-a", "SIGSEGV", "", 0.0)
    board.crashes.add("7", "0199-a", "SIGABRT", "x" * 300, 2.5)
    pid = os.fork()
    if pid == 0:
        found = board.slots[0].crashes.of("7", "0199-a")
        told = [(death.how, death.why, death.duration) for death in found]
        os._exit(0 if told == [("SIGKILL", "it is silent", 1.5), ("SIGABRT", "x" * 240, 2.5)] else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert board.crashes.of("9", "0199-a") == []


def test_only_the_latest_deaths_are_remembered() -> None:
    board = Scoreboard(1)
    for number in range(board.crashes.room + 10):
        board.crashes.add(str(number + 1), "0199", "SIGKILL", "", 0.0)
    known = [number for number in range(1, board.crashes.room + 11) if board.crashes.of(str(number), "0199")]
    assert known == list(range(11, board.crashes.room + 11))


def test_a_lane_child_is_seen_with_its_lanes_and_dies_with_what_they_work(tmp_path: Path) -> None:
    board = Scoreboard(1, str(tmp_path), crews=2, lanes=3)
    plain, crew, other = board.slots
    assert ([len(slot.lanes) for slot in board.slots], board.size) == ([0, 3, 3], 9)
    assert sorted(slot.index for child in board.slots for slot in (child, *child.lanes)) == list(range(9))
    for slot in (plain, crew, other, *crew.lanes[:2]):
        slot.reset()
    crew.state(State.WAITING)
    crew.worked(7)
    assert (board.status(1).state, board.status(1).running, board.attempts(1)) == (State.WAITING, 0, [])
    crew.lanes[0].begin("7", "late", 1, 20.0)
    crew.lanes[1].begin("8", "soon", 2, 10.0)
    crew.problem("it is blocked")
    found = board.status(1)
    assert (found.state, found.running, found.deadline, found.delivery) == (State.WORKING, 2, 10.0, "soon")
    assert (found.worked, found.problem) == (7, "it is blocked")
    assert [attempt.delivery for attempt in board.attempts(1)] == ["late", "soon"]
    assert plain.claimed_elsewhere("7")
    assert plain.may_be_lost("8")
    # each of its lanes may have held one that it had not begun
    board.died(1)
    assert [plain.excuse() for _ in range(3)] == [True, True, False]
    after = Scoreboard(1, str(tmp_path), crews=2, lanes=3)
    assert (after.inherited, len(after.crashes.of("8", "soon"))) == (2, 1), "the pool was killed as a whole"
    crew.clear()
    assert (board.attempts(1), plain.claimed_elsewhere("7")) == ([], False)
    assert Scoreboard(1, str(tmp_path), crews=2, lanes=4).inherited == 0, "another layout"


def test_an_attempt_may_be_lost_only_if_a_slot_or_the_crash_log_names_its_job() -> None:
    board = Scoreboard(3)
    ours, other = board.slots[:2]
    assert not ours.may_be_lost("7")
    other.begin("7", "id", 1, 1.0)
    assert (ours.may_be_lost("7"), ours.may_be_lost("70")) == (True, False)
    other.end()
    assert not ours.may_be_lost("7")
    other.begin("8", "id", 1, 1.0)
    # as the parent does it when the child has died
    board.crashes.add("8", "id", "SIGKILL", "", 0.5)
    other.clear()
    assert (ours.may_be_lost("8"), ours.may_be_lost("7")) == (True, False)
