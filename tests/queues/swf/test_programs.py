"""A pool on SWF: deliveries are worked, retried, buried and kicked, and their histories tell of it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from glassq.queues import open_inspector
from tests.conftest import wait_for
from tests.queues.swf.pool import SwfPool
from tests.queues.swf.service import SwfService

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwfPool]:
    home = tmp_path_factory.mktemp("swf")
    with SwfService(home) as service:
        # a lease that no test waits for
        running = SwfPool(home, service, ttr=600)
        running.start()
        yield running
        running.end()


def test_deliveries_are_worked_retried_buried_and_kicked_and_histories_tell_of_it(pool: SwfPool) -> None:
    [plain, once, always] = pool.put([{}, {"fails": "once"}, {"fails": "always"}])
    wait_for(lambda: {plain, once} <= set(pool.done()), "two to be worked")
    wait_for(lambda: pool.buried() == [always], "the third to be buried")
    with closing(open_inspector(pool.settings)) as inspector:
        [job] = inspector.find(frozenset({"buried"}), ["pings"])
        inspector.change(job, state="ready")
        wait_for(lambda: pool.buried() == [always], "it to be worked anew, and buried")
        tried = [each for each in pool.worked() if each[:2] == ("fail", always)]
        words = [each.words for each in inspector.history(always)]
        assert len(tried) == 6 == len([each for each in words if each.startswith("taken by")])
        assert [each for each in words if "run" in each] == [
            "a new run: buried in pings", "a new run: in pings, with a fresh budget", "a new run: buried in pings",
        ]  # fmt: skip
        # one that is over is told of as well
        wait_for(lambda: inspector.history(plain)[-1].words == "done", "the first one to be told of")
        inspector.delete(inspector.get(job.ref))


def test_whoever_replaces_a_dead_child_gives_its_job_back_at_once(pool: SwfPool) -> None:
    before = len(pool.worked())
    [slow] = pool.put([{"lasts": 2}])
    wait_for(lambda: pool.worked()[before:], "it to be begun")
    [(_, _, pid)] = pool.worked()[before:]
    number = pool.children().index(pid)
    assert pool.kill_child(number) == pid
    # its lease would last ten minutes
    wait_for(lambda: slow in pool.done(), "another child to work it")
    assert [each[:2] for each in pool.worked()[before:]] == [("begin", slow), ("begin", slow), ("done", slow)]
