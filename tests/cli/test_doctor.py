"""`glassq doctor`."""

from __future__ import annotations

import os
import platform
import pwd
import re
import signal
import socket
import sqlite3
import sys
import tempfile
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import glassq
from glassq import taskqueue
from glassq.delivery import encode
from glassq.errors import QueueUnavailable
from glassq.operations import Operations
from glassq.operations import journal as local_operation
from glassq.operations.checks import access, machine, programs, system
from glassq.operations.checks import queue as queue_checks
from glassq.operations.checks.sandbox import forbidden
from glassq.queues import local_engine
from glassq.settings import QueueSettings, Settings, load
from glassq.values import QueueUrl
from tests.cli.conftest import Cli, a_delivery, put
from tests.conftest import ROOT, Beanstalkd, Process, free_port, wait_for
from tests.journal.conftest import fill_journal
from tests.queues.binlog import break_binlog, failing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.queues.raw import Queue

ROUTE = '[[routes]]\nsource = "mirror"\nhandler = "ours:handle"\n'


def configure(cli: Cli, *, intake: str = "", more: str = ROUTE) -> None:
    """An installation on which nothing is wrong, but that nobody runs; `intake` and `more` are further settings."""
    (cli.directory / "ours.py").write_text("print('imported')\ndef handle(delivery): return None\n")
    tokens = cli.directory / "tokens"
    tokens.write_text("a-token\n")
    tokens.chmod(0o600)
    cli.configure(
        f'[intake]\njournal = "{cli.directory}/spool"\n{intake}\n'
        f'[sources.mirror]\nverify_tokens_file = "{tokens}"\n{more}'
    )


def with_push(cli: Cli, more: str = "") -> None:
    """The same for push queues; nobody sends pings but where `more` says so."""
    (cli.directory / "ours.py").write_text("def handle(delivery): return None\n")
    (cli.directory / "queue.yaml").write_text("queue:\n- name: mail\n- name: off\n  rate: 0\n")
    cli.configure(
        f'[push]\nqueue_yaml = "{cli.directory}/queue.yaml"\nnames = "sqlite:///{cli.directory}/names.db"\n'
        f'[push.targets]\ndefault = "http://127.0.0.1:9"\n{more}'
    )


def operations(cli: Cli) -> Operations:
    return Operations(load(str(cli.file), {}), actor="ada")


def told(cli: Cli) -> dict[str, list[dict[str, Any]]]:
    """What it says, by the names of the checks."""
    checks: dict[str, list[dict[str, Any]]] = {}
    for check in cli("doctor", "--json").json["checks"]:
        checks.setdefault(check["name"], []).append(check)
    return checks


def words(check: dict[str, Any]) -> str:
    return f"{check['said']}: {check['todo']}"


@contextmanager
def consumer(server: Beanstalkd) -> Iterator[None]:
    queue = server.queue()
    waiting = threading.Thread(target=queue.reserve, args=[60])
    waiting.start()
    other = server.queue()
    try:
        wait_for(lambda: other.stats_tube().waiting, "the consumer to wait")
        yield
    finally:
        other.put(b"the end")
        waiting.join(30)
        for each in (queue, other):
            each.close()


def test_an_installation_that_works_has_nothing_wrong(beanstalkd: Beanstalkd, cli: Cli) -> None:
    configure(cli, intake=f'bind = "127.0.0.1:{free_port()}"\njournal_min_free = "1MiB"')
    web = Process(["--config", str(cli.file)], cli.directory / "web.log", forks="glassq-web")
    try:
        wait_for(lambda: next(programs.intake(operations(cli))).ok, "the intake to answer", 30)
        with consumer(beanstalkd):
            said = cli("doctor")
            # a machine without systemd is noted, and is nothing wrong
            assert {line.split()[0] for line in said.out.splitlines()[:-1]} <= {"ok", "note"}
            assert said.out.endswith("nothing is wrong\n")
            assert (said.code, said.err) == (0, "imported\n")
            found = cli("doctor", "--json").json
            assert found["ok"] is True
            noted = {check["name"] for check in found["checks"] if check["ok"] is None}
            assert noted <= {"units", "clock", "syncer"}
            names = {"settings", "journal", "durability", "handler", "intake", "consumers", "versions", "disk"}
            assert names <= {check["name"] for check in found["checks"]}
    finally:
        web.end()


