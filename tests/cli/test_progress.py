"""Ctrl-C, signals and bars while an operation runs."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys

import pytest

from glassq.cli import progress
from glassq.cli.progress import Terminal
from glassq.errors import Stopped
from glassq.stop_signals import defer_signals
from tests.conftest import program, wait_for


def command(words: str) -> str:
    return words


def test_the_first_ctrl_c_stops_an_operation_at_its_next_safe_point() -> None:
    with Terminal(command, stoppable=True) as progress:
        progress.advance(0, 2, "kicked so far")
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Stopped):
            progress.advance(1, 2, "kicked so far")
        with pytest.raises(Stopped):
            progress.wait(60)


def test_the_second_ctrl_c_ends_the_command() -> None:
    with Terminal(command, stoppable=True):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_what_only_looks_is_ended_by_ctrl_c_as_ever_and_afterwards_so_is_all() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Terminal(command), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    with Terminal(command, stoppable=True):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_warnings_name_commands_as_they_are_typed(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(lambda text: text.replace("`glassq ", "`glassq --config x ")).warn("see `glassq show ID`\x1b")
    assert capsys.readouterr() == ("", "glassq: see `glassq --config x show ID`\\x1b\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_ends_a_command_by_default_does_so_only_after_the_block(number: signal.Signals) -> None:
    code = (
        "import os, signal; from glassq.stop_signals import defer_signals\n"
        # under nohup it is ignored from the start
        f"signal.signal({int(number)}, signal.SIG_DFL)\n"
        f"with defer_signals():\n    os.kill(os.getpid(), {int(number)}); print('whole', flush=True)\n"
        "print('not reached')"
    )
    done = subprocess.run([*program("glassq")[:1], "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-number, "whole\n")


def test_signals_are_taken_as_before_after_a_block() -> None:
    before = signal.getsignal(signal.SIGINT)
    with defer_signals():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


class Screen(io.StringIO):
    """Standard error on a terminal."""

    def isatty(self) -> bool:
        return True


def test_what_takes_long_to_look_at_is_named_until_something_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "BAR_AFTER", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    spinner = progress.Spinner()
    spinner.advance(0, 2, "looking at: ledger")
    wait_for(lambda: "looking at: ledger" in screen.getvalue(), "the ledger to be named")
    spinner.advance(1, 2, "looking at: handlers")
    wait_for(lambda: "looking at: handlers" in screen.getvalue(), "the handlers to be named")
    spinner.stop()
