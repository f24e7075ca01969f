"""The table of handlers: each sort, in each way that an attempt can go, in a real pool."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from tests.chaos.handlers import SORTS, WAYS, Table, markdown

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Beanstalkd


def test_each_sort_of_handler_comes_to_each_end_with_the_evidence_of_it(tmp_path: Path, beanstalkd: Beanstalkd) -> None:
    with closing(beanstalkd.queue()) as look:
        cells = Table(tmp_path, beanstalkd, look).cells()
    assert [cell.problem for cell in cells if cell.problem] == []
    assert {(cell.sort, cell.way) for cell in cells} == {(sort, way) for sort in SORTS for way in WAYS}
    page = markdown(cells)
    assert page.count("\n| ") == len(WAYS)
    assert all(f"## {cell.sort}, {cell.way}\n" in page for cell in cells)
