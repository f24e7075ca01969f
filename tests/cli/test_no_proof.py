"""Commands whose deliveries the syncer does not prove: nothing is changed, and the message says what is wrong."""

from __future__ import annotations

import json
import signal
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from glassq.cli import main as cli_main
from glassq.ledger import Entry, open_ledger
from glassq.ledger.reader import LedgerReader
from glassq.operations import put as putting
from glassq.queues.base import ALL_STATES
from glassq.queues.beanstalk import forms, prover, syncer_facts
from glassq.queues.beanstalk.connection import BeanstalkConnection
from glassq.queues.beanstalk.inspector import BeanstalkInspector
from tests.cli.conftest import Cli, a_delivery, put
from tests.queues.binlog import failing, fill_disk
from tests.queues.syncer.conftest import prove
from tests.queues.test_forms import refusing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Beanstalkd

ASIDE = "glassq.push.aside"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Beanstalkd]:
    """One whose binlog can be broken."""
    with failing(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture
def cli(server: Beanstalkd, tmp_path: Path) -> Cli:
    made = Cli(tmp_path, server.url)
    made.configure()
    return made


def there(server: Beanstalkd) -> list[tuple[str, str, bytes]]:
    connection = BeanstalkConnection(server.url, "default", ttr=60, connect_timeout=20, timeout=20)
    with closing(BeanstalkInspector(connection, server.url)) as looking:
        return sorted((job.tube, job.state, job.body) for job in looking.find(ALL_STATES, ["glassq", ASIDE]))


def frozen(server: Beanstalkd) -> None:
    server.syncer.send(signal.SIGSTOP)


def killed(server: Beanstalkd) -> None:
    server.syncer.stop(signal.SIGKILL)


RUNNING = "without its proof nothing is done: do glassq-syncer and beanstalkd work? (`glassq "
TROUBLE = [
    (frozen, 69, f"syncer.sock: no answer in time; {RUNNING}"),
    (killed, 69, f"syncer.sock: No such file or directory; {RUNNING}"),
    (refusing, 75, "the syncer gives no proof: "),
]


@pytest.mark.parametrize(("trouble", "code", "says"), TROUBLE, ids=["frozen", "killed", "refusing"])
@pytest.mark.parametrize("command", ["move", "bury", "put", "replay", "restore"])
def test_what_cannot_be_proven_is_not_done(
    server: Beanstalkd,
    cli: Cli,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    trouble: Callable[[Beanstalkd], None],
    code: int,
    says: str,
) -> None:
    with closing(server.queue()) as queue:
        waiting = str(put(queue, a_delivery()))
        put(queue, a_delivery(buried="busy"), "buried")
        put(queue, a_delivery(buried="busy"), "buried")
    archive = archived(cli) if command == "restore" else ""
    done = a_delivery()
    over(cli, done.id)
    body = cli.directory / "body"
    body.write_bytes(b"body")
    arguments = {
        "move": ["move", "--all", "--to", ASIDE, "--yes"],
        "bury": ["bury", waiting],
        "put": ["put", str(body), "--source", "cron", "--no-check"],
        "replay": ["replay", "--state", "done", "--yes"],
        "restore": ["restore", archive, "--yes"],
    }[command]
    trouble(server)
    before = there(server)
    capfd.readouterr()
    with monkeypatch.context() as patch:
        if trouble is frozen:
            # nobody answers, however long he is waited for
            patch.setattr(forms, "PROOF_WITHIN", 0.3)
            patch.setattr(putting, "PROOF_WITHIN", 0.3)
        assert cli_main.main(["--config", str(cli.file), *arguments]) == code
    said = capfd.readouterr()
    assert says in said.err
    assert "Traceback" not in said.err
    assert there(server) == before
    with LedgerReader(cli.ledger) as ledger:
        assert {each.replayed for each in ledger.finished("done")} == {""}
    # once that is mended, the same command does it
    if trouble is not refusing:
        server.syncer.stop()
        server.syncer.start()
        assert cli_main.main(["--config", str(cli.file), *arguments]) == 0
        assert there(server) != before


SMALL = 8192


def full(server: Beanstalkd) -> None:
    """The disk is full, and somebody has seen it."""
    fill_disk(server, file_size=SMALL)
    assert not prove(server).startswith("yes ")


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        (frozen, "syncer.sock: no answer in time"),
        (killed, "syncer.sock: No such file or directory"),
        (refusing, "beanstalkd does not write to its disk any more"),
        (full, "beanstalkd "),
    ],
)
def test_status_says_on_disk_only_where_that_is_proven(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    trouble: Callable[[Beanstalkd], None],
    says: str,
) -> None:
    with failing(tmp_path, monkeypatch, file_size=SMALL) as server:
        cli = Cli(tmp_path, server.url)
        cli.configure()
        prove(server)
        keys = cli("status", "--json").json["queue"].keys()
        assert "yes: jobs are written to it" in cli("status").out
        trouble(server)
        if trouble is refusing:
            assert not prove(server).startswith("yes ")
        if trouble in (frozen, killed):
            # here, too
            monkeypatch.setattr(syncer_facts, "_WITHIN", 0.2)
            monkeypatch.setattr(prover, "RESTART", 0.2)

        def said(*arguments: str) -> str:
            capfd.readouterr()
            cli_main.main(["--config", str(cli.file), *arguments])
            return capfd.readouterr().out

        line = next(line for line in said("status").splitlines() if line.startswith("on disk"))
        assert line.split(maxsplit=2)[2].startswith("not proven: ")
        assert says in line
        found = json.loads(said("status", "--json"))["queue"]
        assert (found["durable"], found.keys()) == (False, keys)
        assert "and a job put now is written to it, so intake" not in said("doctor")


def test_status_does_not_believe_in_a_trouble_that_is_over(server: Beanstalkd, cli: Cli) -> None:
    server.stop(signal.SIGKILL, syncer=False)
    assert not prove(server).startswith("yes ")
    server.start()
    assert "yes: jobs are written to it" in cli("status").out


def test_a_kick_on_a_full_disk_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with failing(tmp_path, monkeypatch, file_size=SMALL) as server, closing(server.queue()) as queue:
        cli = Cli(tmp_path, server.url)
        cli.configure()
        for _ in range(5):
            put(queue, a_delivery(buried="busy"), "buried")
        fill_disk(server, file_size=SMALL)
        before = there(server)
        assert cli_main.main(["--config", str(cli.file), "kick", "--all", "--yes"]) == 75
        said = capfd.readouterr()
        assert said.err.count(forms.NOT_KICKED) == 1
        assert "no such job" not in said.out + said.err
        assert there(server) == before


@pytest.mark.parametrize("command", ["kick", "delete", "archive"])
def test_what_makes_no_new_form_needs_no_syncer(server: Beanstalkd, cli: Cli, command: str) -> None:
    with closing(server.queue()) as queue:
        put(queue, a_delivery(buried="busy"), "buried")
    killed(server)
    assert cli_main.main(["--config", str(cli.file), command, "--source", "mirror", "--yes"]) == 0
    assert [state for _, state, _ in there(server)] == (["ready"] if command == "kick" else [])


def archived(cli: Cli) -> str:
    assert cli_main.main(["--config", str(cli.file), "archive", "--all", "--yes"]) == 0
    [file] = (cli.directory / "archive").iterdir()
    return str(file)


def over(cli: Cli, delivery: str) -> None:
    ledger = open_ledger(cli.ledger)
    now = datetime.now(UTC)
    ledger.record(Entry(delivery, "mirror", now, "done", 1, now, 0.5, body=b"{}", labels={"collection": "timeline"}))
    ledger.close()
