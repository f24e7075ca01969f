"""What PostgreSQL tells of itself, and what is said of its troubles."""

from __future__ import annotations

import socket
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Self

import pytest
from msgspec.structs import replace

from glassq import delivery
from glassq.database.postgres import PostgresSession
from glassq.errors import NotDurable, QueueError, QueueRefused, QueueUnavailable, WrongTables
from glassq.queues.base import NewForm
from glassq.queues.key import key_of
from glassq.queues.postgres import facts, schema
from glassq.queues.postgres.local import local_ports
from glassq.queues.postgres.opening import inspector_at
from glassq.queues.postgres.server import ServerState, needed_of, outside
from glassq.values import QueueUrl
from tests.conftest import wait_for
from tests.postgres import ROLE, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.queues.base import Fact
    from glassq.queues.postgres.inspector import PostgresInspector


@pytest.fixture(scope="module")
def server(postgres: PostgresServer) -> PostgresServer:
    return postgres


@pytest.fixture(scope="module")
def database(server: PostgresServer) -> str:
    """A database with the queue's tables."""
    name = server.database()
    with closing(session(server.url(name))) as opened:
        schema.upgrade(opened)
    return name


def session(url: QueueUrl, timeout: float = 10.0) -> PostgresSession:
    return PostgresSession(url, name="glassq inspector", connect_timeout=timeout, timeout=timeout)


@contextmanager
def inspecting(url: QueueUrl, *, needs: int = 0) -> Iterator[PostgresInspector]:
    with closing(inspector_at(url, 10.0, 10.0, needs=needs)) as inspector:
        yield inspector


def wrong(url: QueueUrl, *, needs: int = 0) -> dict[str, str]:
    """What is wrong, by the names of the facts."""
    with inspecting(url, needs=needs) as inspector:
        return {fact.name: str(fact) for fact in inspector.facts(["glassq"], thorough=True) if fact.ok is False}


# -- what a state means ------------------------------------------------------------------------------------------------

URL = "postgres://glassq:***@h:1/d?sslmode=require"
WELL = ServerState(
    version="15.18",
    number=150018,
    role="glassq",
    uptime=100.0,
    clock=0.0,
    in_recovery=False,
    read_only=False,
    may_insert=True,
    lacks="",
    synchronous_commit="on",
    default_commit="on",
    standby_names="",
    fsync=True,
    full_page_writes=True,
    autovacuum=True,
    sees_all=True,
    standbys=0,
    in_sync=0,
    lag=None,
    slots_hold=None,
    idle_slots="",
    oldest_transaction=0.0,
    oldest_pid=None,
    prepared=0,
    max_connections=100,
    reserved_connections=3,
    connections=10,
    role_limit=-1,
    role_connections=8,
    ours=8,
    consumers=4,
    live_rows=10,
    dead_rows=0,
    vacuumed=None,
    table_bytes=1 << 20,
    heap_bytes=1 << 19,
)
REPLICATED: dict[str, Any] = {"standby_names": "ANY 1 (b, c)", "standbys": 2, "in_sync": 2, "lag": 2048}
# What differs, which fact tells it and how it is judged, and words that are in it.
STATES: list[tuple[dict[str, Any], str, bool | None, str]] = [
    ({}, "durability", True, "synchronous_commit is on"),
    ({}, "standbys", True, "not the loss of the server's disk"),
    ({"synchronous_commit": "off"}, "durability", False, "ALTER ROLE glassq SET synchronous_commit = on"),
    ({"default_commit": "off"}, "durability", None, "the ledger"),
    ({"fsync": False}, "durability", False, "fsync is off"),
    ({"full_page_writes": False}, "durability", False, "full_page_writes is off"),
    (REPLICATED, "standbys", True, "waits for 1 of 2 synchronous standbys; the slowest is 2 KiB behind"),
    ({**REPLICATED, "standbys": 3}, "standbys", True, "1 more are asynchronous"),
    ({**REPLICATED, "in_sync": 0}, "standbys", False, "a commit waits for 1 synchronous standbys, and 0 are connected"),
    ({**REPLICATED, "sees_all": False}, "standbys", None, "GRANT pg_read_all_stats TO glassq"),
    ({**REPLICATED, "synchronous_commit": "local"}, "standbys", False, "a lost server loses jobs"),
    ({**REPLICATED, "synchronous_commit": "remote_write"}, "standbys", None, "remote_write"),
    ({"in_recovery": True}, "primary", False, "standby"),
    ({"read_only": True}, "primary", False, "default_transaction_read_only"),
    ({"may_insert": False, "lacks": "INSERT on glassq_jobs"}, "rights", False, "INSERT on glassq_jobs, so nothing"),
    (
        {"lacks": "DELETE on glassq_jobs"},
        "rights",
        False,
        "`glassq queue init --url postgres://OWNER@h:1/d --grant glassq` g",
    ),
    ({}, "connections", True, "10 of 100 connections are used (8 by glassq), 87 left"),
    ({"connections": 95, "ours": 30}, "connections", None, "pg_stat_activity"),
    ({"role_limit": 12}, "connections", False, "raise max_connections (and the role's CONNECTION LIMIT) by 8"),
    ({"autovacuum": False}, "vacuum", False, "autovacuum"),
    ({"dead_rows": 200_000}, "vacuum", None, "VACUUM glassq_jobs"),
    ({"heap_bytes": 1 << 30}, "vacuum", None, "VACUUM FULL"),
    ({"live_rows": 40_000, "heap_bytes": 1 << 30}, "vacuum", True, "40000 live"),
    ({"prepared": 2}, "transactions", None, "ROLLBACK PREPARED"),
    ({"oldest_transaction": 400.0, "oldest_pid": 77}, "transactions", None, "pg_terminate_backend(77)"),
    ({"oldest_transaction": 4000.0, "oldest_pid": 77}, "transactions", False, "4000 s old"),
    ({"slots_hold": 5 << 20, "idle_slots": "gone"}, "slots", None, "(gone) keep 5 MiB of WAL"),
    ({"slots_hold": 5 << 30, "idle_slots": "gone"}, "slots", False, "fill the disk"),
    ({"ahead": 30.0}, "clock", None, "30 s ahead of"),
    ({"ahead": -30.0}, "clock", None, "30 s behind"),
]


