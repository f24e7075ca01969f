"""`glassq demo` as somebody sees it who has just installed it: at a terminal, in a pipe, and with Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import working_in
from tests.conftest import program, wait_for
from tests.forked import Forked

if TYPE_CHECKING:
    from pathlib import Path

# Few pings, and yet each kind of trouble.
PINGS = 24
# The count of a row stands behind its name.
ROW = re.compile(r"^ *(\w+) +(\d+) ", re.MULTILINE)


def demo(directory: Path, *options: str) -> list[str]:
    return ["demo", "--pings", str(PINGS), "--rate", "50", "--dir", str(directory), *options]


def rows(said: str) -> dict[str, int]:
    end = said.index("Half of the pings")
    summary = said[said.rindex("sent  ", 0, end) : end]
    return {name: int(number) for name, number in ROW.findall(summary)}


class Terminal:
    """`glassq ARGUMENTS` at a terminal of 80 columns, and all that it writes there; forked, with what it starts."""

    def __init__(self, arguments: list[str], **env: str) -> None:
        self.said = b""
        ours, theirs = pty.openpty()
        plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
        whole = {**plain, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", **env}
        self.process = Forked("glassq", arguments, (theirs, theirs, theirs), whole, None)
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, args=(ours,))
        self._reader.start()

    def _read(self, terminal: int) -> None:
        with open(terminal, "rb", buffering=0) as stream:
            try:
                while piece := stream.read(65536):
                    self.said += piece
            except OSError:
                # the other side is closed
                return

    def runs(self) -> bool:
        return self.process.poll() is None

    def wait(self) -> int:
        code = self.process.wait(120)
        self._reader.join()
        return code


def test_in_a_pipe_a_line_comes_now_and_then_and_each_ping_stands_in_one_row(tmp_path: Path) -> None:
    # with this seed a photo is processed for 4 s: there is something to wait for
    command = [*program("glassq"), *demo(tmp_path / "demo", "--seed", "18")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(done.stdout)
    assert found.pop("sent") == PINGS
    assert sum(found.values()) == PINGS
    assert found["lost"] == 0
    assert len(list((tmp_path / "demo" / "photos").iterdir())) >= found["stored"] > 10
    assert min(found[name] for name in ("stored", "duplicate", "dropped", "buried", "refused")) >= 1
    # webhooks of other senders, one of them forged
    assert re.search(
        r"^ *github +push +200 in [0-9.]+ ms +done: 1 commit on refs/heads/main", done.stdout, re.MULTILINE
    )
    assert re.search(r"^ *stripe +payment_intent.succeeded +200 in .* done: 42.00 EUR paid", done.stdout, re.MULTILINE)
    assert re.search(r"^ *github +push +401 in .* refused by its signature", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout + done.stderr
    assert "starting beanstalkd" in done.stdout
    assert "The queue was kept by beanstalkd." in done.stdout
    # it says how far it is, and for what it waits once all is sent, without a flood of lines
    told = re.findall(r"^\d+s: sent \d+ of 24; .*", done.stdout, re.MULTILINE)
    assert 1 <= len(told) <= 10
    assert re.search(r"sent 24 of 24; .* [1-9] to be retried.*\(.*tried again", "\n".join(told)), done.stdout


# a colour of the first 8, of 256 or of all, for the text
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-8]")
# the cursor goes up, to write lines once more
MOVES = "\x1b[1A"


def test_a_terminal_shows_bars_in_colours(tmp_path: Path) -> None:
    terminal = Terminal(demo(tmp_path / "demo"))
    assert terminal.wait() == 0, terminal.said.decode()
    said = terminal.said.decode()
    assert COLOUR.search(said)
    assert "━" in said
    assert MOVES in said
    assert "worked" in said
    assert re.search(r"waiting +\w+", said)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)
    found = rows(plain)
    assert found.pop("sent") == PINGS == sum(found.values())


@pytest.mark.parametrize(
    ("moment", "env", "moves"),
    [("starting beanstalkd", {"TERM": "dumb"}, False), ("━", {"NO_COLOR": "1"}, True)],
    ids=["dumb", "NO_COLOR"],
)
def test_ctrl_c_says_that_it_stopped_and_leaves_nothing_behind_at_a_terminal_without_colours(
    tmp_path: Path, moment: str, env: dict[str, str], moves: bool
) -> None:
    home = tmp_path / "demo"
    terminal = Terminal(demo(home, "--rate", "2"), **env)
    wait_for(lambda: moment in terminal.said.decode() or not terminal.runs(), f"the demo to say {moment}")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.wait() == 130
    said = terminal.said.decode()
    assert said.rstrip().endswith("stopped: nothing of the demo runs any more")
    assert "Traceback" not in said
    assert not COLOUR.search(said)
    assert ("━" in said and MOVES in said) is moves
    assert not working_in(home)


def test_on_postgresql_it_has_a_server_of_its_own_whose_death_is_told(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    terminal = Terminal([*demo(home), "--engine", "postgres", "--keep"])
    wait_for(lambda: b"Still running" in terminal.said or not terminal.runs(), "the demo to have worked all")
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.said.decode())
    assert terminal.runs(), said
    found = rows(said)
    assert found.pop("sent") == PINGS == sum(found.values())
    assert (found["lost"], found["buried"]) == (0, 1)
    assert "The queue was kept by PostgreSQL." in said
    # the database has the ledger and the credentials, too
    assert not (home / "ledger.db").exists()
    assert not list((home / "credentials").iterdir())
    # whoever else is on this machine is asked for the password, which is in a file
    assert (home / "postgres-password").read_text().strip().rpartition(":")[2] not in (home / "glassq.toml").read_text()
    assert (home / "postgres-password").stat().st_mode & 0o077 == 0
    assert (home / "postgres" / "pg_hba.conf").read_text() == "host all all 127.0.0.1/32 scram-sha-256\n"
    os.kill(int((home / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    assert terminal.wait() == 1
    assert "was killed (SIGKILL), so everything was stopped" in terminal.said.decode()
    wait_for(lambda: not working_in(home), "its processes to be gone")


def test_a_missing_beanstalkd_is_told_before_anything_is_started_or_written(tmp_path: Path) -> None:
    code = (
        "import sys; sys.prefix = '/nowhere'; from glassq.dev import queue_server as server; server.ELSEWHERE = ();"
        "from glassq.cli.main import main; sys.exit(main())"
    )
    for command in ("demo", "dev"):
        done = subprocess.run(
            [sys.executable, "-c", code, command, "--dir", str(tmp_path / "var")],
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": "/nowhere"},
        )
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith("glassq: beanstalkd is not installed: apt install beanstalkd")
        assert not (tmp_path / "var").exists()