def test_whether_metrics_are_told_is_told(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        ours, theirs = free_port(), stranger.getsockname()[1]
        metrics = f'[metrics]\nintake = "127.0.0.1:{ours}"\npool = "127.0.0.1:{theirs}"\n'
        configure(cli, intake=f'bind = "127.0.0.1:{free_port()}"\njournal_min_free = "1MiB"', more=metrics + ROUTE)
        web = Process(["--config", str(cli.file)], cli.directory / "web.log", forks="glassq-web")
        try:
            wait_for(lambda: next(programs.intake(operations(cli))).ok, "the intake to answer", 30)
            stranger.settimeout(20)

            def answer() -> None:
                with stranger.accept()[0] as sock:
                    sock.recv(4096)
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

            answering = threading.Thread(target=answer)
            answering.start()
            intake, pool = programs.metrics(operations(cli))
            answering.join()
        finally:
            web.end()
    assert (intake.ok, intake.said) == (True, f"[metrics] intake = 127.0.0.1:{ours}: answers")
    assert (pool.ok, pool.said.endswith("answers 200: that is not glassq-worker")) == (False, True)
    intake, pool = programs.metrics(operations(cli))
    assert (intake.ok, pool.ok) == (False, False)
    assert "nobody answers: Connection refused" in intake.said
    assert intake.todo == "start glassq-web, or look at its log"


def test_what_nobody_runs_is_said_with_what_to_do(cli: Cli) -> None:
    configure(cli, intake=f'bind = "127.0.0.1:{free_port()}"')
    said = cli("doctor")
    assert said.code == 1
    assert "start glassq-web" in said.out
    assert "nobody takes jobs from tube glassq; 0 are ready: start glassq-worker" in said.out
    assert said.out.endswith("2 things are wrong\n")


def test_an_unreachable_queue_is_exit_69_and_the_rest_is_still_told(offline: Cli) -> None:
    configure(offline)
    said = offline("doctor")
    assert said.code == 69
    assert "nobody.sock: No such file or directory: start it" in said.out
    assert "ok     handler       ours:handle" in said.out
    assert [check["ok"] for check in told(offline)["queue"]] == [False]


def test_settings_that_cannot_be_used_are_exit_78_in_one_line(offline: Cli) -> None:
    offline.configure("[worker]\nproceses = 4\n")
    said = offline("doctor")
    assert said.code == 78
    assert "did you mean processes?" in said.out
    assert said.err == ""


# -- the queue ------------------------------------------------------------------------------------------------------


def test_a_queue_that_does_not_write_to_disk_is_wrong(beanstalkd: Beanstalkd, cli: Cli) -> None:
    configure(cli)
    beanstalkd.stop()
    beanstalkd.start(durable=False)
    (found,) = told(cli)["durability"]
    assert found["ok"] is False
    assert found["todo"] == "start it with -b DIRECTORY -f0"


def test_a_binlog_that_failed_is_wrong_though_the_server_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing(tmp_path, monkeypatch) as server:
        cli = Cli(tmp_path, server.url)
        configure(cli)
        assert told(cli)["durability"][0]["ok"] is True
        break_binlog(server)
        # at the first write the server answers BURIED, from then on INSERTED as ever
        for says in ("its binlog failed", "in memory only"):
            (found,) = told(cli)["durability"]
            assert found["ok"] is False
            assert says in found["said"]
            assert "make room on its disk" in found["todo"]


def test_a_queue_that_drains_is_wrong_once(beanstalkd: Beanstalkd, queue: Queue, cli: Cli) -> None:
    configure(cli)
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: queue.stats().draining, "beanstalkd to drain")
    found = told(cli)
    assert words(found["draining"][0]).endswith(": restart it")
    assert not {"durability", "consumers"} & found.keys()


def test_a_limit_on_jobs_that_is_too_small_is_wrong(tmp_path: Path) -> None:
    server = Beanstalkd(tmp_path, options=("-z", "1000"))
    try:
        cli = Cli(tmp_path, server.url)
        configure(cli)
        (found,) = told(cli)["job size"]
        assert (found["ok"], found["todo"]) == (False, "start it with -z 65535 or more")
    finally:
        server.stop()