@pytest.mark.parametrize(("differs", "name", "ok", "words"), STATES)
def test_a_state_is_told_with_what_to_do(differs: dict[str, Any], name: str, ok: bool | None, words: str) -> None:
    state = replace(WELL, **differs)
    said = [fact for fact in facts.of_server(state, 20, URL) if fact.name == name and fact.ok is ok]
    assert [words in str(fact) for fact in said] == [True], said
    assert ok is not False or said[0].todo
    others = [fact for fact in facts.of_server(state, 20, URL) if fact.ok is False and fact.name != name]
    assert others == []


def test_all_is_well_with_a_server_that_is() -> None:
    assert [fact for fact in facts.of_server(WELL, 20, URL) if fact.ok is not True] == []
    assert (WELL.durable, WELL.unproven, WELL.accepting) == (True, "", True)
    assert not replace(WELL, in_recovery=True).accepting
    assert replace(WELL, **{**REPLICATED, "in_sync": 0}).unproven


@pytest.mark.parametrize(
    ("names", "needed"),
    [("", 0), (" ", 0), ("b", 1), ("b, c", 1), ("*", 1), ("ANY 2 (b, c, d)", 2), ("FIRST 3(*)", 3), ("2 (b, c)", 2)],
)
def test_how_many_standbys_a_commit_waits_for(names: str, needed: int) -> None:
    assert needed_of(names) == needed


@pytest.mark.parametrize(("moment", "far"), [(5.0, 0.0), (4.0, 0.0), (7.0, 1.0), (3.0, -1.0)])
def test_clocks_agree_within_the_time_that_an_answer_took(moment: float, far: float) -> None:
    assert outside(moment, 4.0, 6.0) == far


def test_an_old_server_is_told() -> None:
    assert facts.version(replace(WELL, number=120022, version="12.22"), "postgres://h/d").ok is False  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "ports"),
    [
        ("postgres://u@127.0.0.1:5433/d", ["5433"]),
        ("postgres://u@localhost/d", ["5432"]),
        ("postgres://u@[::1]:5433/d", ["5433"]),
        ("postgres://db.example.com/d", []),
        ("postgres://u@db1:5433,127.0.0.1:5434,db3/d", ["5434"]),
        ("postgres:///d?host=/run/postgresql", ["5432"]),
    ],
)
def test_what_of_a_url_is_on_this_machine(url: str, ports: list[str]) -> None:
    assert [*local_ports(QueueUrl(url))] == ports


def test_a_job_is_known_by_the_id_of_its_delivery() -> None:
    made = delivery.new("mirror", b'{"a": "}\n"}', {"collection": "timeline"})
    assert key_of(delivery.encode(made)) == made.id
    assert [key_of(body) for body in (b"", b"odd", b"glassq/1 00000000\n", b'glassq/1 00000000\n{"id":7}\n')] == [
        ""
    ] * 4
    assert key_of(b'glassq/1 00000000\n{"id":"\\u0000"}\n') == ""


# -- a server in trouble -----------------------------------------------------------------------------------------------


