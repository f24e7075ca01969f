"""What a pool that is killed as a whole leaves to the next one."""

from __future__ import annotations

import os
import random
import struct
from typing import TYPE_CHECKING

import pytest

from glassq.worker import boardfile
from glassq.worker.crashes import Crash
from glassq.worker.layout import State
from glassq.worker.scoreboard import MAX_SLOTS, MAX_UNBEGUN, Scoreboard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DELIVERY = "0199-a"


def killed(directory: Path, slots: int = 3) -> Scoreboard:
    """A pool that was killed while one child worked job 7, one held a job or none, and one slot was free."""
    board = Scoreboard(slots, str(directory))
    working, waiting = board.slots[:2]
    for slot in (working, waiting):
        slot.reset()
        slot.state(State.WAITING)
    working.begin("7", DELIVERY, 1, 12.5)
    return board


def excused(board: Scoreboard) -> int:
    """How many jobs are excused from here on."""
    return next(count for count in range(MAX_UNBEGUN + 1) if not board.slots[0].excuse())


def test_the_next_pool_knows_what_was_begun_and_how_many_jobs_may_have_been_held(tmp_path: Path) -> None:
    killed(tmp_path)
    board = Scoreboard(3, str(tmp_path))
    (crash,) = board.crashes.of("7", DELIVERY)
    assert (crash.how, crash.why, board.inherited) == ("with its pool", "", 1)
    assert 0 <= crash.duration < 60
    assert [board.slots[0].may_be_lost(job) for job in ("7", "8")] == [True, False]
    assert board.crashes.of("7", "another delivery, after the queue gave the number anew") == []
    assert board.status(0).state is State.EMPTY
    assert excused(board) == 2
    assert (tmp_path / "scoreboard").stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["scoreboard"]


def test_a_death_that_its_parent_had_recorded_is_told_once(tmp_path: Path) -> None:
    killed(tmp_path).crashes.add("7", DELIVERY, "exit 7", "", 0.5)
    board = Scoreboard(3, str(tmp_path))
    assert [crash.how for crash in board.crashes.of("7", DELIVERY)] == ["exit 7"]
    assert board.inherited == 0


def test_a_stop_in_order_leaves_only_deaths_that_nobody_has_written_down(tmp_path: Path) -> None:
    board = killed(tmp_path)
    board.crashes.add("6", "0199-b", "SIGSEGV", "", 0.5)
    board.died(0)
    board.slots[0].end()
    for slot in board.slots:
        slot.clear()
    after = Scoreboard(3, str(tmp_path))
    assert (after.inherited, after.crashes.of("7", DELIVERY), excused(after)) == (0, [], 0)
    assert [crash.how for crash in after.crashes.of("6", "0199-b")] == ["SIGSEGV"]


def test_what_a_pool_had_no_time_for_goes_to_the_one_after_it(tmp_path: Path) -> None:
    killed(tmp_path)
    second = killed(tmp_path)
    assert second.crashes.of("7", DELIVERY)
    second.slots[1].begin("8", "0199-b", 1, 12.5)
    third = Scoreboard(3, str(tmp_path))
    assert [len(third.crashes.of(*each)) for each in (("7", DELIVERY), ("8", "0199-b"))] == [1, 1]
    assert excused(third) == 4


def test_children_of_a_killed_pool_do_not_write_into_the_next_ones_slots(tmp_path: Path) -> None:
    old = killed(tmp_path)
    board = Scoreboard(3, str(tmp_path))
    old.slots[0].end()
    old.slots[0].begin("9", "0199-c", 1, 12.5)
    assert (board.status(0).state, board.slots[1].may_be_lost("9")) == (State.EMPTY, False)


def test_all_of_the_largest_pool_that_is_killed_at_work_are_known(tmp_path: Path) -> None:
    board = Scoreboard(directory=str(tmp_path))
    for number in range(board.crashes.room):
        board.crashes.add(f"old-{number}", "0199", "SIGKILL", "", 0.0)
    for slot in board.slots:
        slot.reset()
        slot.begin(str(slot.index), "0199", 1, 1.0)
    after = Scoreboard(directory=str(tmp_path))
    assert [index for index in range(MAX_SLOTS) if not after.crashes.of(str(index), "0199")] == []
    assert after.inherited == MAX_SLOTS


# -- what cannot be trusted -----------------------------------------------------------------------------------------