def test_with_push_queues_jobs_may_be_larger(beanstalkd: Beanstalkd, cli: Cli) -> None:
    with_push(cli)
    (found,) = told(cli)["job size"]
    assert (found["ok"], found["todo"]) == (False, "start it with -z 131072 or more")


def test_a_task_that_is_worked_or_waited_for_counts_as_a_consumer(
    beanstalkd: Beanstalkd, queue: Queue, cli: Cli
) -> None:
    with_push(cli)
    queue.put(encode(a_delivery()), tube="glassq.push.mail")
    (found,) = told(cli)["consumers"]
    assert found["said"] == "nobody takes jobs from tube glassq and those of queues; 1 are ready"
    assert queue.reserve(0, ["glassq.push.mail"])
    (found,) = told(cli)["consumers"]
    assert (found["ok"], found["said"].endswith("; 0 wait"), "1 are at work" in found["said"]) == (True, False, True)


def test_push_queues_that_nobody_works_are_noted(beanstalkd: Beanstalkd, queue: Queue, cli: Cli) -> None:
    with_push(cli)
    for name in ("off", "mail", "gone"):
        queue.put(encode(a_delivery()), tube=f"glassq.push.{name}")
    queue.pause(3600, "glassq.push.mail")
    found = told(cli)["push queue"]
    assert [check["ok"] for check in found] == [None] * 3
    for says in ("queue mail is paused", "queue off is not worked: its rate is 0", "queue gone is not in "):
        assert any(says in check["said"] for check in found), says
    # another one's mistake in the file hides neither the pause nor the mistake
    (cli.directory / "queue.yaml").write_text("queue: [")
    found = told(cli)
    assert [check["ok"] for check in found["push"]] == [False]
    assert ["queue mail is paused" in check["said"] for check in found["push queue"]] == [True]


def test_an_address_of_the_network_is_noted(beanstalkd: Beanstalkd, cli: Cli) -> None:
    configure(cli)
    assert "address" not in told(cli)
    cli.url = f"beanstalk://0.0.0.0:{beanstalkd.port}"
    configure(cli)
    (found,) = told(cli)["address"]
    assert found["ok"] is None
    assert "whoever reaches it" in found["said"]


def test_jobs_that_silent_connections_hold_are_wrong(beanstalkd: Beanstalkd, queue: Queue, cli: Cli) -> None:
    configure(cli)
    for _ in range(2):
        put(queue, a_delivery(), "reserved")
    (found,) = told(cli)["reserved"]
    assert found["said"].startswith("more jobs are reserved (2) than connections work (1)")
    assert "restart glassq-worker" in found["todo"]


def test_what_lies_buried_is_noted_and_is_nothing_wrong(queue: Queue, cli: Cli) -> None:
    configure(cli)
    assert told(cli)["buried"][0]["ok"] is True
    put(queue, a_delivery(), "buried")
    (found,) = told(cli)["buried"]
    assert (found["ok"], found["said"]) == (None, "1 wait for a decision")
    assert found["todo"] == f"look with `glassq --config {cli.file} buried`"


def test_a_socket_that_may_not_be_used_is_said_with_who_may(offline: Cli) -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as server:
        Path(place).chmod(0o755)
        server.bind(f"{place}/bs.sock")
        server.listen()
        Path(place, "bs.sock").chmod(0)
        offline.url = f"beanstalk://{place}/bs.sock"
        configure(offline)
        here = operations(offline)
        # root may do everything
        os.seteuid(user or 65_534)
        try:
            with here.queue() as queue:
                with pytest.raises(QueueUnavailable) as refused:
                    queue.status()
                found = queue_checks.trouble(here, queue, refused.value)
        finally:
            os.seteuid(user)
    assert found.code == 69
    assert "let the program that listens there give it to group" in found.todo
    assert f"{place}/bs.sock belongs to user {access.me()} and group " in found.said


@contextmanager
def as_user(user: int, groups: list[int]) -> Iterator[None]:
    """This process asks as somebody else; only root can become that."""
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(user)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