@contextmanager
def configured(server: PostgresServer, **settings: str) -> Iterator[None]:
    server.configure(**settings)
    try:
        yield
    finally:
        server.configure(**dict.fromkeys(settings))


@pytest.mark.parametrize(
    ("settings", "name", "words"),
    [
        ({"synchronous_standby_names": "ANY 1 (b, c)"}, "standbys", "0 are connected"),
        ({"autovacuum": "off"}, "vacuum", "autovacuum"),
        ({"full_page_writes": "off"}, "durability", "full_page_writes is off"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_is_set_wrong_is_told(
    server: PostgresServer, database: str, settings: dict[str, str], name: str, words: str
) -> None:
    # to see who is connected takes a right that not every role has
    server.execute(f"GRANT pg_read_all_stats TO {ROLE}")
    assert wrong(server.url(database)) == {}
    with configured(server, **settings):
        assert words in wrong(server.url(database))[name]
    assert wrong(server.url(database)) == {}


def test_few_connections_are_told(server: PostgresServer, database: str) -> None:
    server.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT 5")
    try:
        assert "may open 40" in wrong(server.url(database), needs=40)["connections"]
    finally:
        server.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")
    assert wrong(server.url(database), needs=40) == {}


def test_a_forgotten_slot_and_transaction_are_seen(server: PostgresServer, database: str) -> None:
    server.execute(f"GRANT pg_read_all_stats TO {ROLE}")
    server.execute("SELECT pg_create_physical_replication_slot('gone', true)")
    try:
        with server.connect(database) as other, closing(session(server.url(database))) as opened:
            other.autocommit = False
            other.execute("SELECT 1 FROM glassq_jobs")
            server.execute("SELECT pg_switch_wal()")
            state = ServerState.read(opened)
            assert (state.idle_slots, state.oldest_pid) == ("gone", other.info.backend_pid)
            assert state.slots_hold
            assert state.oldest_transaction > 0
    finally:
        server.execute("SELECT pg_drop_replication_slot('gone')")


def test_a_standby_says_that_it_is_none_of_ours(tmp_path_factory: pytest.TempPathFactory) -> None:
    standby = PostgresServer(tmp_path_factory.mktemp("standby"))
    try:
        standby.stop()
        (standby.data / "standby.signal").touch()
        standby.start()
        said = trouble(standby.url(), QueueUnavailable)
        assert (said.name, "target_session_attrs" in said.todo) == ("primary", True)
        both = standby.url().whole.replace("@", "@127.0.0.1:9,")
        said = trouble(QueueUrl(both), QueueUnavailable)
        assert "127.0.0.1:9: Connection refused; " in said.said
        assert (said.name, "promote a standby" in said.todo) == ("primary", True)
    finally:
        standby.remove()


def test_no_timeout_of_the_server_ends_a_session_that_waits(server: PostgresServer, database: str) -> None:
    names = "'statement_timeout', 'idle_session_timeout'"
    short = configured(server, statement_timeout="5s", idle_session_timeout="5s")
    with short, inspecting(server.url(database)) as inspector:
        inspector.check()
        found = inspector._session.rows(f"SELECT DISTINCT setting FROM pg_settings WHERE name IN ({names})")
    assert found == [("0",)]


def test_fsync_that_is_off_is_told(server: PostgresServer, database: str) -> None:
    with configured(server, fsync="off"):
        fact = trouble(server.url(database), NotDurable)
    assert (fact.name, "fsync = on" in fact.todo) == ("durability", True)


# -- errors ------------------------------------------------------------------------------------------------------------


def trouble(url: QueueUrl, kind: type[QueueError], ask: Callable[[PostgresInspector], object] | None = None) -> Fact:
    """What is said of the error that this raises."""
    with inspecting(url) as inspector:
        with pytest.raises(kind) as caught:
            ask(inspector) if ask else inspector.status()
        fact = inspector.explain(caught.value)
    assert (fact.ok, bool(fact.said), bool(fact.todo)) == (False, True, True)
    return fact


@contextmanager
def access(server: PostgresServer, line: str) -> Iterator[None]:
    """With a line of its own at the head of pg_hba.conf."""
    file = server.data / "pg_hba.conf"
    before = file.read_text()

    def write(text: str) -> None:
        file.write_text(text)
        server.execute("SELECT pg_reload_conf()")

    write(f"{line}\n{before}")
    try:
        wait_for(
            lambda: server.execute(f"SELECT count(*) FROM pg_hba_file_rules WHERE '{ROLE}' = ANY(user_name)"), "it"
        )
        yield
    finally:
        write(before)


def test_who_may_not_come_in_is_told_why(server: PostgresServer, database: str) -> None:
    url = server.url(database)
    assert trouble(server.url("nowhere"), QueueUnavailable).name == "database"
    assert trouble(server.url(database, user="stranger"), QueueUnavailable).name == "access"
    with access(server, f"host all {ROLE} 127.0.0.1/32 reject"):
        assert trouble(url, QueueUnavailable).name == "access"
    server.execute(f"ALTER ROLE {ROLE} PASSWORD 'right'")
    with access(server, f"host all {ROLE} 127.0.0.1/32 scram-sha-256"):
        assert trouble(url, QueueUnavailable).name == "password"
        given = type(url)(url.whole.replace(f"{ROLE}@", f"{ROLE}:guess@"))
        fact = trouble(given, QueueUnavailable)
        assert (fact.name, "guess" in fact.said) == ("password", False)
    server.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT 0")
    try:
        assert trouble(url, QueueUnavailable).name == "connections"
    finally:
        server.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")


def test_a_database_without_our_tables_is_told_what_to_run(server: PostgresServer) -> None:
    empty = server.url(server.database())
    fact = trouble(empty, WrongTables, lambda inspector: inspector.counts())
    assert (fact.name, fact.said.endswith("are missing")) == ("schema", True)
    assert fact.todo == "`glassq queue init` makes them"
    # a role that may make none is told so with it
    name = empty.rpartition("/")[2]
    server.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE ROLE maker LOGIN", name)
    fact = trouble(server.url(name, user="maker"), WrongTables, lambda inspector: inspector.counts())
    owner = f"postgres://OWNER@127.0.0.1:{server.port}/{name}"
    assert fact.todo == f"`glassq queue init --url {owner} --grant maker` makes them"


def test_a_role_without_rights_is_told(server: PostgresServer, database: str) -> None:
    server.execute("CREATE ROLE guest LOGIN")
    fact = trouble(server.url(database, user="guest"), QueueRefused, lambda inspector: inspector.counts())
    assert (fact.name, f"/{database} --grant guest` grants it" in fact.todo) == ("rights", True)


FORM = NewForm(b"ping", "glassq", "ready")


def test_a_full_disk_is_told(server: PostgresServer, database: str) -> None:
    server.execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN "
        # what is small finds room in a page that is there
        "IF length(NEW.body) < 8192 THEN RETURN NEW; END IF; "
        "RAISE EXCEPTION 'could not extend file: No space left' USING ERRCODE = 'disk_full'; END $$",
        database,
    )
    server.execute(
        "CREATE TRIGGER full_disk BEFORE INSERT ON glassq_jobs FOR EACH ROW EXECUTE FUNCTION full_disk()", database
    )
    try:
        fact = trouble(server.url(database), QueueRefused, lambda inspector: inspector.check())
        assert (fact.name, "make room" in fact.todo) == ("disk", True)
        assert "No space left" in wrong(server.url(database))["disk"]
    finally:
        server.execute("DROP TRIGGER full_disk ON glassq_jobs; DROP FUNCTION full_disk", database)


@pytest.mark.parametrize(("act", "name"), [("pg_terminate_backend", "queue"), ("pg_cancel_backend", "queue")])
def test_a_call_that_an_administrator_ends_is_told(server: PostgresServer, database: str, act: str, name: str) -> None:
    def held_up(inspector: PostgresInspector) -> None:
        with server.connect(database) as other:
            other.autocommit = False
            other.execute("LOCK TABLE glassq_jobs")
            ending = threading.Thread(target=end)
            ending.start()
            try:
                inspector.check()
            finally:
                ending.join()

    def end() -> None:
        waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'glassq inspector'"
        wait_for(lambda: server.execute(f"SELECT {act}(pid) {waiting}"), "somebody to wait")

    assert trouble(server.url(database), QueueUnavailable, held_up).name == name


def test_a_server_that_is_away_is_told(server: PostgresServer, database: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    fact = trouble(server.url(database, port=port), QueueUnavailable)
    assert "start it" in fact.todo


def test_a_pooler_is_refused_by_name(server: PostgresServer, database: str) -> None:
    with Pooler(server.port) as pooler:
        fact = trouble(server.url(database, port=pooler.port), QueueRefused)
    assert (fact.name, "pgbouncer" in fact.todo) == ("pooler", True)


class Pooler:
    """Stands between as pgbouncer does: the process that it names to a client is none of the server's."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            threading.Thread(target=self._pass, args=(client, server), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with source, target:
            try:
                while data := source.recv(65536):
                    # BackendKeyData: 12 bytes, the first four of them the process
                    head, key, rest = data.partition(b"K\x00\x00\x00\x0c")
                    target.sendall(head + key + (b"\x00\x00\x00\x07" + rest[4:] if key else rest))
            except OSError:
                return
