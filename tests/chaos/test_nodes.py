"""A short torture of three PostgreSQL nodes: what `make torture ENGINE=postgres` does at length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from tests.chaos.nodes import Site, run
from tests.postgres import missing

if TYPE_CHECKING:
    from pathlib import Path

FAULTS = ["both standbys dead, started again", "the primary dead, a standby promoted by hand"]


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_nothing_is_lost_while_nodes_of_postgres_die_and_every_ping_is_answered(tmp_path: Path) -> None:
    with Site(tmp_path / "site") as site:
        report = run(site, 40, FAULTS, Console(quiet=True))
    assert report.settled
    assert (report.lost, report.unexpected) == ([], [])
    assert [each.refused for each in report.outcomes] == [0, 0]
    assert report.journaled_most > 0
    assert report.handled > 200