NOBODY = 65_534
root_alone = pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as another user")


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="place-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@root_alone
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o400, 0o000], ids=oct)
@pytest.mark.parametrize(("write", "needed"), [(False, 640), (True, 660)], ids=["read", "write"])
def test_a_file_that_root_alone_may_use_is_given_to_one_group_and_no_user_to_roots(
    place: Path, mode: int, write: bool, needed: int
) -> None:
    file = place / "a secret"
    file.write_text("")
    file.chmod(mode)
    with as_user(NOBODY, []):
        found = access.barrier(file, write=write)
    assert found is not None
    assert found[1] == f"chgrp nogroup '{file}' && chmod {needed} '{file}'"


@root_alone
def test_somebody_elses_directory_is_not_opened_for_one_file_in_it(place: Path) -> None:
    (place / "home").mkdir(mode=0o700)
    file = place / "home" / "secret"
    file.write_text("")
    with as_user(NOBODY, []):
        found = access.barrier(file, write=False)
    assert found is not None
    assert "keep the file where nobody may go" in found[1]
    ours = place / "glassq"
    ours.mkdir(mode=0o700)
    with as_user(NOBODY, []):
        found = access.barrier(ours / "secret", write=False)
    assert found is not None
    assert found[1] == f"chgrp nogroup {ours} && chmod g+x {ours}"


@root_alone
def test_a_file_of_another_user_is_asked_for_as_that_user(place: Path) -> None:
    file = place / "secret"
    file.write_text("")
    file.chmod(0o600)
    os.chown(file, 2, 2)
    with as_user(NOBODY, []):
        found = access.barrier(file, write=False)
    assert found is not None
    assert found[1] == f"run this as {pwd.getpwuid(2).pw_name}"


@root_alone
def test_a_directory_is_made_or_named_and_the_one_above_it_stays_roots(place: Path) -> None:
    with as_user(NOBODY, []):
        missing, other = access.directory("spool", place / "spool"), access.directory("spool", place)
        shell = access.directory("spool", Path("/"))
    assert missing.todo == f"install -d -o nobody -m 750 {place}/spool"
    assert "name a directory of nobody's own" in other.todo
    assert "name a directory of nobody's own" in shell.todo
    (place / "glassq").mkdir()
    with as_user(NOBODY, []):
        assert access.directory("spool", place / "glassq").todo == f"chown nobody {place}/glassq"


def test_no_advice_opens_a_door() -> None:
    """Neither for everybody, nor by a group that has more than glassq's files."""
    doors = re.compile(r"usermod|gpasswd|chmod [^`'\"]*(?:777|666|[ao]\+)|sudo -u root|aG root|setenforce 0")
    told = [*(ROOT / "glassq").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    rooms = (ROOT / room for room in ("conf", "systemd", "packaging", "tools"))
    told += [path for room in rooms for path in room.iterdir() if path.is_file()]
    assert {str(path): door[0] for path in told if (door := doors.search(path.read_text()))} == {}


# -- this machine ---------------------------------------------------------------------------------------------------


def test_secrets_that_are_missing_or_open_to_everybody_are_wrong(offline: Cli) -> None:
    configure(offline, more=ROUTE.replace("ours:handle", "glassq.glass.photos:store"))
    (offline.directory / "tokens").chmod(0o644)
    # another source that has the same file: it is named once
    offline.file.write_text(
        f'{offline.file.read_text()}[sources.github]\nsecrets_file = "{offline.directory}/tokens"\n', "utf-8"
    )
    key = offline.directory / "no-key"
    offline.file.write_text(offline.file.read_text() + f'[glass]\ncredentials_key_file = "{key}"\n')
    open_to_all, _, missing = told(offline)["secret file"]
    assert open_to_all["todo"] == f"chmod o= {offline.directory}/tokens"
    assert f"`glassq --config {offline.file} users new-key` writes one" in missing["todo"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("raise OSError('no such thing')", "cannot be imported: OSError: no such thing"),
        ("def handle(:", "cannot be imported: SyntaxError"),
        ("import sys; sys.exit(3)", "cannot be imported: SystemExit"),
        ("other = 1", "cannot be imported: AttributeError"),
        ("def handle(): pass", "expected a function of (delivery)"),
    ],
)
def test_each_handler_that_cannot_be_used_is_a_line(offline: Cli, source: str, says: str) -> None:
    configure(offline, more=f"{ROUTE}\n{ROUTE.replace('ours', 'theirs')}")
    (offline.directory / "theirs.py").write_text(source)
    found = {check["said"].partition(":handle")[0]: check for check in told(offline)["handler"]}
    assert found["ours"]["ok"] is True
    assert found["theirs"]["ok"] is False
    assert f"theirs:handle: {says}" in found["theirs"]["said"]
    assert offline("doctor").err == "imported\n"


