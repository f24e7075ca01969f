"""psycopg is an extra: where it is missing, a program says so instead of failing with a traceback."""

from __future__ import annotations

import importlib
import sys

import pytest

from glassq.errors import SettingsError
from glassq.queues import open_receiver
from glassq.settings import parse


def test_a_queue_in_postgres_without_psycopg_is_a_mistake_in_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = parse('[queue]\nurl = "postgres://h/q"', "my.toml")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for name in [name for name in sys.modules if name.startswith(("glassq.queues.postgres", "glassq.database.post"))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SettingsError, match=r"pip install 'glassq\[postgres\]'"):
        open_receiver(settings)
    monkeypatch.undo()
    importlib.import_module("glassq.queues.postgres.opening")
