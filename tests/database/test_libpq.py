"""libpq's options as a URL has them, its passfile, and hosts that do not answer."""

from __future__ import annotations

import math
import socket
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from glassq.database.engine import write_problem
from glassq.database.libpq import amiss, default_passfile_ignored, opening, seconds_for_each, why_ignored
from glassq.database.postgres import PostgresSession
from glassq.database.schema import Needs
from glassq.errors import QueueUnavailable
from glassq.values import QueueUrl
from tests.postgres import ROLE, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

URL = "postgres://u:hidden@h/d"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("", ""),
        ("?sslmode=verify-full&sslrootcert=system&connect_timeout=5", ""),
        ("?gssencmode=require&hostaddr=192.0.2.1", ""),
        ("?sslmod=require", 'invalid URI query parameter: "sslmod"'),
        ("?sslmode=verfy-full", 'invalid sslmode value: "verfy-full"'),
        ("?target_session_attrs=primry", 'invalid target_session_attrs value: "primry"'),
        ("?service=nobodys", 'definition of service "nobodys" not found'),
        ("?connect_timeout=soon", "connect_timeout=soon: expected a whole number"),
        ("?sslrootcert=/nobodys/root.crt", "sslrootcert=/nobodys/root.crt: No such file or directory"),
        ("?passfile=/nobodys/pgpass", "passfile=/nobodys/pgpass: No such file or directory"),
    ],
)
def test_options_are_judged_by_libpq_without_a_connection(options: str, says: str) -> None:
    assert list(amiss(f"{URL}{options}")) == [says] * bool(says)


def test_what_is_wrong_with_one_of_several_hosts_is_found() -> None:
    assert list(amiss("postgres://u@a:1,b:2/d")) == []
    assert list(amiss("postgres://u@a:1,b:99999/d")) == ['invalid port number: "99999"']


@pytest.mark.parametrize(
    ("url", "left", "seconds"),
    [
        (URL, math.inf, 1.0),
        (URL, 0.5, 0.5),
        ("postgres://u@a,b/d", 0.5, 0.25),
        ("postgres://u@a,b/d", 10, 1.0),
        ("postgres://u@a,b/d?connect_timeout=4", 10, 4.0),
        ("postgres://u@a,b/d?connect_timeout=0", 10, 1.0),
    ],
)
def test_all_hosts_together_have_the_time_that_is_left(url: str, left: float, seconds: float) -> None:
    assert seconds_for_each(url, 1.0, left) == seconds


@pytest.fixture
def passfile(tmp_path: Path) -> Path:
    file = tmp_path / "pgpass"
    file.write_text(f"*:*:*:{ROLE}:secret\n")
    file.chmod(0o644)
    return file


def test_a_passfile_that_others_may_read_is_told_with_what_to_do(passfile: Path) -> None:
    url = f"postgres://u@h/d?passfile={passfile}"
    [said] = amiss(url)
    assert said.endswith(f"others may use it (mode 0644), so libpq ignores it: chmod 600 {passfile}")
    assert default_passfile_ignored(url) == ""
    passfile.chmod(0o600)
    assert list(amiss(url)) == []
    # with a password, nothing is read
    passfile.chmod(0o644)
    assert "passfile" not in opening(f"{URL}?connect_timeout=3", "n", 1.0)


def test_the_file_of_the_home_directory_is_looked_at_too(
    passfile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGPASSFILE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_passfile_ignored("postgres://u@h/d") == ""
    passfile.rename(tmp_path / ".pgpass")
    assert default_passfile_ignored("postgres://u@h/d") == f"{tmp_path}/.pgpass"
    monkeypatch.setenv("PGPASSFILE", str(tmp_path))
    assert why_ignored(default_passfile_ignored("postgres://u@h/d")).startswith("no plain file")


def test_libpq_says_nothing_of_a_passfile_that_it_ignores(
    postgres: PostgresServer, passfile: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url = QueueUrl(f"{postgres.url(postgres.database()).whole}?passfile={passfile}")
    with closing(PostgresSession(url, name="tests", connect_timeout=10, timeout=10)) as session:
        assert session.rows("SELECT 1") == [(1,)]
    assert write_problem(url.whole, "[ledger] url", Needs(("deliveries",), "schema", 1)) is None
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def frozen() -> Iterator[int]:
    """The port of a host that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_the_host_after_one_that_says_nothing_is_reached(postgres: PostgresServer, frozen: int) -> None:
    name = postgres.database()
    url = QueueUrl(f"postgres://{ROLE}@127.0.0.1:{frozen},127.0.0.1:{postgres.port}/{name}")
    with closing(PostgresSession(url, name="tests", connect_timeout=2, timeout=10)) as session:
        # its own time for the second one is not what the first one has left over
        assert session.rows("SELECT 1") == [(1,)]


def test_all_hosts_are_told_with_why_none_takes_writes(frozen: int) -> None:
    url = QueueUrl(f"postgres://{ROLE}@127.0.0.1:9,127.0.0.1:{frozen},127.0.0.1:7/d")
    with closing(PostgresSession(url, name="tests", connect_timeout=0.3, timeout=10)) as session:
        with pytest.raises(QueueUnavailable) as caught:
            session.rows("SELECT 1")
        assert str(caught.value).endswith(
            f"/d: 127.0.0.1:9, 127.0.0.1:7: Connection refused; 127.0.0.1:{frozen}: timeout expired"
        )


def test_a_call_that_must_connect_ends_at_its_deadline(frozen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    url = QueueUrl(f"postgres://{ROLE}@127.0.0.1:{frozen},127.0.0.1:{frozen}/d")
    with closing(PostgresSession(url, name="tests", connect_timeout=60, timeout=60)) as session:
        # psycopg itself waits for two seconds at each host, and for sixty where it is told so
        monkeypatch.setattr("psycopg.connection.timeout_from_conninfo", lambda params: 3600)
        session.set_deadline(time.monotonic() + 0.2)
        with pytest.raises(QueueUnavailable, match="timeout expired"):
            session.rows("SELECT 1")
        with pytest.raises(QueueUnavailable, match="no time is left"):
            session.rows("SELECT 1")
