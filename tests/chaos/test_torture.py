"""A short torture, and tests of its own parts."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.chaos import faults, report
from tests.chaos.disk import Filler, small_disks
from tests.chaos.harness import Machine
from tests.chaos.load import Load, Try
from tests.chaos.processes import handle
from tests.chaos.report import Handled, Report
from tests.chaos.soak import Series
from tests.chaos.torture import Torture

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc"),
    pytest.mark.skipif(
        shutil.which("beanstalkd") is None and not os.environ.get("CI"), reason="beanstalkd is missing: make setup"
    ),
]

# Some faults are left to `make torture`: the pool takes 20 s to notice a frozen child, only root can fill a disk, and
# tests/powercut has failing calls and stepping clocks one by one.
LEFT_OUT = {faults.FREEZE_CHILD, *faults.NEED_DISK, *faults.NEED_RECORDER}
SHORT = tuple(kind for kind in faults.KINDS if kind not in LEFT_OUT)


def test_no_acknowledged_ping_is_lost_whatever_is_killed_frozen_restarted_or_cut(tmp_path: Path) -> None:
    seed = 3
    with Machine(tmp_path / "machine") as machine:
        short = Torture(seconds=8.0, seed=seed, gap=0.4, outage=1.0, rate=30.0, kinds=SHORT, rest=60.0, tail=1.0)
        done = short.run(machine)
    words = f"seed {seed}: {done}"
    assert sum(row.times for row in done.faults.values()) >= 12, words
    assert done.acknowledged > 100, words
    assert done.settled, words
    assert done.lost == [], words
    assert done.unexpected == [], words
    assert done.outage.get("refused") == 0, words
    assert done.buried == 0, words
    assert done.stragglers == 0, words
    assert done.worked_twice + done.taken_twice <= done.bound, words


def test_the_same_seed_makes_the_same_plan() -> None:
    assert faults.plan(7, 300, 1.5) == faults.plan(7, 300, 1.5)
    assert faults.plan(7, 300, 1.5) != faults.plan(8, 300, 1.5)
    assert {fault.kind for fault in faults.plan(7, 60, 1.5)} == set(faults.KINDS)


def load_of(tmp_path: Path, *tries: Try) -> Load:
    load = Load(0, "token", tmp_path / "log", name="ping", clients=1, rate=1.0)
    load.tries.extend(tries)
    return load


def test_the_count_tells_lost_unexpected_and_both_ways_of_twice(tmp_path: Path) -> None:
    load = load_of(tmp_path, Try("a", 1, 0.1, 200), Try("b", 2, 0.1, 503), Try("c", 3, 0.1, 200), Try("d", 4, 0.1, 200))
    handled = [
        Handled("1", "a", 9, 1.5), Handled("1", "a", 9, 1.6), Handled("2", "c", 9, 3.5), Handled("3", "c", 9, 3.6),
        Handled("4", "nobody's", 9, 5.0),
    ]  # fmt: skip
    found = Report(seed=0, planned=0)
    report.count(found, [load], handled)
    assert (found.attempted, found.acknowledged) == (4, 3)
    assert found.lost == ["d"]
    assert found.unexpected == ["nobody's"]
    assert (found.worked_twice, found.taken_twice) == (1, 1)
    assert not found.ok


def test_the_longest_time_without_an_acknowledgement_counts_both_ends_of_the_load(tmp_path: Path) -> None:
    load = load_of(tmp_path, Try("a", 11.0, 0.5, 200), Try("b", 12.0, 0.5, 200))
    load.began, load.ended = 10.0, 20.0
    found = Report(seed=0, planned=0)
    report.acknowledgements(found, load)
    assert found.silence == pytest.approx(7.5)


def test_a_pid_that_somebody_else_has_by_now_gets_no_signal() -> None:
    me = handle(os.getpid())
    assert me is not None
    assert me.lives()
    assert not type(me)(me.pid, me.born - 1).send(signal.SIGKILL)


def test_a_full_disk_takes_nothing_until_it_is_freed() -> None:
    with small_disks() as disks:
        if disks is None:
            pytest.skip("only root can mount a tmpfs")
        disk = disks / "queue"
        filler = Filler(disk)
        filler.fill()
        with pytest.raises(OSError, match="No space left"):
            (disk / "more").write_bytes(bytes(8192))
        filler.free()
        assert (disk / "more").write_bytes(bytes(8192)) == 8192


@pytest.mark.parametrize(
    ("what", "amounts", "grows"),
    [
        ("descriptors", [20, 21, 20, 20, 21, 20], False),
        ("descriptors", [20, 22, 24, 26, 28, 30], True),
        ("zombies", [0, 0, 1, 0, 0, 0], False),
        ("zombies", [0, 0, 1, 1, 2, 2], True),
        ("MiB", [40e6, 40.2e6, 40.1e6, 40.3e6, 40.2e6, 40.3e6], False),
        ("MiB", [40e6, 42e6, 44e6, 46e6, 48e6, 50e6], True),
    ],
)
def test_the_soak_tells_what_grows_from_what_swings(what: str, amounts: list[float], grows: bool) -> None:
    assert Series("web", what, tuple((60.0 * index, amount) for index, amount in enumerate(amounts))).grows is grows
