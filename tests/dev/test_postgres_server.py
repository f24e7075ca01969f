"""`glassq dev` with a PostgreSQL server that somebody else runs: it makes no tables that are there."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from glassq.dev.postgres import PostgresServer as OwnServer
from glassq.errors import StackError
from glassq.queues import open_tables
from glassq.settings import parse

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import PostgresServer


def test_tables_of_another_owner_are_used_as_they_are_and_missing_ones_say_who_can_make_them(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    role = "limited_dev"
    database = postgres.database()
    postgres.execute(f"CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC", database)
    settings = parse(f'[queue]\nurl = "{postgres.url(database, user=role)}"\n', "glassq.toml")
    with closing(OwnServer(settings, tmp_path)) as server:
        with pytest.raises(StackError, match=f"are missing: .*glassq queue init --url .*OWNER.* --grant {role}"):
            server.wait(lambda: None)
        owner = open_tables(settings, postgres.url(database))
        assert owner is not None
        with closing(owner):
            owner.upgrade()
            owner.grant(role)
        server.wait(lambda: None)
