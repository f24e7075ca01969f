"""beanstalkd and its syncer with faults in their writes and syncs: what was proven is never lost.

Each case is shown to be one: without the part that it tests, jobs are lost (`test_..._without_...`).
"""

from __future__ import annotations

import errno
import shutil
from contextlib import suppress
from itertools import product
from typing import TYPE_CHECKING

import pytest

from tests.chaos.harness import SYNCER
from tests.powercut.recording import Action, Call, build, compiler
from tests.powercut.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="no C compiler (cc)"),
    pytest.mark.skipif(shutil.which("beanstalkd") is None, reason="beanstalkd is missing: make setup"),
    pytest.mark.skipif(not SYNCER.exists(), reason="no syncer yet"),
]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("recorder"))


@pytest.fixture
def rig(tmp_path: Path, library: Path) -> Iterator[Rig]:
    with Rig(tmp_path, library) as made:
        yield made


def old_jobs(rig: Rig) -> None:
    """Old buried and delayed jobs, all proven."""
    assert all(rig.bury(f"buried-{number}") for number in range(8))
    assert rig.put(*(f"delayed-{number}" for number in range(8)), delay=3600)


def load(rig: Rig, name: str, steps: int = 60) -> int:
    """Puts, buries and churns until beanstalkd is gone, or for so many steps; how many were proven."""
    proven = 0
    with suppress(OSError, IndexError):
        for number in range(steps):
            rig.work(f"{name}-churn-{number}")
            proven += rig.bury(f"{name}-b{number}") if number % 3 == 0 else rig.put(f"{name}-{number}")
    return proven


# Which write: the first ones are of the file that is open; the ones about 24 later meet a new file, and copies.
NUMBERS = (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_write_of_beanstalkd_that_fails_loses_nothing(rig: Rig, number: int) -> None:
    old_jobs(rig)
    rig.queue.order(Call.WRITE, first=number, last=number, error=errno.EIO)
    load(rig, "after")
    assert rig.queue.seen(Call.WRITE) > number
    assert rig.lost(rig.found()) == set()


@pytest.mark.parametrize(("number", "action"), list(product((0, 1, 2, 3, 5, 7), (Action.DIE_BEFORE, Action.DIE_AFTER))))
def test_beanstalkd_killed_at_an_unlink_loses_nothing(rig: Rig, number: int, action: Action) -> None:
    old_jobs(rig)
    rig.queue.order(Call.UNLINK, first=number, last=number, action=action)
    load(rig, "after", 200)
    assert rig.queue.seen(Call.UNLINK) == number + 1
    assert rig.lost(rig.found()) == set()
