"""Asks the syncer for proofs: its process stands beside beanstalkd and syncs beanstalkd's files for everybody at once.

The protocol is one line each way (syncer/server.py has the other end):

    prove        ->  yes SERVER-ID   |   later REASON   |   no REASON

"yes SERVER-ID" says that all that this server (its `id` in `stats`, new at each of its starts) had answered before the
question is on disk. After "later" nobody knows, and a later question may prove it. "no" is for as long as this server
runs: a write or a sync has failed.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from glassq.errors import NoProof, NotDurable
from glassq.queues.beanstalk.limited import LimitedSocket
from glassq.queues.beanstalk.reaching import place, reach

if TYPE_CHECKING:
    from collections.abc import Mapping

# A syncer that died is started again at once. A client waits this long for it, in seconds, if its deadline allows.
RESTART = 1.0
# Between two attempts to connect meanwhile, in seconds.
_PAUSE = 0.02
# No answer takes longer than this, in seconds: the syncer itself gives up earlier.
_LONGEST = 60.0
# No answer is longer than this, in bytes.
_MAX_ANSWER = 4096
_PROVE = b"prove\n"


class Prover(Protocol):
    """Proves that what beanstalkd answered is on disk. For all threads of a process, before and after a fork."""

    def prove(self, server: str, *, deadline: float) -> None:
        """Returns once all that beanstalkd `server` answered before this call is on disk.

        `server` is the `id` of its stats, as the connection that got the answers saw it; `deadline` is a
        time.monotonic(). Raises NotDurable if it is not on disk and will not be: put again. Raises NoProof if nobody
        knows: there is no syncer, it was too slow, or it cannot prove anything at this moment.
        """

    def ask(self, *, deadline: float) -> PendingProof:
        """Asks for the proof of all that was answered before this call, and does not wait for it. Raises nothing."""

    def status(self, *, deadline: float) -> Mapping[str, object]:
        """What the syncer tells of itself (`glassq-syncer --status` prints the same). Raises NoProof."""

    def close(self) -> None:
        """Closes the connections that are not in use. A later call opens new ones."""

    def close_inherited(self) -> None:
        """Call in a forked child: closes its copies of the parent's connections."""


class PendingProof(Protocol):
    """A proof that has been asked for."""

    def here(self) -> bool:
        """Whether `prove` would not wait."""

    def prove(self, server: str, *, deadline: float) -> None:
        """As `Prover.prove`. Once only."""

    def close(self) -> None:
        """Nobody wants the answer any more."""


class AskedProof:
    """A proof that the syncer was asked for; its answer is read later."""

    def __init__(self, prover: SyncerProver, sock: LimitedSocket | None) -> None:
        """`sock` is None if it could not be asked: then it is asked once the proof is wanted."""
        self._prover = prover
        self._sock = sock

    def here(self) -> bool:
        """See PendingProof."""
        if self._sock is None:
            return True
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def prove(self, server: str, *, deadline: float) -> None:
        """See PendingProof."""
        sock, self._sock = self._sock, None
        if sock is not None:
            with suppress(OSError):
                _check(self._prover.read(sock, deadline), server)
                return
        # to ask twice does no harm: a later proof proves more
        self._prover.prove(server, deadline=deadline)

    def close(self) -> None:
        """See PendingProof."""
        if self._sock is not None:
            self._sock.close()


class SyncerProver:
    """Asks the syncer at `address`. Each connection is lent to one thread at a time, in the process that made it."""

    def __init__(self, address: str | tuple[str, int], *, connect_timeout: float) -> None:
        """`address` is the path of a unix socket, or host and port. `connect_timeout` is in seconds."""
        self._address = address
        self._connect_timeout = connect_timeout
        self._idle: deque[LimitedSocket] = deque()
        self._pid = os.getpid()

    def prove(self, server: str, *, deadline: float) -> None:
        """See Prover."""
        _check(self._ask(_PROVE, deadline), server)

    def ask(self, *, deadline: float) -> AskedProof:
        """See Prover."""
        try:
            sock = self._take() or self._connect(deadline)
        except OSError:
            return AskedProof(self, None)
        try:
            self._send(sock, _PROVE, deadline)
        except OSError:
            sock.close()
            return AskedProof(self, None)
        return AskedProof(self, sock)

    def status(self, *, deadline: float) -> Mapping[str, object]:
        """See Prover."""
        answer = self._ask(b"status\n", deadline)
        try:
            status = json.loads(answer)
        except ValueError:
            status = None
        if not isinstance(status, dict):
            raise NoProof(f"the syncer at {place(self._address)}: it does not tell its status")
        return status

    def close(self) -> None:
        """See Prover."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def close_inherited(self) -> None:
        """See Prover."""
        self._pid = os.getpid()
        self.close()

    def _ask(self, question: bytes, deadline: float) -> str:
        """The answer to one question. It is asked anew where a connection broke: to ask twice does no harm."""
        give_up = min(deadline, time.monotonic() + RESTART)
        why = "no answer in time"
        while True:
            used = self._take()
            try:
                return self._ask_on(used or self._connect(deadline), question, deadline)
            except TimeoutError:
                break
            except OSError as error:
                why = error.strerror or str(error)
            if time.monotonic() > give_up:
                break
            # one that was used before may have broken long ago
            if used is None:
                time.sleep(_PAUSE)
        raise NoProof(f"the syncer at {place(self._address)}: {why}")

    def _take(self) -> LimitedSocket | None:
        if self._pid != os.getpid():
            self.close_inherited()
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _ask_on(self, sock: LimitedSocket, question: bytes, deadline: float) -> str:
        """Raises OSError, and closes the connection: its answer may still come."""
        try:
            self._send(sock, question, deadline)
        except BaseException:
            sock.close()
            raise
        return self.read(sock, deadline)

    def _send(self, sock: LimitedSocket, question: bytes, deadline: float) -> None:
        sock.limit(min(_LONGEST, max(0.0, deadline - time.monotonic())))
        sock.sendall(question)

    def read(self, sock: LimitedSocket, deadline: float) -> str:
        """The answer to what was asked on this connection; raises OSError like `_ask_on`. For AskedProof."""
        try:
            sock.limit(min(_LONGEST, max(0.0, deadline - time.monotonic())))
            answer = bytearray()
            while not answer.endswith(b"\n"):
                buffer = bytearray(_MAX_ANSWER)
                got = sock.recv_into(buffer)
                if not got:
                    raise ConnectionError("it closed the connection")
                answer += buffer[:got]
                if len(answer) > _MAX_ANSWER:
                    raise ConnectionError("it answers without an end")
        except BaseException:
            sock.close()
            raise
        self._idle.append(sock)
        return answer.decode("ascii", "backslashreplace").rstrip("\n")

    def _connect(self, deadline: float) -> LimitedSocket:
        seconds = min(self._connect_timeout, deadline - time.monotonic())
        if seconds <= 0:
            raise TimeoutError
        return LimitedSocket(reach(self._address, seconds))


def _check(answer: str, server: str) -> None:
    """Returns if the syncer's answer proves what `server` has answered. Raises NotDurable or NoProof."""
    word, _, rest = answer.partition(" ")
    if word == "yes" and rest == server:
        return
    if word == "yes":
        raise NotDurable("beanstalkd was restarted before what it answered was proven to be on disk")
    if word == "no":
        raise NotDurable(f"the syncer gives no proof: {rest}")
    raise NoProof(f"the syncer gives no proof now: {rest}" if word == "later" else "the syncer's answer is not clear")