def _shorter(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def _empty(file: Path) -> None:
    os.truncate(file, 0)


def _patched(at: int, data: bytes) -> Callable[[Path], None]:
    def patch(file: Path) -> None:
        with file.open("r+b") as written:
            written.seek(at)
            written.write(data)

    return patch


def _linked(file: Path) -> None:
    file.symlink_to(file.rename(file.with_name("elsewhere")))


def _fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


FOREIGN = {
    "shorter": _shorter,
    "empty": _empty,
    "an older version": _patched(0, b"glassq 0"),
    "another layout": _patched(8, bytes(8)),
    "another boot": _patched(16, b"00000000-0000-0000-0000-000000000000"),
    "a link": _linked,
    "a pipe": _fifo,
}


@pytest.mark.parametrize("how", FOREIGN)
def test_a_file_that_is_not_the_last_pools_tells_nothing(tmp_path: Path, how: str) -> None:
    killed(tmp_path)
    FOREIGN[how](tmp_path / "scoreboard")
    board = Scoreboard(3, str(tmp_path))
    assert (board.inherited, board.crashes.of("7", DELIVERY), excused(board)) == (0, [], 0)
    killed(tmp_path)
    assert Scoreboard(3, str(tmp_path)).inherited == 1, "the new file is in its place"


def test_another_users_file_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(tmp_path)
    monkeypatch.setattr(boardfile.os, "geteuid", lambda: os.getuid() + 1)
    assert Scoreboard(3, str(tmp_path)).inherited == 0


def test_a_larger_or_smaller_pool_of_another_release_tells_nothing(tmp_path: Path) -> None:
    killed(tmp_path, slots=4)
    assert Scoreboard(3, str(tmp_path)).inherited == 0


def test_a_child_that_dies_while_it_writes_that_it_begins_has_not_begun(tmp_path: Path) -> None:
    before, after = (tmp_path / name for name in ("before", "after"))
    for directory in (before, after):
        directory.mkdir()
    board = Scoreboard(1, str(before))
    board.slots[0].reset()
    board.slots[0].state(State.WAITING)
    job = "1234567"
    whole = Scoreboard(1, str(after))
    whole.slots[0].reset()
    whole.slots[0].begin(job, DELIVERY, 1, 12.5)
    old, new = ((directory / "scoreboard").read_bytes() for directory in (before, after))
    changed = [at for at in range(len(old)) if old[at] != new[at]]
    begun = []
    for at in changed:
        (before / "scoreboard").write_bytes(new[:at] + old[at:])
        begun.append(Scoreboard(1, str(before)).inherited)
    assert not any(begun)
    (before / "scoreboard").write_bytes(new)
    assert Scoreboard(1, str(before)).inherited == 1


def test_damage_never_harms_the_next_pool(tmp_path: Path) -> None:
    """Random bytes and numbers that cannot be shown as times."""
    killed(tmp_path)
    good = (tmp_path / "scoreboard").read_bytes()
    chance = random.Random(7)
    odd = [struct.pack("@d", number) for number in (float("nan"), float("inf"), -1e308, 1e308)]
    odd += [struct.pack("@q", number) for number in (-1, State.WORKING, 1 << 62)]
    for _ in range(100):
        bad = bytearray(good)
        for _ in range(2_000):
            at = chance.randrange(8, len(bad) // 8) * 8
            bad[at : at + 8] = chance.choice([*odd, chance.randbytes(8)])
        (tmp_path / "scoreboard").write_bytes(bad)
        board = Scoreboard(3, str(tmp_path))
        board.slots[0].reset()
        for index in range(3):
            board.status(index)
        told = board.crashes.of("7", DELIVERY)
        assert all(isinstance(crash, Crash) and 0 <= crash.at < 250e9 for crash in told)
        assert 0 <= excused(board) <= MAX_UNBEGUN


def _no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: object, _size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(boardfile.BoardFile, "make", full)


def _not_renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_self: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(boardfile.BoardFile, "publish", refused)


@pytest.mark.parametrize("fail", [_no_room, _not_renamed])
def test_a_pool_that_cannot_keep_a_file_trusts_none_and_says_so_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fail: Callable[[pytest.MonkeyPatch], None],
) -> None:
    killed(tmp_path)
    fail(monkeypatch)
    board = Scoreboard(3, str(tmp_path))
    assert (board.inherited, board.crashes.of("7", DELIVERY), excused(board)) == (0, [], 0)
    board.slots[0].begin("8", DELIVERY, 1, 1.0)
    assert board.slots[1].may_be_lost("8")
    assert caplog.text.count("is not kept for the next one") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_a_runtime_directory_there_is_no_file(caplog: pytest.LogCaptureFixture) -> None:
    board = Scoreboard(1)
    assert (board.inherited, excused(board), caplog.text) == (0, 0, "")
