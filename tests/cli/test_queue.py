"""`glassq queue`: the tables of a queue in PostgreSQL, and what commands say where they are missing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from glassq.errors import LedgerError, QueueError, SettingsError
from glassq.operations import shared_tables
from glassq.programs import worker
from glassq.settings import load
from glassq.values import QueueUrl
from tests.cli.conftest import Cli, a_delivery, put
from tests.conftest import wait_for
from tests.intake.conftest import Web
from tests.intake.wire import request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import PostgresServer
    from tests.queues.raw_postgres import PostgresQueue

ON_POSTGRES = pytest.mark.parametrize("cli", ["postgres"], indirect=True)


@pytest.fixture
def empty(postgres: PostgresServer, tmp_path: Path) -> Cli:
    """A database without tables."""
    made = Cli(tmp_path, postgres.url(postgres.database()))
    made.configure()
    return made


def test_the_tables_are_made_once_however_many_make_them(empty: Cli, postgres: PostgresServer) -> None:
    missing = empty("status")
    assert missing.code == 78
    assert f"the tables of the queue are missing: `glassq --config {empty.file} queue init` makes them" in missing.err
    assert empty("queue", "upgrade").code == 2
    assert empty("queue", "check").code == 78
    with ThreadPoolExecutor(3) as together:
        said = list(together.map(lambda _: empty("queue", "init"), range(3)))
    assert [(each.code, each.err) for each in said] == [(0, "")] * 3
    assert any("made in postgres" in each.out for each in said)
    again = empty("queue", "init", "--json").json
    assert (again["found"], again["made"], again["changed"]) == (again["version"], [], [])
    assert "are there already" in empty("queue", "upgrade").out
    assert empty("status").code == 0


def test_what_was_made_is_said_by_its_parts(empty: Cli) -> None:
    assert "the tables of queue, limits, credentials" in empty("queue", "init").out
    # what lived in files of one host is shared from now on
    empty.file.write_text(f'[queue]\nurl = "{empty.url}"\n[push]\n')
    said = empty("queue", "init").out
    assert all(part in said for part in ("bodies", "ledger", "schedules", "task names"))
    assert "queue," not in said and "already" not in said


def test_no_right_is_granted_on_what_is_not_ours(empty: Cli, postgres: PostgresServer) -> None:
    # its ledger is a file, so nothing of glassq's has this name
    postgres.execute("CREATE TABLE schedules (id int); CREATE ROLE nobody_else LOGIN", empty.url.rpartition("/")[2])
    said = empty("queue", "init", "--grant", "nobody_else", "--json")
    assert said.code == 0, said.err
    assert not any("schedules" in statement for statement in said.json["rights"])


def test_a_role_that_is_not_there_is_told_with_what_makes_it_before_anything_is_made(empty: Cli) -> None:
    said = empty("queue", "init", "--grant", "nosuch")
    assert (said.code, "CREATE ROLE nosuch LOGIN PASSWORD '...'; makes it" in said.err) == (2, True)
    assert empty("status").code == 78


@pytest.mark.parametrize("table", ["meta", "task_names"])
def test_a_database_with_tables_of_others_is_left_as_it_is(empty: Cli, postgres: PostgresServer, table: str) -> None:
    empty.file.write_text(f'[queue]\nurl = "{empty.url}"\n[push]\n')
    database = empty.url.rpartition("/")[2]
    postgres.execute(f"CREATE TABLE {table} (id int); ALTER TABLE {table} OWNER TO glassq", database)
    said = empty("queue", "init")
    assert (said.code, f"its table {table} is not glassq's" in said.err) == (2, True)
    assert postgres.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", database) == [(1,)]
    # beside them, a schema does
    postgres.execute("CREATE SCHEMA ours AUTHORIZATION glassq", database)
    empty.file.write_text(f'[queue]\nurl = "{empty.url}?options=-csearch_path%3Dours"\n[push]\n')
    assert empty("queue", "init").code == 0
    assert empty("status").code == 0


def test_a_pool_does_not_start_without_its_tables_and_says_what_to_run(empty: Cli) -> None:
    empty.configure('[[routes]]\nsource = "mirror"\nhandler = "json:loads"\n')

    def problems() -> list[str]:
        return [found.problem for found in worker.check(str(empty.file)) if found.what == "queue"]

    [problem] = problems()
    assert "`glassq queue init`" in problem
    with pytest.raises(SettingsError, match="glassq queue init"):
        worker.plan(load(str(empty.file), {}))
    assert empty("queue", "init").code == 0
    assert problems() == [""]


def test_a_command_that_cannot_connect_says_what_to_mend(tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.url(postgres.database())
    for number, (wrong, words) in enumerate({f"{url}x": "CREATE DATABASE", f"{url}?sslmod=no": "option"}.items()):
        (tmp_path / str(number)).mkdir()
        cli = Cli(tmp_path / str(number), wrong)
        cli.configure()
        said = cli("status")
        assert said.code == 69
        assert words in said.err
        assert "is it running" not in said.err


def test_an_intake_takes_pings_without_the_tables_and_moves_them_on_once_they_are_made(
    empty: Cli, tmp_path: Path
) -> None:
    web = Web(tmp_path / "web", empty.url)
    try:
        web.wait_ready()
        assert web.ask(request()).status == 200
        assert web.journaled() == 1
        assert empty("queue", "init").code == 0
        wait_for(lambda: not web.journaled(), "the ping to be moved on")
    finally:
        web.stop()
    assert empty("status", "--json").json["queue"]["tubes"][0]["ready"] == 1


def test_a_role_gets_no_more_than_it_needs(empty: Cli, postgres: PostgresServer, tmp_path: Path) -> None:
    postgres.execute('CREATE ROLE "Worker 1" LOGIN')
    said = empty("queue", "init")
    assert "GRANT SELECT, INSERT, UPDATE, DELETE ON glassq_jobs TO your_role;" in said.out
    assert empty("queue", "init", "--grant", "Worker 1").code == 0
    other = Cli(tmp_path, empty.url.replace("glassq@", "Worker%201@"))
    other.configure()
    said = other("put", str(empty.file), "--source", "mirror", "--no-check")
    assert (said.code, other("status", "--json").json["queue"]["tubes"][0]["ready"]) == (0, 1), said.err
    postgres.execute('REVOKE INSERT ON glassq_jobs FROM "Worker 1"', empty.url.rpartition("/")[2])
    said = other("status")
    assert "yes, as far as it goes: no new job is taken" in said.out
    assert "lacks INSERT on glassq_jobs, so nothing is taken" in said.out
    assert f"queue init --url {empty.url.replace('glassq@', 'OWNER@')} --grant 'Worker 1'`" in said.out
    said = other("queue", "init")
    assert said.code != 0
    assert "permission denied" in said.err
    # what to do is the engine's, not what fits every queue
    assert "--url" in said.err
    assert "is it running" not in said.err


def test_what_shares_the_database_is_made_with_it_and_needs_no_right_to_make_tables(
    empty: Cli, postgres: PostgresServer
) -> None:
    postgres.execute("CREATE ROLE writer LOGIN")
    empty.file.write_text(f'[queue]\nurl = "{empty.url}"\n[push]\n')
    writer = QueueUrl(empty.url.replace("glassq@", "writer@"))
    assert empty("queue", "init").code == 0
    with pytest.raises((QueueError, LedgerError)):
        shared_tables.make(load(str(empty.file), {}), writer)
    assert empty("queue", "upgrade", "--grant", "writer").code == 0
    # what each of them does when it begins to write
    shared_tables.make(load(str(empty.file), {}), writer)
    tables = {row[0] for row in postgres.execute("SELECT tablename FROM pg_tables", writer.rpartition("/")[2])}
    assert {"deliveries", "schedules", "task_names", "glassq_bodies", "glassq_credentials", "glassq_shares"} <= tables


def test_a_table_that_is_gone_is_told_by_the_command_that_makes_tables(empty: Cli, postgres: PostgresServer) -> None:
    assert empty("queue", "init").code == 0
    name = empty.url.rpartition("/")[2]
    postgres.execute("ALTER TABLE glassq_jobs RENAME TO gone", name)
    assert "queue init" in empty("status").err
    for command in ("init", "upgrade"):
        said = empty("queue", command)
        assert (said.code, "glassq_jobs is gone, dropped or renamed: rename it back" in said.err) == (78, True), said
        assert "DROP TABLE glassq_tubes; DELETE FROM glassq_schema WHERE part = 'queue', then" in said.err
    postgres.execute("ALTER TABLE gone RENAME TO glassq_jobs", name)
    assert empty("queue", "init").code == 0


def test_tables_of_another_version_are_told_with_what_to_do(empty: Cli, postgres: PostgresServer) -> None:
    assert empty("queue", "init").code == 0
    name = empty.url.rpartition("/")[2]
    postgres.execute("UPDATE glassq_schema SET version = 9, oldest = 9", name)
    for command in (["status"], ["queue", "init"], ["queue", "upgrade"]):
        said = empty(*command)
        assert (said.code, "newer" in said.err) == (78, True), command
    # a newer one that still works with this code
    postgres.execute("UPDATE glassq_schema SET oldest = 1", name)
    assert empty("status").code == 0


@ON_POSTGRES
def test_what_only_looks_works_on_while_the_database_is_read_only(
    cli: Cli, queue: PostgresQueue, postgres: PostgresServer
) -> None:
    put(queue, a_delivery(), "buried")  # type: ignore[arg-type]
    shared = cli.file.read_text().partition("[bodies]")[0]
    cli.file.write_text(shared)
    assert cli("queue", "init").code == 0
    database = cli.url.rpartition("/")[2]
    postgres.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    [job] = cli("buried", "--json").json["jobs"]
    assert cli("show", job["delivery"]).code == 0
    said = cli("status")
    assert (said.code, "no new job is taken" in said.out) == (0, True), said.err
    assert "ALTER ROLE glassq SET default_transaction_read_only = off" in said.out
    # the cause is told first, once, and what follows from it is not
    checks = cli("doctor", "--json").json["checks"]
    assert [check["name"] for check in checks if "read-only" in check["said"]] == ["primary"]
    assert checks[0]["name"] == "primary"
    assert any(check["name"] == "buried" for check in checks)
    said = cli("kick", "--all", "--yes")
    assert (said.code, "takes no writes" in said.err) == (69, True)


def test_beanstalkd_needs_no_tables(cli: Cli) -> None:
    for command in ("init", "upgrade"):
        said = cli("queue", command)
        assert (said.code, "there is nothing to do" in said.out) == (0, True)
    said = cli("queue", "check")
    assert (said.code, "durability" in said.out) == (0, True)


def test_what_is_no_url_is_exit_2(offline: Cli) -> None:
    said = offline("queue", "init", "--url", "postgres://nowhere")
    assert (said.code, "--url" in said.err) == (2, True)


@ON_POSTGRES
def test_a_check_has_the_lines_of_doctor(cli: Cli, queue: PostgresQueue) -> None:
    put(queue, a_delivery(), "buried")  # type: ignore[arg-type]
    said = cli("queue", "check", "--json")
    assert said.code == 0
    names = [check["name"] for check in said.json["checks"]]
    assert {"queue", "durability", "standbys", "connections", "vacuum", "job size"} <= set(names)
    told = {check["name"]: check for check in cli("doctor", "--json").json["checks"]}
    assert told["durability"]["ok"]
    assert told["disk"]["said"].partition("for ")[2].count("database") == 1
    assert "psycopg" in told["versions"]["said"]


@ON_POSTGRES
def test_bodies_that_no_table_holds_yet_are_not_wrong(cli: Cli) -> None:
    cli.configure('[bodies]\nmin_free = "1MiB"\n')
    told = {check["name"]: check for check in cli("doctor", "--json").json["checks"]}
    assert told["bodies"]["said"].startswith("can be written in postgres")


def test_bodies_and_ledger_that_cannot_be_asked_come_with_advice_and_without_a_password(tmp_path: Path) -> None:
    cli = Cli(tmp_path, "")
    cli.file.write_text('[queue]\nurl = "postgres://glassq:hidden@127.0.0.1:9/d"\n')
    for command in (["bodies"], ["tail", "--once"]):
        said = cli(*command)
        assert (said.code, said.out) == (74 if command[0] == "tail" else 1, ""), command
        assert "postgres://glassq:***@127.0.0.1:9/d" in said.err
        assert "Connection refused" in said.err
        assert "; start it" in said.err
        assert not any(word in said.err for word in ("hidden", "psycopg", "sqlalche", "Error"))
