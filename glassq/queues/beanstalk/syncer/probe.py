"""What a round asks beanstalkd, in one packet: is its log on, and which of its files may hold what it has answered?

    stats; reserve-job P; release P 9 3600; stats

P is a delayed job of ours. A release with a delay is written to the log, so RELEASED and a higher count of written
records show that the log was on when the second of these began; then it was on for all that was answered before.
"""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, NamedTuple

from glassq.queues.beanstalk.limited import LimitedSocket

if TYPE_CHECKING:
    import io

# Nobody watches this tube. The delay, in seconds, only makes the release one that is written.
TUBE = b"glassq.syncer"
_DELAY = 3600
# beanstalkd answers at once unless it is frozen or its disk is. Nobody waits for so long; in seconds.
TIMEOUT = 10.0
# The host's name, which may hold anything, comes after all of these.
_STATS = re.compile(
    rb"\nbinlog-oldest-index: (\d+)\nbinlog-current-index: (\d+)\n(?:[^\n]+\n)*?binlog-records-written: (\d+)\n"
    rb"(?:[^\n]+\n)*?id: ([0-9a-f]+)\n"
)
_PID = re.compile(rb"\npid: (\d+)\n")


class Stats(NamedTuple):
    """Of beanstalkd's `stats`: its oldest and current file, records written, id of this run, and the whole text."""

    oldest: int
    current: int
    written: int
    server: str
    text: bytes

    @property
    def pid(self) -> int:
        """beanstalkd's process id."""
        found = _PID.search(self.text)
        return int(found[1]) if found else 0


class Answer(NamedTuple):
    """What a probe showed. `trouble` says why it proves nothing; "" if the log took the probe."""

    before: Stats
    after: Stats
    trouble: str

    @property
    def log_is_on(self) -> bool:
        """Whether the log was on at the first stats, if there is no trouble."""
        return self.after.written > self.before.written


class ProbeConnection:
    """A connection to beanstalkd, with a probe of its own, for one thread. Raises OSError once it is broken."""

    def __init__(self, address: str | tuple[str, int]) -> None:
        self._probe = b""
        if isinstance(address, str):
            plain = socket.socket(socket.AF_UNIX)
            plain.settimeout(TIMEOUT)
            try:
                plain.connect(address)
            except BaseException:
                plain.close()
                raise
        else:
            plain = socket.create_connection(address, TIMEOUT)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = LimitedSocket(plain)
        self._replies: io.BufferedReader = self._sock.makefile("rb")

    def stats(self) -> Stats:
        """beanstalkd's statistics."""
        self._send(b"stats\r\n")
        return self._stats()

    def delete_probes(self, but: frozenset[bytes]) -> None:
        """Deletes the probes that an earlier syncer, or a broken connection, left behind; `but` are in use."""
        self._send(b"use %b\r\n" % TUBE)
        self._line()
        for state in (b"delayed", b"ready", b"buried"):
            while found := self._peek(state):
                if found in but:
                    break
                self._send(b"delete %b\r\n" % found)
                if not self._line().startswith(b"DELETED"):
                    break

    def put_probe(self) -> bytes:
        """Puts a new probe, and returns its id; b"" if beanstalkd takes none, as its disk is full or it drains."""
        self._send(b"use %b\r\nput 9 %d 60 0\r\n\r\n" % (TUBE, _DELAY))
        self._line()
        word, _, number = self._line().rstrip().partition(b" ")
        self._probe = number if word == b"INSERTED" else b""
        return self._probe

    def ask(self) -> Answer:
        """Sends the packet. After trouble it needs a new probe."""
        probe = self._probe
        self._send(b"stats\r\nreserve-job %b\r\nrelease %b 9 %d\r\nstats\r\n" % (probe, probe, _DELAY))
        before = self._stats()
        reserved = self._line().split()
        if reserved[:1] == [b"RESERVED"]:
            self._replies.read(int(reserved[2]) + 2)
        released = self._line().rstrip()
        trouble = "" if released == b"RELEASED" and reserved[1:2] == [probe] else released.decode("ascii", "replace")
        if trouble:
            self._probe = b""
        return Answer(before, self._stats(), trouble)

    @property
    def probe(self) -> bytes:
        """The id of the probe; b"" if there is none."""
        return self._probe

    def close(self) -> None:
        """Closes the connection."""
        self._replies.close()
        self._sock.close()

    def _peek(self, state: bytes) -> bytes:
        self._send(b"peek-%b\r\n" % state)
        found = self._line().split()
        if found[:1] != [b"FOUND"]:
            return b""
        self._replies.read(int(found[2]) + 2)
        return found[1]

    def _send(self, packet: bytes) -> None:
        self._sock.limit(TIMEOUT)
        self._sock.sendall(packet)

    def _line(self) -> bytes:
        line = self._replies.readline(256)
        if not line.endswith(b"\n"):
            raise ConnectionError("beanstalkd closed the connection")
        return line

    def _stats(self) -> Stats:
        head = self._line().split()
        if head[:1] != [b"OK"]:
            raise ConnectionError("beanstalkd does not answer to stats")
        text = self._replies.read(int(head[1]) + 2)
        found = _STATS.search(text)
        if found is None:
            raise ConnectionError("beanstalkd's stats lack its files")
        return Stats(int(found[1]), int(found[2]), int(found[3]), found[4].decode(), text)