def test_two_routes_to_one_url_are_two_lines(offline: Cli) -> None:
    url = ROUTE.replace("ours:handle", "http://127.0.0.1:9/pings")
    with_push(offline, f'{ROUTE}{url}queue = "mail"\n{url}queue = "mial"\n')
    ours, right, wrong = told(offline)["handler"]
    assert (ours["ok"], right["ok"], wrong["ok"]) == (True, True, False)
    assert 'queue = "mial": expected a queue of queue.yaml: ' in wrong["said"]
    # with a mistake in that file the handlers that need none of it are looked at all the same
    (offline.directory / "queue.yaml").write_text("queue: [")
    (only,) = told(offline)["handler"]
    assert (only["ok"], only["said"]) == (True, "ours:handle")


def test_a_journal_that_cannot_be_is_wrong(offline: Cli) -> None:
    (offline.directory / "file").write_text("")
    configure(offline)
    assert "is made when it is needed, on the disk at /" in told(offline)["journal"][0]["said"]
    offline.file.write_text(offline.file.read_text().replace("/spool", "/file/spool"))
    (found,) = told(offline)["journal"]
    assert (found["ok"], f"{offline.directory}/file is no directory" in found["said"]) == (False, True)


def test_a_journal_that_is_gone_while_intake_runs_is_wrong(offline: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(offline, intake=f'bind = "127.0.0.1:{free_port()}"')
    monkeypatch.setattr(local_operation, "get", lambda *_, **__: (200, "ready"))
    (found,) = machine.journal(operations(offline))
    assert (found.ok, found.said) == (False, f"the journal's directory {offline.directory}/spool is gone")


def test_a_disk_without_room_for_the_journal_is_wrong(offline: Cli) -> None:
    configure(offline, intake='journal_min_free = "900000GiB"')
    (found,) = told(offline)["journal"]
    assert found["ok"] is False
    assert "make room there" in found["todo"]


def test_what_is_in_the_journal_is_told(offline: Cli) -> None:
    configure(offline)
    directory = fill_journal(offline.directory / "spool", [])
    assert told(offline)["journaled"][0]["ok"] is True
    fill_journal(directory, [a_delivery()])
    (directory / "damaged" / "one").write_text("?")
    (directory / "refused" / "one.job").write_text("?")
    damaged, refused, waiting = told(offline)["journaled"]
    assert (damaged["ok"], refused["ok"], waiting["ok"]) == (False, False, None)
    assert "1 delivery waits for the queue" in waiting["said"]
    (directory / "019a.job").mkdir()
    wrong, *_, waiting = told(offline)["journaled"]
    assert (wrong["ok"], f"{directory}/019a.job is a directory" in wrong["said"]) == (False, True)
    assert "1 delivery waits for the queue" in waiting["said"]


def test_a_ledger_that_is_none_is_wrong(offline: Cli) -> None:
    configure(offline)
    (offline.directory / "ledger.db").write_bytes(b"no database" * 400)
    assert told(offline)["ledger"][0]["ok"] is False


def test_databases_that_cannot_be_written_are_wrong(offline: Cli) -> None:
    with_push(offline)
    files = [offline.directory / "ledger.db", offline.directory / "names.db"]
    found = told(offline)
    assert [found[name][0]["ok"] for name in ("ledger", "task names")] == [True, True]
    assert not any(file.exists() for file in files)
    offline.record(a_delivery(), "done")
    names = taskqueue.Client(load(str(offline.file), {}))
    with pytest.raises(taskqueue.TransientError):
        names.add("mail", [taskqueue.Task(name="one", url="/")])
    names.close()
    found = told(offline)
    assert [found[name][0]["said"] for name in ("ledger", "task names")] == [f"{file} can be written" for file in files]
    # to root, a file that may not be written is as good as another; one that another process writes is to nobody
    writers = [sqlite3.connect(file, isolation_level=None) for file in files]
    for writer in writers:
        writer.execute("BEGIN IMMEDIATE").close()
    found = told(offline)
    for writer in writers:
        writer.close()
    for name, key in (("ledger", "[ledger] url"), ("task names", "[push] names")):
        (check,) = found[name]
        assert check["ok"] is False
        assert check["said"].startswith(f'{key} = "sqlite:///{offline.directory}/')
        assert check["said"].endswith("cannot be written: database is locked")


@pytest.mark.parametrize(("year", "sane"), [(1970, False), (2023, False), (2026, True), (2106, False)])
def test_a_clock_that_is_years_off_is_wrong(year: int, sane: bool) -> None:
    found = machine.clock_at(datetime(year, 5, 1, tzinfo=UTC))
    assert (found.ok, str(year) in found.said, bool(found.todo)) == (sane, True, not sane)


READY = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
SPOOLING = b"ready, by the spool: the queue takes nothing now\n"
UNJOURNALED = b"ready, by the queue alone: the journal takes nothing now\n"


@pytest.mark.parametrize(
    ("answer", "ok", "says", "unix"),
    [
        (READY % (6, b"ready\n"), True, "says: ready", False),
        (READY % (len(SPOOLING), SPOOLING), False, "pings are safe in the journal", True),
        (READY % (len(UNJOURNALED), UNJOURNALED), False, "the queue keeps pings; mend the journal", False),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", False, "pings are not taken", True),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", False, "answers 404: that is not glassq-web", False),
        (b"SSH-2.0-OpenSSH_9.6\r\n", False, "nobody answers", True),
    ],
    ids=["ready", "spooling", "queue alone", "503", "404", "no HTTP"],
)
def test_what_intake_answers_is_told(offline: Cli, answer: bytes, ok: bool, says: str, unix: bool) -> None:
    family = socket.AF_UNIX if unix else socket.AF_INET
    with socket.socket(family) as server, tempfile.TemporaryDirectory() as place:
        server.bind(f"{place}/web.sock" if unix else ("127.0.0.1", 0))
        server.listen()
        name = server.getsockname()
        configure(offline, intake=f'bind = "{f"unix:{name}" if unix else f"127.0.0.1:{name[1]}"}"')

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        found = next(programs.intake(operations(offline)))
        thread.join(10)
    assert found.ok is ok
    assert says in f"{found.said}: {found.todo}"


