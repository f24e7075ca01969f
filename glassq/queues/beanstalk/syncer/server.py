"""The socket where clients ask. One line each way, ASCII; the answers to a connection come in order.

    prove    ->  yes SERVER-ID   |   later REASON   |   no REASON
    status   ->  one line of JSON

"later" is for what may be over at the next question, "no" for what lasts until beanstalkd is restarted.

A client that says anything else, does not read its answers, asks too much ahead, or asks for the status twice in one
packet, is cut off. Where there are too many connections, the one that has been silent for longest goes; its client
makes a new one.
"""

from __future__ import annotations

import json
import selectors
import socket
from collections import OrderedDict
from typing import TYPE_CHECKING

from glassq.queues.beanstalk.syncer.client import Asker

if TYPE_CHECKING:
    from glassq.queues.beanstalk.syncer.rounds import Rounds

# The longest line of a client, in bytes, and how many questions it may ask ahead.
_MAX_LINE = 64
_MAX_AHEAD = 1000
_PROVE = b"prove\n"
# What is read at once. Others wait no longer than for this.
_READ = 4096


class Server:
    """Takes questions. It waits for nothing but questions."""

    def __init__(self, listener: socket.socket, rounds: Rounds, max_clients: int) -> None:
        self._listener = listener
        self._rounds = rounds
        self._max_clients = max_clients
        # the one that was silent for longest comes first
        self._clients: OrderedDict[int, Asker] = OrderedDict()
        self._selector = selectors.DefaultSelector()
        # the status that who asks in this turn is answered; b"" until one asks
        self._status = b""
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)

    def listen(self, timeout: float) -> dict[Asker, int]:
        """Waits up to `timeout` seconds for questions; returns each client that asks, with its number of questions.

        For one thread at a time.
        """
        asking: dict[Asker, int] = {}
        self._status = b""
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                self._accept()
            # else _accept has closed it in this turn, to make room
            elif self._is_open(key.data) and self._read(key.data):
                asking[key.data] = key.data.asked
        return asking

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            # gone again, or no descriptor is left
            if self._clients:
                self._close(next(iter(self._clients.values())))
            return
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self._clients) >= self._max_clients:
            self._close(next(iter(self._clients.values())))
        client = Asker(sock)
        self._clients[client.number] = client
        self._selector.register(sock, selectors.EVENT_READ, client)

    def _is_open(self, client: Asker) -> bool:
        return self._clients.get(client.number) is client

    def _read(self, client: Asker) -> bool:
        """Reads what a client says. True if it asked for a proof."""
        try:
            data = client.sock.recv(_READ)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._close(client)
            return False
        self._clients.move_to_end(client.number)
        if data == _PROVE and not client.buffer and client.asked - client.answered < _MAX_AHEAD:
            # nearly always
            client.asked += 1
            return True
        return self._read_lines(client, data)

    def _read_lines(self, client: Asker, data: bytes) -> bool:
        before, told = client.asked, False
        *lines, client.buffer = (client.buffer + data).split(b"\n")
        for line in lines:
            if line == b"prove":
                client.asked += 1
            elif line == b"status" and client.asked == client.answered and not told:
                told = True
                client.send(self._told())
            else:
                client.cut_off()
                break
        if len(client.buffer) > _MAX_LINE or client.asked - client.answered > _MAX_AHEAD:
            client.cut_off()
        return client.asked > before

    def _told(self) -> bytes:
        """The status: made once a turn, so that who asks for it without end holds up nobody for longer than that."""
        if not self._status:
            self._status = json.dumps({**self._rounds.status(), "clients": len(self._clients)}).encode() + b"\n"
        return self._status

    def _close(self, client: Asker) -> None:
        del self._clients[client.number]
        self._selector.unregister(client.sock)
        self._rounds.forget(client)
