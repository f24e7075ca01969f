"""A pool sweeps the body store by itself, and its children bring their bodies there to an end."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from setproctitle import getproctitle, setproctitle

from glassq import delivery as envelope
from glassq.bodies import DirectoryBodies
from glassq.bodies.sweep import GRACE, SAFE_AGE, SCAN_AGAIN, SCAN_EVERY
from glassq.programs import sweeping
from glassq.settings import parse
from tests.bodies.test_directory import put, states
from tests.bodies.test_sweep import aged
from tests.cli.conftest import put as put_delivery
from tests.conftest import wait_for
from tests.syncers import queue_section
from tests.worker.pools import PoolRun

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue


def test_a_pool_sweeps_at_its_start_and_leaves_what_a_job_names(
    tmp_path: Path, beanstalkd: Beanstalkd, look: Queue
) -> None:
    store = DirectoryBodies(tmp_path / "bodies")
    store.prepare()
    stale, orphan = aged(store, GRACE + 10, "unfinished"), aged(store, SAFE_AGE + 10)
    key, stored = put(store)
    buried = envelope.new("mirror", b"", {}, stored=stored, key=key)
    put_delivery(look, buried, "buried")
    then = time.time() - SAFE_AGE - 10
    os.utime(store.directory / "live" / key, (then, then))
    assert states(store) == {stale: "unfinished", orphan: "live", key: "live"}
    with PoolRun(tmp_path, beanstalkd, look) as pool:
        pool.write_settings(more=f'[bodies]\nurl = "file://{store.directory}"\n')
        pool.start().ready()
        wait_for(lambda: states(store) == {orphan: "done", key: "live"}, "the store to be swept")
        wait_for(lambda: "large bodies that no job names are put aside bodies=1" in pool.log(), "it to be told")
        assert "large bodies removed bodies=1 bytes=100" in pool.log()


def test_only_a_look_that_was_made_is_not_made_again_for_hours(tmp_path: Path, beanstalkd: Beanstalkd) -> None:
    store, title = DirectoryBodies(tmp_path / "bodies"), getproctitle()
    store.prepare()
    orphan, looked = aged(store, SAFE_AGE + 10), store.directory / ".looked"
    text = f'{{}}[bodies]\nurl = "file://{store.directory}"\n[intake]\njournal = "{tmp_path}/none"\n'
    gone = parse(text.format(f'[queue]\nurl = "beanstalk://{tmp_path}/nobody"\nconnect_timeout = "1s"\n'), "")
    assert sweeping.sweep(gone) == 0
    assert (states(store), time.time() - looked.stat().st_mtime > SCAN_EVERY - SCAN_AGAIN) == ({orphan: "live"}, True)
    # soon after
    os.utime(looked, (time.time() - SCAN_EVERY - 1, time.time() - SCAN_EVERY - 1))
    assert sweeping.sweep(parse(text.format(queue_section(beanstalkd.url)), "")) == 0
    assert (states(store), time.time() - looked.stat().st_mtime < SCAN_EVERY - SCAN_AGAIN) == ({orphan: "done"}, True)
    setproctitle(title)


def test_a_store_that_cannot_be_read_stops_no_pool(tmp_path: Path, beanstalkd: Beanstalkd, look: Queue) -> None:
    # root may read every directory, but none with such a name
    store = tmp_path / ("b" * 300)
    with PoolRun(tmp_path, beanstalkd, look) as pool:
        pool.write_settings(more=f'[bodies]\nurl = "file://{store}"\n')
        pool.start().ready()
        wait_for(lambda: "large bodies cannot be swept" in pool.log(), f"it to be told\n{pool.log()}")
        pool.put("a")
        wait_for(lambda: [name for name, *_ in pool.story("end")] == ["a"], "the work")
