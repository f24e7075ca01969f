"""`glassq top`: the overview in the terminal, as long as somebody looks."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, pass_app
from glassq.cli.output import console
from glassq.cli.top_picture import MAX_ACTIVITIES, Glimpse, picture
from glassq.errors import LedgerError, SettingsError
from glassq.operations import activity
from glassq.operations.census import Census
from glassq.operations.checks.examine import glance
from glassq.operations.doctor import Doctor, Examination
from glassq.operations.progress import Silent
from glassq.operations.sampler import Sampler
from glassq.operations.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from glassq.ledger.activity import Activity
    from glassq.operations import Operations

# Between two pictures, in seconds.
EVERY = 2.0
# The height of a picture that nobody sees in a window, in lines.
UNBOUND = 1_000


@click.command()
@click.option("--once", is_flag=True, help="One picture, and no more; as into a pipe.")
@pass_app
def top(app: App, once: bool) -> None:
    """What waits, how fast it is worked, when it is done, what fails and why: every two seconds, until q or Ctrl-C.

    It shows what the console's overview shows.
    """
    out = console()
    if once or not out.is_terminal:
        out.print(picture(_one(app.operations), app.adapt, height=UNBOUND, bars=_has_blocks(out)))
        return
    watch = Watchers(app.operations)
    try:
        watch.start()
        _follow(app, out, watch)
    except KeyboardInterrupt:
        # that is how it ends
        return
    finally:
        watch.close()


class Watchers:
    """What is looked at by threads of their own, as the console does."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._census, self._sampler, self._doctor = Census(operations), Sampler(operations), Doctor(operations)

    def start(self) -> None:
        """Begins to look."""
        # somebody looks from the first moment on
        self._sampler.view()
        for each in (self._census, self._sampler, self._doctor):
            each.start()

    def close(self) -> None:
        """Ends the threads, within seconds."""
        for each in (self._census, self._sampler, self._doctor):
            each.close()

    def seen(self) -> Glimpse:
        """What is known now."""
        now, samples, census = self._operations.clock(), self._sampler.view(), self._census.snapshot()
        told = verdict(census, samples, self._doctor.view(), now)
        return Glimpse(now, samples, census, told, _activities(self._operations))


def _one(operations: Operations) -> Glimpse:
    """Looks once, at all of it. Raises QueueError and SettingsError."""
    sampler, census = Sampler(operations), Census(operations)
    sampler.view()
    with operations.looking() as queue:
        sampler.step(queue)
        if queue.capabilities.lists >= {"buried"}:
            census.step(queue)
    now = operations.clock()
    samples, buried = sampler.view(), census.snapshot()
    told = verdict(buried, samples, Examination(tuple(glance(operations, Silent())), now), now)
    return Glimpse(now, samples, buried, told, _activities(operations))


def _activities(operations: Operations) -> list[Activity]:
    try:
        return activity.newest(operations, limit=MAX_ACTIVITIES)
    except (LedgerError, SettingsError):
        # the verdict has it
        return []


def _follow(app: App, out: Console, watch: Watchers) -> None:
    from rich.live import Live

    bars = _has_blocks(out)
    with _keys() as keyboard, Live(console=out, screen=True, auto_refresh=False, transient=True) as live:
        while True:
            live.update(picture(watch.seen(), app.adapt, height=out.height, bars=bars), refresh=True)
            if _is_over(keyboard):
                return


def _has_blocks(out: Console) -> bool:
    return out.encoding.startswith("utf")


@contextmanager
def _keys() -> Iterator[int | None]:
    """The descriptor of a keyboard whose keys come one by one, without being shown; None where there is none."""
    if not sys.stdin.isatty():
        yield None
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        # Ctrl-C stays what it is
        tty.setcbreak(keyboard)
        yield keyboard
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _is_over(keyboard: int | None) -> bool:
    """Waits for the next picture; True at once when q is typed, or the terminal is gone."""
    if keyboard is None:
        time.sleep(EVERY)
        return False
    end = time.monotonic() + EVERY
    while (left := end - time.monotonic()) > 0:
        if select.select([keyboard], [], [], left)[0]:
            typed = os.read(keyboard, 1)
            if typed in (b"q", b"Q", b"", b"\x04"):
                return True
    return False
