"""What the ledger and the task names share, on real SQLite files."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from glassq.database.engine import write_problem
from glassq.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

KEY = "[ledger] url"


def test_a_database_that_can_be_written_is_no_problem_and_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "100% #1.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE t (a)")
    before = file.read_bytes()
    assert write_problem(f"sqlite:///{tmp_path}/100%25 %231.db", KEY) is None
    assert file.read_bytes() == before


def test_a_file_that_is_missing_is_a_problem_and_is_not_created(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/none.db"
    assert write_problem(url, KEY) == f'{KEY} = "{url}": cannot be written: unable to open database file'
    assert list(tmp_path.iterdir()) == []


def test_a_url_that_cannot_be_used_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(SettingsError, match=r"\[ledger\] url"):
        write_problem("nosuch://x", KEY)
