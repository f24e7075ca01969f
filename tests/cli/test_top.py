"""`glassq top`: once into a pipe, and at a terminal until q or Ctrl-C."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import termios
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from glassq.causes import Cause
from glassq.cli.top_picture import Glimpse, picture
from glassq.ledger.activity import Activity
from glassq.operations.census_view import CensusView
from glassq.operations.curves import Curve
from glassq.operations.groups import Group
from glassq.operations.rates import Minute, Percentiles
from glassq.operations.sampler import Samples
from glassq.operations.verdict import SystemVerdict
from glassq.queues.base import TubeCounts
from tests.cli.conftest import EACH_ENGINE, NASTY, a_delivery, evidence, put
from tests.conftest import program

if TYPE_CHECKING:
    from tests.cli.conftest import Cli
    from tests.queues.raw import Queue

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
COLUMNS, LINES = 120, 30


def a_group(number: int, words: str = "ValueError: no") -> Group:
    cause = Cause(f"{number:012}", words, "mirror", "store")
    return Group(cause.id, words, 1_000 - number, NOW, NOW, "", "", number == 0, (), cause)


def drawn(glimpse: Glimpse, *, height: int = LINES, bars: bool = True) -> str:
    out = Console(file=io.StringIO(), width=COLUMNS, markup=False, emoji=False, highlight=False)
    with out.capture() as said:
        out.print(picture(glimpse, lambda words: words.upper(), height=height, bars=bars))
    return said.get()


FULL = Glimpse(
    NOW,
    Samples(
        at=NOW,
        tubes=(TubeCounts("glassq", 5_600, 4, 120, 310, paused_for=600), TubeCounts("glassq.push.photos", 12)),
        all=Curve(),
        minutes=(Minute(int(NOW.timestamp()) - 60, 900, 3, 1), Minute(int(NOW.timestamp()) - 120, 450)),
        waited=Percentiles(9, 0.4, 38.0),
        worked=Percentiles(9, 1.1, 6.0),
    ),
    CensusView(groups=tuple(map(a_group, range(40))), counts={"glassq": 310}, looked_at=NOW, complete=True),
    SystemVerdict("wrong", "beanstalkd stopped writing to disk: `glassq doctor`"),
    [Activity(id="1", at=NOW, actor="anna", via="cli", did="kick", chosen=9, done=8, note="canary: 1 ok")],
)


@pytest.mark.parametrize(
    "expected",
    [
        "WRONG: BEANSTALKD STOPPED",
        "5,612 waiting, 4 working, 120 delayed, 310 buried; on disk: ?",
        "waited p50 0.4s, p95 38s   worked p50 1.1s, p95 6s",
        "▄█| at most 900/min",
        "5,600",
        "10m",
        "NEW",
        "12:00 anna: kick 8 of 9 canary: 1 ok",
        "more groups",
    ],
)
def test_the_picture_has_what_the_overview_has(expected: str) -> None:
    assert expected in drawn(FULL)


@pytest.mark.parametrize("height", [24, 30, 40])
def test_the_picture_fits_its_window(height: int) -> None:
    lines = drawn(FULL, height=height).splitlines()
    assert height - 4 <= len(lines) <= height
    assert max(map(len, lines)) <= COLUMNS


def test_a_terminal_without_blocks_gets_other_bars() -> None:
    assert drawn(FULL, bars=False).isascii()


def test_nothing_is_known_yet() -> None:
    assert "looking ..." in drawn(Glimpse(NOW, Samples(), CensusView(), None))


@EACH_ENGINE
def test_into_a_pipe_it_comes_once(queue: Queue, cli: Cli) -> None:
    put(queue, a_delivery(buried=NASTY, evidence=(evidence(NASTY),)), "buried")
    put(queue, a_delivery())
    cli.record(a_delivery(), "done")
    cli("pause", "glassq")
    said = cli("top")
    assert said.code == 0, said.err
    assert "1 waiting, 0" in said.out and "1 buried" in said.out
    assert "HttpError" in said.out and "\x1b" not in said.out
    assert "pause glassq 1 of 1" in said.out


def test_a_queue_that_is_away_is_an_error_as_ever(offline: Cli) -> None:
    assert offline("top", "--once").code == 69


class Terminal:
    """`glassq top` at a terminal of its own; what it draws is read all the while."""

    def __init__(self, cli: Cli) -> None:
        self.ours, self.its = pty.openpty()
        termios.tcsetwinsize(self.its, (LINES, COLUMNS))
        self.before = termios.tcgetattr(self.its)
        self.drawn = b""
        self.process = subprocess.Popen(
            [*program("glassq"), "--config", str(cli.file), "top"],
            stdin=self.its,
            stdout=self.its,
            stderr=self.its,
            start_new_session=True,
            env={**os.environ, **cli.env, "TERM": "xterm-256color", "PYTHONUTF8": "1"},
        )

    def read_until(self, words: bytes) -> None:
        end = time.monotonic() + 60
        while words not in self.drawn:
            assert time.monotonic() < end, self.drawn[-2_000:].decode(errors="replace")
            if select.select([self.ours], [], [], 0.2)[0]:
                self.drawn += os.read(self.ours, 65_536)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.its)


@pytest.mark.parametrize("end", ["q", "Ctrl-C"])
def test_at_a_terminal_it_goes_on_until_it_is_ended(queue: Queue, cli: Cli, end: str) -> None:
    put(queue, a_delivery())
    terminal = Terminal(cli)
    try:
        terminal.read_until(b"1 waiting")
        if end == "q":
            put(queue, a_delivery())
            terminal.read_until(b"2 waiting")
            # nothing is wiped between two pictures: each is drawn over the other
            assert terminal.drawn.count(b"\x1b[2J") == 0
            os.write(terminal.ours, b"xq")
        else:
            os.killpg(terminal.process.pid, signal.SIGINT)
        # the screen as it was before
        terminal.read_until(b"\x1b[?1049l")
        assert terminal.process.wait(30) == 0
        assert termios.tcgetattr(terminal.its) == terminal.before
    finally:
        terminal.close()
