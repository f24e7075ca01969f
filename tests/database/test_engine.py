"""What the ledger and the task names share, on real SQLite files."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from glassq.database.engine import open_engine, write_problem
from glassq.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.engine import URL

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
    assert str(write_problem(url, KEY)) == f'{KEY} = "{url}": cannot be written: unable to open database file'
    assert list(tmp_path.iterdir()) == []


def test_for_a_damaged_file_the_way_out_is_named(tmp_path: Path) -> None:
    (tmp_path / "l.db").write_text("log lines, in place of the header\n" * 100)
    problem = write_problem(f"sqlite:///{tmp_path}/l.db", KEY)
    assert problem is not None
    assert problem.said.endswith("cannot be written: file is not a database")
    assert f"mv {tmp_path}/l.db {tmp_path}/l.db.damaged" in problem.todo


def test_a_url_that_cannot_be_used_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(SettingsError, match=r"\[ledger\] url"):
        write_problem("nosuch://x", KEY)


def test_threads_that_make_a_new_database_at_once_all_get_it(tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def make(url: URL, together: threading.Barrier) -> None:
        together.wait()
        try:
            open_engine(url, lambda connection, url: None).dispose()
        except SQLAlchemyError as error:
            failed.append(error)

    # each file is made once; which rounds are close enough to conflict is chance
    for number in range(25):
        url, together = sa.make_url(f"sqlite:///{tmp_path}/{number}.db"), threading.Barrier(8)
        threads = [threading.Thread(target=make, args=(url, together)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
