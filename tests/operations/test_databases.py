"""Doctor and `queue check` look at each part of what hosts share as its program will need it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from glassq.operations import Operations, queue_tables
from glassq.operations.checks.databases import DATABASES
from glassq.operations.checks.examine import examine, examine_engine
from glassq.operations.progress import Silent
from glassq.queues import open_inspector
from glassq.settings import load

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.operations.checks.base import Check
    from tests.postgres import PostgresServer

SETTINGS = """
[queue]
url = "{url}"
[push]
queue_yaml = "{home}/queue.yaml"
[glass]
client_id = "c"
[[routes]]
source = "mirror"
handler = "glassq.glass.photos:store"
[[routes]]
source = "schedule"
handler = "m:f"
[[schedule]]
name = "daily"
cron = "0 3 * * *"
"""
PARTS = ["ledger", "schedules", "task names", "credentials", "bodies", "limits"]


class Site:
    """A database, whose owner is `glassq`, and the programs' role, which may make no tables."""

    def __init__(self, home: Path, server: PostgresServer) -> None:
        self.server, self.name, self.home = server, server.database(), home
        self.role = f"programs_{self.name}"
        self.execute(f"CREATE ROLE {self.role} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        self.owner = self.operations("glassq")
        self.programs = self.operations(self.role)

    def operations(self, role: str) -> Operations:
        file = self.home / f"{role}.toml"
        file.write_text(SETTINGS.format(url=self.server.url(self.name, user=role).whole, home=self.home))
        return Operations(load(str(file), {}), actor="ada")

    def execute(self, statements: str) -> None:
        self.server.execute(statements, self.name)

    def init(self) -> None:
        queue_tables.init(self.owner, url=self.owner.settings.queue.url.whole, role=self.role)

    def wrong(self, operations: Operations | None = None) -> dict[str, Check]:
        """What is wrong, by the names of the checks."""
        checks = (check for look in DATABASES for check in look(operations or self.programs))
        return {check.name: check for check in checks if not check.ok}


@pytest.fixture
def site(tmp_path: Path, postgres: PostgresServer) -> Site:
    return Site(tmp_path, postgres)


def test_tables_that_a_role_can_neither_write_nor_make_are_wrong(site: Site) -> None:
    found, owner = site.wrong(), f"postgres://OWNER@127.0.0.1:{site.server.port}/{site.name}"
    assert list(found) == PARTS
    for name, check in found.items():
        assert f"role {site.role} may make none in schema public" in check.said, name
        assert check.todo.startswith(f"`glassq queue init --url {owner} --grant {site.role}` makes it"), name
    # whoever may make them needs none
    assert site.wrong(site.owner) == {}
    site.init()
    assert site.wrong() == {}


# What is taken from the programs' role, and what is said of the part that needs it.
LACKS = {
    "ledger": ("INSERT", "deliveries"),
    "schedules": ("SELECT, UPDATE", "schedules"),
    "task names": ("DELETE", "task_names"),
    "credentials": ("SELECT, INSERT, UPDATE, DELETE", "glassq_credentials"),
    "bodies": ("INSERT", "glassq_body_chunks"),
    "limits": ("UPDATE", "glassq_shares"),
}


def test_what_each_part_lacks_is_told(site: Site) -> None:
    site.init()
    for rights, table in LACKS.values():
        site.execute(f"REVOKE {rights} ON {table} FROM {site.role}")
    found = site.wrong()
    assert list(found) == PARTS == list(LACKS)
    for name, (rights, table) in LACKS.items():
        assert f"role {site.role} lacks {rights} on {table}: `glassq queue init" in str(found[name])
        assert found[name].ok is False
    # the command that is named grants it
    site.init()
    assert site.wrong() == {}
    # a table that is gone is its part's trouble alone, and so is a version
    site.execute("DROP TABLE glassq_body_looks; UPDATE meta SET value = 5 WHERE name = 'schema'")
    found = site.wrong()
    assert list(found) == ["ledger", "bodies"]
    assert "of an older version" in found["ledger"].said
    assert "`glassq queue upgrade --url" in found["ledger"].todo
    assert "there is no table glassq_body_looks" in found["bodies"].said
    site.execute("UPDATE meta SET value = 99 WHERE name LIKE 'schema%'")
    assert "its schema is version 99" in site.wrong()["ledger"].said


def test_a_check_of_the_queue_goes_through_all_parts_and_a_queue_that_takes_nothing_says_so(site: Site) -> None:
    site.init()
    site.execute(f"REVOKE INSERT ON glassq_jobs FROM {site.role}; REVOKE INSERT ON meta FROM {site.role}")
    found = list(examine_engine(site.programs, Silent()))
    assert set(PARTS) <= {check.name for check in found}
    wrong = {check.name: str(check) for check in found if check.ok is False}
    assert set(wrong) == {"rights", "ledger", "schedules", "task names"}
    assert f"role {site.role} lacks INSERT on glassq_jobs, so nothing is taken" in wrong["rights"]
    with closing(open_inspector(site.programs.settings)) as inspector:
        assert not inspector.status().accepting


def test_options_that_libpq_refuses_are_told_once(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text('[queue]\nurl = "postgres://u@127.0.0.1/d?sslmode=verfy-full"\n')
    found = [check for check in DATABASES[0](Operations(load(str(file), {}), actor="ada")) if not check.ok]
    assert [(check.code, check.said) for check in found] == [
        (78, f'{file}: [queue] url: invalid sslmode value: "verfy-full"')
    ]


def test_a_database_that_is_away_is_told_first_and_once(tmp_path: Path) -> None:
    file = tmp_path / "away.toml"
    file.write_text(SETTINGS.format(url="postgres://glassq@127.0.0.1:9/d", home=tmp_path))
    found = list(examine(Operations(load(str(file), {}), actor="ada"), Silent()))
    assert (found[0].name, found[0].code, found[0].ok) == ("queue", 69, False)
    assert "Connection refused" in found[0].said
    assert found[1].said.endswith("bodies, credentials, ledger, limits, schedules, task names")
    assert not any("Connection refused" in check.said for check in found[1:] if check.name not in ("intake", "metrics"))
    assert {"settings", "versions"} <= {check.name for check in found}
    # the same where only the queue and what is with it are looked at
    wrong = [check for check in examine_engine(Operations(load(str(file), {}), actor="ada"), Silent()) if not check.ok]
    assert [(check.name, check.code) for check in wrong] == [("queue", 69)]
