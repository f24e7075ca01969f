"""The syncer's socket alone: what one listening turn does, whatever clients say."""

from __future__ import annotations

import errno
import json
import select
import socket
from typing import TYPE_CHECKING, Any, cast

import pytest

from glassq.queues.beanstalk.syncer.server import Server
from tests.conftest import PATIENCE
from tests.queues.syncer.conftest import Asking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.queues.beanstalk.syncer.client import Asker
    from glassq.queues.beanstalk.syncer.rounds import Rounds

ROOM = 2


class CountingRounds:
    """Counts how often its status is asked for, and closes clients as rounds do."""

    def __init__(self) -> None:
        self.told = 0

    def status(self) -> dict[str, object]:
        self.told += 1
        return {"told": self.told}

    def forget(self, client: Asker) -> None:
        client.close()


class Listener(socket.socket):
    """One that may have no descriptor left."""

    full = False

    def accept(self) -> tuple[socket.socket, Any]:
        if self.full:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


class Hall:
    """A server with room for ROOM clients, whose turns the test takes."""

    def __init__(self, place: Path) -> None:
        self.listener = Listener(socket.AF_UNIX)
        self.listener.bind(str(place))
        self.listener.listen(10)
        self.rounds = CountingRounds()
        self.server = Server(self.listener, cast("Rounds", self.rounds), ROOM)
        self._place = place
        self._guests: list[Asking] = []

    def knock(self) -> Asking:
        """A client that connects; the next turn takes it in."""
        self._guests.append(Asking(str(self._place)))
        return self._guests[-1]

    def enter(self) -> Asking:
        guest = self.knock()
        self.turn()
        return guest

    def turn(self) -> int:
        """One turn; how many ask for a proof in it."""
        return len(self.server.listen(PATIENCE))

    def end(self) -> None:
        for guest in self._guests:
            guest.__exit__()
        self.listener.full = False
        while self.server._clients or self._waits():
            self.turn()
        self.server._selector.close()
        self.listener.close()

    def _waits(self) -> bool:
        """Whether somebody is not taken in yet."""
        return bool(select.select([self.listener], [], [], 0)[0])


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    opened = Hall(tmp_path / "hall.sock")
    yield opened
    opened.end()


@pytest.mark.parametrize("says", [b"prove\n", b"p", b"status\n", b""])
@pytest.mark.parametrize("no_descriptor", [False, True])
def test_who_goes_to_make_room_may_say_something_in_the_same_turn(hall: Hall, says: bytes, no_descriptor: bool) -> None:
    oldest, other = hall.enter(), hall.enter()
    hall.listener.full = no_descriptor
    # what comes first is seen first
    hall.knock()
    if says:
        oldest.send(says)
    else:
        oldest.__exit__()
    assert hall.turn() == 0
    if says:
        assert oldest.line() == ""
    hall.listener.full = False
    other.send(b"prove\n")
    assert hall.turn() == 1


def test_all_who_ask_for_the_status_in_one_turn_share_one(hall: Hall) -> None:
    guests = [hall.enter(), hall.enter()]
    for turn in range(1, 4):
        for guest in guests:
            guest.send(b"status\n")
        hall.turn()
        assert [json.loads(guest.line()) for guest in guests] == [{"told": turn, "clients": ROOM}] * ROOM


def test_who_asks_for_the_status_again_and_again_in_one_packet_is_cut_off(hall: Hall) -> None:
    greedy, other = hall.enter(), hall.enter()
    greedy.send(b"status\n" * 580)
    other.send(b"prove\n")
    assert hall.turn() == 1
    assert hall.rounds.told == 1
    assert json.loads(greedy.line())["told"] == 1
    assert greedy.line() == ""
