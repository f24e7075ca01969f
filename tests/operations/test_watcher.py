"""How often is looked: where looks are metered less often, and hardly ever while nobody watches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glassq.operations import watcher as module
from glassq.operations.census import Census
from glassq.operations.doctor import Doctor
from glassq.operations.sampler import Sampler
from tests.conftest import wait_for

if TYPE_CHECKING:
    from glassq.operations import Operations


@pytest.mark.parametrize(
    ("metered", "watched", "seconds"),
    [(False, False, 5.0), (False, True, 5.0), (True, True, 15.0), (True, False, 600.0)],
)
def test_the_rhythm_is_that_of_the_engine_and_of_who_watches(
    operations: Operations, metered: bool, watched: bool, seconds: float
) -> None:
    operations.metered = metered
    census = Census(operations)
    if watched:
        census.snapshot()
    assert census._rhythm == seconds


def test_whoever_comes_after_a_while_sees_what_is_there_now(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations.metered = True
    monkeypatch.setattr(module, "LOOK", 60.0)
    sampler = Sampler(operations)
    sampler.start()
    try:
        wait_for(lambda: sampler._looked == 1, "the first look")
        assert sampler.view().at is not None
        # it was waited for
        assert sampler._looked == 2
        sampler.view()
        assert sampler._looked == 2
    finally:
        sampler.close()


def test_the_doctor_looks_again_at_once_where_the_queue_has_turned(operations: Operations) -> None:
    operations.metered = True
    doctor = Doctor(operations)
    doctor.start()
    try:
        wait_for(lambda: doctor._urgent.at, "a glance")
        first = doctor._urgent.at
        doctor.look()
        wait_for(lambda: doctor._urgent.at != first, "another one")
    finally:
        doctor.close()