def test_where_nobody_sends_pings_no_intake_and_no_journal_is_missed(offline: Cli) -> None:
    intake = f'[intake]\njournal = "{offline.directory}/spool"\nbind = "127.0.0.1:{free_port()}"\n'
    with_push(offline, intake)
    found = told(offline)
    assert "journal" not in found
    assert [check["ok"] for check in found["intake"]] == [True]
    with_push(offline, intake + ROUTE)
    found = told(offline)
    assert "journal" in found
    assert [check["ok"] for check in found["intake"]] == [False]


def test_an_intake_that_is_handed_its_socket_is_not_asked(offline: Cli) -> None:
    configure(offline, intake='bind = "fd://3"')
    assert next(programs.intake(operations(offline))).ok is None


# -- the system -----------------------------------------------------------------------------------------------------


def test_versions_are_those_that_run(offline: Cli) -> None:
    configure(offline)
    (found,) = told(offline)["versions"]
    for says in (f"glassq {glassq.__version__}", f"Python {platform.python_version()}", "gunicorn ", sys.prefix):
        assert says in found["said"]


def test_a_disk_is_told_once_with_what_is_on_it(beanstalkd: Beanstalkd, cli: Cli) -> None:
    configure(cli)
    (found,) = told(cli)["disk"]
    assert found["ok"] is True
    # all of a test is in one directory
    assert found["said"].endswith(" MiB free, for binlog and ledger and photos")


