"""Nights on which clocks change: what the documents say of them is what schedulers do."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tests.schedules.nights import NIGHTS, local, table, worked

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("zone", "day"), [night[:2] for night in NIGHTS])
def test_two_hosts_put_every_half_hour_that_passes_once_and_each_time_of_day_once(
    tmp_path: Path, zone: str, day: str
) -> None:
    put = worked(f"sqlite:///{tmp_path}/ledger.db", zone, day)
    halves = [local(delivery, "UTC") for delivery in put if delivery.labels["schedule"] == "0"]
    assert {later - earlier for earlier, later in pairwise(halves)} == {timedelta(minutes=30)}
    assert [delivery.labels["schedule"] for delivery in put if delivery.labels["schedule"] != "0"] == ["1", "2"]
    assert len({delivery.id for delivery in put}) == len(put)


def test_the_table_of_the_documents_is_what_comes_of_these_nights() -> None:
    assert table() in (ROOT / "docs" / "schedules.md").read_text("utf-8")
