"""The doctor's thread: what is urgent at once, all of it when somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.operations import doctor as module
from glassq.operations.checks.examine import examine, glance
from glassq.operations.doctor import Doctor
from glassq.operations.progress import Silent
from tests.conftest import wait_for

if TYPE_CHECKING:
    import pytest

    from glassq.operations import Operations


def test_a_glance_is_a_part_of_the_examination(operations: Operations) -> None:
    urgent = {check.name for check in glance(operations, Silent())}
    assert {"queue", "durability", "consumers", "ledger", "journal"} <= urgent
    assert urgent < {check.name for check in examine(operations, Silent())}


def test_it_looks_by_itself_and_at_all_when_it_is_asked(operations: Operations) -> None:
    doctor = Doctor(operations)
    assert doctor.whole(within=0.0).at is None
    doctor.start()
    try:
        wait_for(lambda: doctor.view().at, "a glance")
        assert [check.name for check in doctor.view().wrong] == ["consumers"]
        whole = doctor.whole(within=60.0)
        assert whole.at is not None
        assert len(whole.checks) > len(doctor.view().checks)
        assert doctor.whole(within=60.0) is whole
    finally:
        doctor.close()


def test_a_bug_in_a_check_is_told(operations: Operations, monkeypatch: object) -> None:
    doctor = Doctor(operations)
    operations.settings = None  # type: ignore[assignment]
    doctor.start()
    try:
        wait_for(lambda: doctor.view().at, "a glance")
        [check] = doctor.view().checks
        assert (check.name, check.ok) == ("doctor", False)
    finally:
        doctor.close()


def test_an_examination_that_takes_long_is_made_the_more_seldom(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    doctor = Doctor(operations)
    doctor._examine()
    assert doctor._fresh_for >= module.FRESH
    # as if it had taken hours
    monkeypatch.setattr(module, "WHOLE_SHARE", 1e-12)
    doctor._examine()
    assert doctor._fresh_for > 1_000 * module.FRESH