def test_a_disk_that_fills_up_is_wrong(offline: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(offline)
    monkeypatch.setattr(system, "MIN_FREE", 1 << 60)
    found = list(system.disks(operations(offline)))
    assert [(check.ok, check.todo) for check in found] == [(False, "make room there")]


WORKER = {
    "Id": "glassq-worker.service",
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
    "Result": "success",
    "NRestarts": "0",
}


@pytest.mark.parametrize(
    ("properties", "ok", "says"),
    [
        ({}, True, "is active (running), enabled"),
        ({"UnitFileState": "disabled"}, None, "does not start at boot: systemctl enable glassq-worker.service"),
        ({"UnitFileState": "disabled", "WantedBy": "a.service glassq.target"}, True, "started by glassq.target"),
        (
            {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code"},
            False,
            "has failed (exit-code): journ",
        ),
        (
            {"ActiveState": "activating", "SubState": "auto-restart", "Result": "watchdog", "NRestarts": "7"},
            False,
            "again and again (watchdog; restarts: 7): journalctl -u glassq-worker.service",
        ),
        (
            {"ActiveState": "activating", "SubState": "auto-restart", "Result": "exit-code", "ExecMainStatus": "78"},
            False,
            "has ended (exit 78: the configuration is wrong), and systemd starts it again: journalctl -u glassq-worker",
        ),
        (
            {
                "ActiveState": "activating",
                "SubState": "auto-restart-queued",
                "Result": "exit-code",
                "ExecMainStatus": "78",
                "NRestarts": "3",
                "StatusText": "glassq.toml: unknown key",
            },
            False,
            "again and again (exit 78: the configuration is wrong; restarts: 3); it said: glassq.toml: unknown key",
        ),
        (
            {
                "ActiveState": "activating",
                "SubState": "auto-restart",
                "Result": "signal",
                "ExecMainCode": "2",
                "ExecMainStatus": "9",
            },
            False,
            "has ended (signal 9), and",
        ),
        (
            {"ActiveState": "activating", "SubState": "start", "NRestarts": "4"},
            False,
            "again (start; restarts: 4): jou",
        ),
        ({"ActiveState": "activating", "SubState": "start"}, None, "is activating (start)"),
        ({"ActiveState": "inactive", "SubState": "dead"}, False, "does not run (enabled): systemctl start"),
        ({"ActiveState": "inactive", "SubState": "dead", "UnitFileState": "disabled"}, None, "if it is to run here"),
        ({"ActiveState": "inactive", "SubState": "dead", "UnitFileState": "static"}, True, "its socket starts it"),
        ({"LoadState": "masked", "ActiveState": "inactive", "SubState": "dead"}, None, "systemctl unmask"),
        ({"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}, None, "is not there"),
        ({"LoadState": "bad-setting", "ActiveState": "inactive", "SubState": "dead"}, False, "cannot be read"),
    ],
)
def test_a_unit_is_right_or_says_what_to_do(properties: dict[str, str], ok: bool | None, says: str) -> None:
    found = system.unit(WORKER | properties)
    assert found.ok is ok
    assert says in f"{found.said}: {found.todo}"


@pytest.mark.parametrize(
    ("properties", "program", "said"),
    [
        ({}, "/usr/bin/node", [(True, "lets programs make machine code")]),
        ({"MemoryDenyWriteExecute": "no", "ProtectHome": "yes"}, "/usr/bin/node", [(True, "no home directories")]),
        ({"MemoryDenyWriteExecute": "yes"}, "/usr/bin/node", [(None, "Node.js, Java and PHP's JIT fail")]),
        ({"ProtectHome": "yes"}, "/home/ann/a.sh", [(False, "does not see /home (ProtectHome=yes)"), (True, "")]),
        ({"PrivateTmp": "yes"}, "/tmp/a.sh", [(False, "does not see /tmp (PrivateTmp=yes)"), (True, "")]),
        ({"PrivateTmp": "no"}, "/tmp/a.sh", [(True, "")]),
    ],
)
def test_what_the_unit_forbids_a_program_is_said(
    properties: dict[str, str], program: str, said: list[tuple[bool | None, str]]
) -> None:
    found = list(forbidden(properties, [Path(program)] * 2))
    assert [check.ok for check in found] == [ok for ok, _ in said]
    assert all(words in check.said for check, (_, words) in zip(found, said, strict=True))


def test_what_systemd_prints_is_read_unit_by_unit() -> None:
    said = "".join(f"{name}={value}\n" for name, value in WORKER.items())
    assert system.read_units(f"{said}\n{said.replace('worker', 'web')}") == [
        WORKER,
        WORKER | {"Id": "glassq-web.service"},
    ]


@pytest.mark.parametrize(
    ("program", "started", "says"),
    [
        ("/opt/other/bin/glassq-worker", "99000000000000", ["runs /opt/other/bin/glassq-worker, but this is glassq "]),
        ("/opt/my own/bin/glassq-worker", "0", ["runs /opt/my own/bin/glassq-worker, but this is glassq "]),
        (f"{sys.prefix}/bin/glassq-worker", "1", ["was started before glassq "]),
        (f"{sys.prefix}/bin/glassq-worker", "99000000000000", []),
        (f"{sys.prefix}/bin/glassq-worker", "0", []),
    ],
    ids=["another", "in a path with a space", "older", "this", "not started"],
)
def test_a_unit_that_runs_another_glassq_is_noted(program: str, started: str, says: list[str]) -> None:
    start = f"{{ path={program} ; argv[]={program} ; ignore_errors=no ; start_time=[n/a] ; pid=12 ; code=(null) }}"
    found = list(system.another(WORKER | {"ExecStart": start, "ExecMainStartTimestampMonotonic": started}))
    assert [check.ok for check in found] == [None] * len(says)
    assert all(each in check.said for each, check in zip(says, found, strict=True))


def test_units_that_nobody_has_installed_or_enabled_are_one_line() -> None:
    idle = WORKER | {"ActiveState": "inactive", "SubState": "dead", "UnitFileState": "disabled"}
    for unit, says in ((idle, "enable --now glassq.target"), (idle | {"LoadState": "not-found"}, "none of glassq's")):
        (found,) = system.all_units([unit, unit | {"Id": "glassq-web.service"}])
        assert (found.name, found.ok, says in f"{found.said}: {found.todo}") == ("units", None, True)


@pytest.mark.parametrize(
    ("state", "boots", "url", "notes"),
    [
        ("active", "enabled", "beanstalk:///run/glassq/beanstalkd.sock", 1),
        ("active", "disabled", "beanstalk:///run/glassq/beanstalkd.sock", 1),
        ("inactive", "enabled", "beanstalk:///run/glassq/beanstalkd.sock", 1),
        ("inactive", "disabled", "beanstalk:///run/glassq/beanstalkd.sock", 0),
        ("active", "enabled", "beanstalk://127.0.0.1:11300", 0),
        ("", "", "beanstalk:///run/glassq/beanstalkd.sock", 0),
    ],
)
def test_a_queue_of_the_distributions_that_runs_beside_ours_is_noted(
    state: str, boots: str, url: str, notes: int
) -> None:
    engine = local_engine(Settings(queue=QueueSettings(url=QueueUrl(url))))
    found = list(engine.other_server(state, boots))
    assert [(check.ok, "systemctl disable --now beanstalkd, unless" in check.todo) for check in found] == [
        (None, True)
    ] * notes


def test_unit_files_that_systemd_has_not_read_are_noted() -> None:
    right, stale = system.all_units([WORKER | {"NeedDaemonReload": "yes"}])
    assert (right.ok, stale.ok, stale.todo) == (True, None, "systemctl daemon-reload")
    assert "glassq-worker.service" in stale.said


@pytest.mark.parametrize("sub", ["auto-restart", "auto-restart-queued"])
def test_a_unit_that_ended_once_does_not_end_again_and_again(sub: str) -> None:
    """A start by hand sets systemd's count back: the first end after it has no restart before it."""
    ended = {"ActiveState": "activating", "SubState": sub, "Result": "exit-code", "ExecMainStatus": "1"}
    found = system.unit(WORKER | ended)
    assert found.ok is False
    assert found.said == "glassq-worker.service has ended (exit 1), and systemd starts it again"
