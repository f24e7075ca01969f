"""Queue and journal on disks that are full at once: no ping is taken, and all goes on by itself when there is room."""

from __future__ import annotations

import errno
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from tests.chaos import report
from tests.chaos.harness import Machine, Plan
from tests.chaos.load import Load
from tests.conftest import wait_for
from tests.powercut.recording import Call, Recorder, compiler

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="no C compiler (cc)"),
    pytest.mark.skipif(shutil.which("beanstalkd") is None, reason="beanstalkd is missing: make setup"),
]


def test_while_both_disks_are_full_every_ping_is_refused_and_then_all_is_taken_again(
    tmp_path: Path, library: Path
) -> None:
    place = tmp_path / "faults"
    place.mkdir()
    recorder = Recorder(library, root=tmp_path / "disk", place=place, records=False)
    plan = Plan(beanstalkd=("-f1000", "-s", "8192"), web_workers=1, children=1)
    with Machine(tmp_path, plan=plan, recorder=recorder) as machine:
        with Load(machine.web_port, machine.token, tmp_path / "log", name="ping", clients=4, rate=60.0) as load:
            wait_for(lambda: len(load.acknowledged) >= 20, "pings to be taken")
            for service, call in (("beanstalkd", Call.CREATE), ("web", Call.CREATE), ("web", Call.WRITE)):
                machine.control(service).order(call, error=errno.ENOSPC)
            refused_from = len(load.tries)
            wait_for(lambda: refusals(load) >= 20, "pings to be refused")
            # what room beanstalkd had is used up
            full = time.monotonic()
            wait_for(lambda: sum(made.sent > full for made in load.tries) >= 20, "tries at full disks")
            late = [made for made in load.tries[refused_from:] if made.sent > full]
            for service in ("beanstalkd", "web"):
                machine.control(service).clear()
            wait_for(lambda: load.tries[-1].acknowledged, "pings to be taken again")
        assert {made.answer for made in late} == {503}
        assert machine.settle(60.0)
        handled = {entry.ping for entry in report.read_handled(tmp_path / "handled.log")}
        assert {made.ping for made in load.acknowledged} == handled
    recorder.close()


def refusals(load: Load) -> int:
    """How many of the last tries in a row were refused."""
    count = 0
    for made in reversed(list(load.tries)):
        if made.answer != 503:
            break
        count += 1
    return count
