"""psycopg is an extra: where it is missing, a program says so instead of failing with a traceback."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from glassq.errors import SettingsError
from glassq.operations import Operations
from glassq.operations.checks.examine import examine
from glassq.operations.progress import Silent
from glassq.queues import open_receiver
from glassq.settings import parse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OURS = (
    *("glassq.queues.postgres", "glassq.database.post", "glassq.database.libpq"),
    *("glassq.bodies.table", "glassq.glass.record_table", "psycopg"),
)


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in sys.modules if name.startswith(OURS)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    yield
    monkeypatch.undo()
    importlib.import_module("glassq.queues.postgres.opening")


@pytest.mark.usefixtures("missing")
def test_a_queue_in_postgres_without_psycopg_is_a_mistake_in_the_settings() -> None:
    settings = parse('[queue]\nurl = "postgres://h/q"', "my.toml")
    with pytest.raises(SettingsError, match=r"pip install 'glassq\[postgres\]'"):
        open_receiver(settings)


@pytest.mark.usefixtures("missing")
def test_doctor_goes_on_without_psycopg(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('[queue]\nurl = "postgres://h/q"\n')
    found = list(examine(Operations(parse(file.read_text(), str(file)), actor="ada"), Silent()))
    wrong = {check.name: check for check in found if check.ok is False}
    told = [check.name for check in found if "PostgreSQL needs psycopg: pip install 'glassq[postgres]'" in check.said]
    assert told == ["queue"]
    assert "pip install 'glassq[postgres]'" in wrong["ledger"].said
    assert wrong["queue"].code == 78
    # what comes after the first of them
    assert {"versions", "clock"} <= {check.name for check in found}
