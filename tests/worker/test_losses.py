"""Which jobs a child looks at: a look is a round trip to the queue."""

from __future__ import annotations

from glassq.queues.base import Reservation
from glassq.worker.losses import QUIET, YOUNG, LossWatch
from glassq.worker.scoreboard import Scoreboard


def reserved(job: str = "1", tube: str = "glassq", losses: int | None = None) -> Reservation:
    return Reservation(job, tube, b"", 60, losses)


def test_a_young_pool_looks_until_enough_jobs_in_a_row_have_lost_nothing() -> None:
    watch = LossWatch(Scoreboard(1).slots[0])
    for _ in range(QUIET):
        assert watch.suspects(reserved())
        watch.saw(reserved(losses=0))
    assert not watch.suspects(reserved())
    assert watch.suspects(reserved(tube="another"))


def test_a_lost_attempt_makes_it_look_again() -> None:
    watch = LossWatch(Scoreboard(1).slots[0])
    for _ in range(QUIET):
        watch.saw(reserved(losses=0))
    watch.saw(reserved(losses=1))
    assert watch.suspects(reserved())


def test_an_old_pool_looks_only_where_the_board_names_the_job() -> None:
    board = Scoreboard(1)
    slot = board.slots[0]
    slot.born -= YOUNG
    watch = LossWatch(slot)
    assert not watch.suspects(reserved("7"))
    board.crashes.add("7", "id", "SIGKILL", "", 0.5)
    assert (watch.suspects(reserved("7")), watch.suspects(reserved("8"))) == (True, False)
