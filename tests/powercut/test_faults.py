"""beanstalkd and its syncer with faults in their writes and syncs: what was proven is never lost.

The blind tests among them leave the part out that keeps the jobs: then some must be lost.
"""

from __future__ import annotations

import errno
import shutil
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.powercut.recording import Action, Call, build, compiler
from tests.powercut.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="no C compiler (cc)"),
    pytest.mark.skipif(shutil.which("beanstalkd") is None, reason="beanstalkd is missing: make setup"),
]

CHURN = 10


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("recorder"))


@pytest.fixture
def new_rig(tmp_path: Path, library: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(*options: str, file_size: int = 8192) -> Rig:
        place = tmp_path / str(len(made))
        place.mkdir()
        made.append(Rig(place, library, *options, file_size=file_size))
        made[-1].start()
        return made[-1]

    yield make
    for rig in made:
        rig.close()


@pytest.fixture
def rig(new_rig: Callable[..., Rig]) -> Rig:
    return new_rig()


def old_jobs(rig: Rig) -> None:
    """Old buried and delayed jobs, all proven."""
    assert all(rig.bury(f"buried-{number}") for number in range(8))
    assert rig.put(*(f"delayed-{number}" for number in range(8)), delay=3600)


def load(rig: Rig, name: str, steps: int = 12) -> int:
    """Puts, buries and churns until beanstalkd is gone, or for so many steps; how many were proven."""
    proven = 0
    with suppress(OSError, IndexError):
        for number in range(steps):
            rig.churn(CHURN)
            proven += rig.bury(f"{name}-b{number}") if number % 3 == 0 else rig.put(f"{name}-{number}")
    return proven


# Which write or sync: the first, the second and later ones; among those are new files and copies.
@pytest.mark.parametrize("number", [0, 1, 2, 3, 5, 8, 21, 55, 89])
def test_a_write_of_beanstalkd_that_fails_loses_nothing(rig: Rig, number: int) -> None:
    old_jobs(rig)
    rig.queue.order(Call.WRITE, first=number, last=number, error=errno.EIO)
    load(rig, "after")
    assert rig.queue.seen(Call.WRITE) > number
    assert rig.lost(rig.found()) == set()


def test_after_a_write_that_failed_nothing_is_proven_until_beanstalkd_is_started_again(rig: Rig) -> None:
    old_jobs(rig)
    rig.queue.order(Call.WRITE, error=errno.EIO)
    rig.put("hit")
    assert not rig.put("later")
    rig.send("syncer", signal.SIGKILL)
    assert not rig.put("later still")
    rig.kill()
    rig.queue.clear()
    rig.start()
    assert rig.put("healed")
    assert rig.lost(rig.found()) == set()


@pytest.mark.parametrize("number", [0, 1, 2, 4, 9, 16])
def test_a_sync_of_the_syncer_that_fails_proves_nothing_any_more(rig: Rig, number: int) -> None:
    old_jobs(rig)
    rig.syncer.order(Call.SYNC, first=number, last=number, error=errno.EIO, match="queue/binlog/")
    load(rig, "after")
    assert rig.syncer.seen(Call.SYNC) > number
    assert not rig.put("later")
    # the kernel tells of it once: a syncer that is started anew must not take the next sync for a proof
    rig.send("syncer", signal.SIGKILL)
    assert not rig.put("later still")
    assert rig.lost(rig.cut(number)) == set()


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_sync_of_beanstalkd_that_fails_loses_nothing(new_rig: Callable[..., Rig], number: int) -> None:
    rig = new_rig("-f0")
    old_jobs(rig)
    rig.queue.order(Call.SYNC, first=number, last=number, error=errno.EIO)
    load(rig, "after", 4)
    assert rig.lost(rig.cut(number)) == set()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("number", [0, 2])
def test_a_second_name_that_cannot_be_given_loses_nothing(rig: Rig, number: int, error: int) -> None:
    old_jobs(rig)
    rig.syncer.order(Call.LINK, first=number, last=number + 3, error=error)
    rig.queue.order(Call.UNLINK, first=number, last=number, action=Action.DIE_AFTER)
    load(rig, "after", 20)
    assert rig.lost(rig.found()) == set()


KILLS = [
    (0, Action.DIE_AFTER),
    (1, Action.DIE_AFTER),
    (1, Action.DIE_BEFORE),
    (2, Action.DIE_AFTER),
    (4, Action.DIE_AFTER),
]


@pytest.mark.parametrize(("number", "action"), KILLS)
def test_beanstalkd_killed_when_it_removes_a_file_loses_nothing(rig: Rig, number: int, action: Action) -> None:
    old_jobs(rig)
    rig.queue.order(Call.UNLINK, first=number, last=number, action=action)
    load(rig, "after", 40)
    assert rig.queue.seen(Call.UNLINK) == number + 1
    found = rig.found()
    assert rig.lost(found) == set()
    # done ones that are there again: those that were under way
    assert len(found.damaged) <= CHURN


def test_beanstalkd_killed_when_it_removes_a_file_loses_jobs_where_no_second_name_is_kept(rig: Rig) -> None:
    old_jobs(rig)
    rig.queue.order(Call.UNLINK, first=1, last=1, action=Action.DIE_AFTER)
    load(rig, "after", 40)
    rig.kill()
    for kept in rig.binlog.glob("kept.*"):
        kept.unlink()
    assert rig.lost(rig.found())


@pytest.mark.parametrize("call", [Call.CREATE, Call.WRITE])
@pytest.mark.parametrize("number", [0, 1, 4])
def test_a_disk_that_is_full_at_a_new_file_loses_nothing_and_it_goes_on(rig: Rig, call: Call, number: int) -> None:
    old_jobs(rig)
    # a new file is one create, and two writes of zeros
    new = max(int(path.suffix[1:]) for path in rig.binlog.glob("binlog.*")) + 1 + number
    rig.queue.order(call, last=2, error=errno.ENOSPC, match=f"binlog.{new}")
    load(rig, "full", 20)
    assert rig.queue.seen(call) > 0
    rig.queue.clear()
    assert load(rig, "after", 3) == 3
    assert rig.lost(rig.found()) == set()


@pytest.mark.parametrize("options", [("-f1000",), ("-f0",), ("-f50",), ("-F",)], ids=" ".join)
def test_a_step_of_the_clock_loses_nothing_in_a_power_cut(
    new_rig: Callable[..., Rig], options: tuple[str, ...]
) -> None:
    rig = new_rig(*options)
    assert rig.put("before")
    for step in (-3600.0, 3600.0, 0.0):
        rig.queue.step(step)
        rig.syncer.step(step)
        assert load(rig, f"at{step}", 2) == 2
    # a syncer that starts only now
    rig.send("syncer", signal.SIGKILL)
    assert rig.put("after")
    assert rig.lost(rig.cut(0)) == set()


def test_a_step_back_loses_what_beanstalkd_alone_has_taken_though_it_syncs_each_put(
    new_rig: Callable[..., Rig],
) -> None:
    rig = new_rig("-f0")
    assert rig.put("before")
    rig.queue.step(-3600.0)
    rig.send("syncer", signal.SIGSTOP)
    # an answer, taken for a proof
    rig.put("unproven", within=0.0)
    rig.kept.add("unproven")
    assert rig.lost(rig.cut(0)) == {"unproven"}


def test_over_hundreds_of_files_nothing_is_done_twice_and_nothing_lost(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(file_size=16384)
    old_jobs(rig)
    for _ in range(250):
        # less than a file at once: one that came and went before it was seen would be told as a gap
        rig.churn(2 * CHURN)
        assert rig.prove()
    assert max(int(path.suffix[1:]) for path in rig.binlog.glob("binlog.*")) > 200
    found = rig.found()
    assert rig.lost(found) == set()
    assert found.damaged == []


def test_second_names_do_not_pile_up(rig: Rig) -> None:
    for _ in range(40):
        rig.churn(CHURN)
        assert rig.prove()
    assert len(list(rig.binlog.glob("kept.*"))) < 10
