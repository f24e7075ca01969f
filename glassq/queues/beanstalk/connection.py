"""One connection to beanstalkd, through greenstalk.

greenstalk has no timeouts, does not check names and numbers (with a bad one, the server executes the body as commands),
and gets out of step with the server when a reply is cut off. So here every call has a timeout, every argument is
checked, and a connection that failed in any way is closed and never used again.
Protocol: https://github.com/beanstalkd/beanstalkd/blob/master/doc/protocol.txt
"""

from __future__ import annotations

import math
import os
import socket
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar, cast

import greenstalk

from glassq.errors import JobNotFound, JobTooBig, NotDurable, QueueError, QueueRefused, QueueUnavailable
from glassq.queues.beanstalk.limited import LimitedSocket
from glassq.queues.beanstalk.protocol import (
    DRAINING,
    JobBody,
    JobStats,
    ServerStats,
    TubeStats,
)
from glassq.values import QueueUrl, Tube

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from glassq.queues.base import State, WaitingState

T = TypeVar("T")

_PRIORITY = 1 << 16
_UINT32 = (1 << 32) - 1
_UINT64 = (1 << 64) - 1
# The reply to a reserve may come this much later than the reserve's own timeout, in seconds.
_RESERVE_SLACK = 5.0
# The tube of probes, which nobody watches. The delay, in seconds, is a second line of defence.
_PROBE_TUBE = "glassq.probe"
_PROBE_DELAY = 3600
IN_MEMORY_ONLY = "beanstalkd keeps jobs in memory only: its binlog failed; mend the disk and restart it"
WITHOUT_BINLOG = "beanstalkd writes nothing to disk: start it with -b DIRECTORY -f0"


class _Client(greenstalk.Client[bytes]):
    """Reads replies of any bytes: greenstalk expects ASCII, but the host's name in a reply may be anything."""

    def facts(self, command: bytes) -> dict[str, str]:
        """The reply of a stats command. The first of two equal keys counts: a host's name may contain line ends."""
        found: dict[str, str] = {}
        for line in self._lines(command):
            key, separator, value = line.partition(": ")
            if separator:
                found.setdefault(key, _unquoted(value))
        return found

    def names(self, command: bytes) -> list[str]:
        """The reply of a list command."""
        return [_unquoted(line.removeprefix("- ")) for line in self._lines(command) if line]

    def _lines(self, command: bytes) -> list[str]:
        head, *lines = self._read_chunk(self._int_cmd(command, b"OK")).decode("utf-8", "backslashreplace").split("\n")
        if head != "---":
            raise ValueError("expected a YAML document")
        return lines


# The second one comes if a lease of ours ends in less than a second, so that we can extend it.
_NOTHING_COMES = (greenstalk.TimedOutError, greenstalk.DeadlineSoonError)
_REFUSED = (greenstalk.DrainingError, greenstalk.OutOfMemoryError, greenstalk.InternalError)
_REFUSALS: dict[type[greenstalk.BeanstalkdError], str] = {
    greenstalk.DrainingError: DRAINING,
    greenstalk.OutOfMemoryError: "beanstalkd is out of memory, or its disk is full",
    greenstalk.InternalError: "beanstalkd has an internal error; its disk may be full",
}
_PEEKS: dict[WaitingState, Callable[[_Client], greenstalk.Job[bytes]]] = {
    "ready": _Client.peek_ready,
    "delayed": _Client.peek_delayed,
    "buried": _Client.peek_buried,
}
# The errors by which greenstalk shows a broken connection, or a cut or garbled reply.
_BROKEN = (OSError, AssertionError, ValueError, KeyError, greenstalk.UnknownResponseError)


class BeanstalkConnection:
    """One connection to beanstalkd, for one thread of one process. Each method is a command of the protocol.

    Every call may raise QueueUnavailable; the next call connects again. After that error our reservations are lost, and
    nobody knows whether a put took effect.
    """

    def __init__(
        self, url: str, tube: str, *, ttr: int, connect_timeout: float, timeout: float, require_durable: bool = False
    ) -> None:
        """`ttr`, `connect_timeout` and `timeout` are in seconds.

        A call takes at most `timeout`, and `connect_timeout` more if it has to connect.
        """
        self._address = QueueUrl(url).address
        self.tube = _checked_tube(tube)
        self._ttr = _checked_int("ttr", ttr, 1)
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._require_durable = require_durable
        self._deadline = math.inf
        self._sock: LimitedSocket | None = None
        self._client: _Client | None = None
        self._using = ""
        self._watching: set[str] = set()
        # ids of jobs reserved on this connection; on the next one the same id may be another job's
        self._held: set[int] = set()

    def set_deadline(self, deadline: float) -> None:
        """From now on a call that is not done at `deadline` (time.monotonic()) raises QueueUnavailable."""
        self._deadline = deadline

    def connect(self) -> None:
        """Connects now, not at the first command. Raises QueueError."""
        self._call(lambda client: None)

    def put(self, body: bytes, *, delay: int = 0, tube: str | None = None) -> int:
        """Puts a job and returns its id. `delay` is in whole seconds.

        Raises JobTooBig, or QueueRefused if the job would not be durable.
        """
        tube = _checked_tube(tube or self.tube)
        delay = _checked_int("delay", delay, 0)

        def command(client: _Client) -> int:
            self._use(client, tube)
            return client.put(body, _PRIORITY, delay, self._ttr)

        return self._call(command)

    def reserve(self, timeout: int, tubes: Sequence[str] = ()) -> JobBody | None:
        """Reserves the oldest ready job of these tubes (none: of `tube`), for its ttr.

        None if there is no job for `timeout` whole seconds.
        """
        timeout = _checked_int("timeout", timeout, 0)
        wanted = {_checked_tube(name) for name in tubes} or {self.tube}

        def command(client: _Client) -> greenstalk.Job[bytes]:
            self._watch(client, wanted)
            return client.reserve(timeout)

        try:
            job = self._call(command, wait=timeout + _RESERVE_SLACK)
        except _NOTHING_COMES:
            return None
        self._held.add(job.id)
        return JobBody(job.id, job.body)

    def reserve_job(self, job_id: int) -> JobBody:
        """Reserves this job, whether it is ready, delayed or buried. Raises JobNotFound."""
        _check_id(job_id)
        job = self._call(lambda client: client.reserve_job(job_id))
        self._held.add(job.id)
        return JobBody(job.id, job.body)

    def touch(self, job_id: int) -> None:
        """Extends the lease of a job that we have reserved. Raises JobNotFound if it is no longer ours."""
        self.check_held(job_id)
        self._call(lambda client: client.touch(_handle(job_id)))

    def release(self, job_id: int, *, delay: int = 0) -> None:
        """Releases a reserved job, ready after `delay` seconds. Raises JobNotFound."""
        delay = _checked_int("delay", delay, 0)
        self.check_held(job_id)
        self._call(lambda client: client.release(_handle(job_id), _PRIORITY, delay))
        self._held.discard(job_id)

    def bury(self, job_id: int) -> None:
        """Buries a reserved job until an operator decides. Raises JobNotFound."""
        self.check_held(job_id)
        self._call(lambda client: client.bury(_handle(job_id), _PRIORITY))
        self._held.discard(job_id)

    def delete(self, job_id: int, *, held: bool = False) -> None:
        """Deletes a job that is ready, delayed, buried, or reserved by us. Raises JobNotFound.

        With `held` it must be reserved on this connection: after a reconnect the same id may be another job's.
        """
        _check_id(job_id)
        if held:
            self.check_held(job_id)
        self._call(lambda client: client.delete(job_id))
        self._held.discard(job_id)

    def kick(self, job_id: int) -> None:
        """Makes a buried or delayed job ready. Raises JobNotFound."""
        _check_id(job_id)
        self._call(lambda client: client.kick_job(job_id))

    def peek(self, job_id: int) -> JobBody:
        """A job's body. Changes nothing. Raises JobNotFound."""
        _check_id(job_id)
        job = self._call(lambda client: client.peek(job_id))
        return JobBody(job.id, job.body)

    def stats_job(self, job_id: int) -> JobStats:
        """A job's state and counters. Raises JobNotFound."""
        _check_id(job_id)
        return self._call(lambda client: _job_stats(client.facts(b"stats-job %d" % job_id)))

    def peek_first(self, state: WaitingState, tube: str | None = None) -> JobBody | None:
        """The tube's first job in this state: the oldest ready, the next delayed, or the first buried one.

        None if there is none. Changes nothing.
        """
        name = _checked_tube(tube or self.tube)

        def command(client: _Client) -> greenstalk.Job[bytes]:
            self._use(client, name)
            return _PEEKS[state](client)

        try:
            job = self._call(command)
        except JobNotFound:
            return None
        return JobBody(job.id, job.body)

    def pause(self, seconds: int, tube: str | None = None) -> bool:
        """Pauses the tube for this number of whole seconds; 0 ends the pause. False if the tube does not exist now.

        The server forgets the pause when it restarts, and when the tube ends, without jobs and watchers.
        """
        name = _checked_tube(tube or self.tube)
        seconds = _checked_int("seconds", seconds, 0)
        try:
            self._call(lambda client: client.pause_tube(name, seconds))
        except JobNotFound:
            return False
        return True

    def stats_tube(self, tube: str | None = None) -> TubeStats:
        """A tube's counts; all are 0 if the tube does not exist now."""
        name = _checked_tube(tube or self.tube)
        try:
            return self._call(lambda client: _tube_stats(name, client.facts(b"stats-tube %b" % name.encode())))
        except JobNotFound:
            return TubeStats(name, ready=0, reserved=0, delayed=0, buried=0, waiting=0, paused_for=0)

    def stats(self) -> ServerStats:
        """The statistics of the server."""
        return self._call(lambda client: _server_stats(client.facts(b"stats")))

    def tubes(self) -> list[str]:
        """The names of all tubes that exist."""
        return self._call(lambda client: [name for name in client.names(b"list-tubes") if _is_tube(name)])

    def probe_durability(self) -> JobStats:
        """Puts an empty job into a tube that nobody watches, and deletes it again; returns its statistics.

        Raises QueueRefused like `put`.
        """
        # A probe that is answered BURIED is not deleted: beanstalkd has it in two lists, and would free it in only one.
        probe = self.put(b"", delay=_PROBE_DELAY, tube=_PROBE_TUBE)
        found = self.stats_job(probe)
        self.delete(probe)
        return found

    def max_job_id(self) -> int:
        """The highest job id so far. Raises QueueRefused like `put`."""
        # no command of the protocol tells it
        return self.probe_durability().id - 1

    def close(self) -> None:
        """Closes the connection. Jobs that we have reserved become ready at once."""
        client, sock, self._client, self._sock, self._using = self._client, self._sock, None, None, ""
        self._held.clear()
        if client is not None:
            with suppress(OSError):
                client.close()
        # not sock.close(): if connecting failed half-way, greenstalk's reader would keep the descriptor open
        if sock is not None and (descriptor := sock.detach()) >= 0:
            os.close(descriptor)

    def close_inherited(self) -> None:
        """Call in a forked child: closes its copy of the socket, so that the parent's reservations end with it."""
        # not close(): a thread of the parent may have had the reader's lock at the fork, and does not exist here
        if self._sock is not None and (descriptor := self._sock.detach()) >= 0:
            os.close(descriptor)

    def check_held(self, job_id: int) -> None:
        """Raises JobNotFound unless the job was reserved on this connection."""
        _check_id(job_id)
        if job_id not in self._held:
            raise JobNotFound("not reserved on this connection")

    def _call(self, command: Callable[[_Client], T], *, wait: float = 0.0) -> T:
        """Runs one command. Its reply may take `wait` seconds longer than usual."""
        seconds = self._timeout + wait
        try:
            if self._client is None:
                # the commands of connecting have one limit together with the command itself
                client = self._connect(seconds)
            else:
                client = self._client
                self._limit(seconds)
            return command(client)
        except _NOTHING_COMES:
            raise
        except greenstalk.NotFoundError:
            raise JobNotFound("no such job, or not ours") from None
        except greenstalk.JobTooBigError:
            raise JobTooBig("the job is larger than beanstalkd takes (its option -z)") from None
        except _REFUSED as error:
            raise QueueRefused(_REFUSALS[type(error)]) from None
        except greenstalk.BuriedError:
            raise NotDurable("beanstalkd kept the job in memory only: its binlog failed") from None
        except _BROKEN as error:
            self.close()
            raise QueueUnavailable(f"beanstalkd at {self._where()}: {_words(error)}") from error
        except greenstalk.BeanstalkdError as error:
            self.close()
            raise QueueError(f"beanstalkd answered {type(error).__name__}") from error
        except BaseException:
            # The reply may still come, so this connection is out of step.
            self.close()
            raise

    def _use(self, client: _Client, tube: str) -> None:
        if self._using != tube:
            client.use(tube)
            self._using = tube

    def _watch(self, client: _Client, wanted: set[str]) -> None:
        # the new ones first: a connection must watch at least one tube
        for name in wanted - self._watching:
            client.watch(name)
            self._watching.add(name)
        for name in self._watching - wanted:
            client.ignore(name)
            self._watching.discard(name)

    def _connect(self, seconds: float) -> _Client:
        self._sock = LimitedSocket(self._reach())
        try:
            self._limit(seconds)
            client = _Client(self._sock, encoding=None, use=self.tube, watch=self.tube)
            self._client, self._using, self._watching = client, self.tube, {self.tube}
            if self._require_durable and int(client.facts(b"stats")["binlog-current-index"]) == 0:
                raise NotDurable(WITHOUT_BINLOG)
        except BaseException:
            # a connection that is half set up is not used
            self.close()
            raise
        return client

    def _reach(self) -> socket.socket:
        seconds = min(self._connect_timeout, self._left())
        if isinstance(self._address, str):
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with _closed_on_error(plain):
                plain.settimeout(seconds)
                plain.connect(self._address)
        else:
            plain = socket.create_connection(self._address, seconds)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return plain

    def _limit(self, seconds: float) -> None:
        assert self._sock is not None
        self._sock.limit(min(seconds, self._left()))

    def _left(self) -> float:
        """Seconds until the deadline of `set_deadline`, more than 0. Raises TimeoutError after it."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _where(self) -> str:
        if isinstance(self._address, str):
            return self._address
        host, port = self._address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _handle(job_id: int) -> greenstalk.Job[bytes]:
    """greenstalk needs its own job object for some commands, but uses only its id."""
    return greenstalk.Job(job_id, b"")


def _job_stats(found: Mapping[str, str]) -> JobStats:
    return JobStats(
        id=int(found["id"]),
        tube=found["tube"],
        state=cast("State", found["state"]),
        age=int(found["age"]),
        delay=int(found["delay"]),
        ttr=int(found["ttr"]),
        time_left=int(found["time-left"]),
        file=int(found["file"]),
        reserves=int(found["reserves"]),
        timeouts=int(found["timeouts"]),
        releases=int(found["releases"]),
        buries=int(found["buries"]),
        kicks=int(found["kicks"]),
    )


def _tube_stats(name: str, found: Mapping[str, str]) -> TubeStats:
    return TubeStats(
        name,
        ready=int(found["current-jobs-ready"]),
        reserved=int(found["current-jobs-reserved"]),
        delayed=int(found["current-jobs-delayed"]),
        buried=int(found["current-jobs-buried"]),
        waiting=int(found["current-waiting"]),
        paused_for=int(found["pause-time-left"]),
    )


def _server_stats(found: Mapping[str, str]) -> ServerStats:
    # The files are numbered from 1. Without -b there is no binlog.
    newest = int(found["binlog-current-index"])
    return ServerStats(
        id=found["id"],
        version=found["version"],
        durable=newest > 0,
        draining=found["draining"] == "true",
        connections=int(found["current-connections"]),
        uptime=int(found["uptime"]),
        puts=int(found["cmd-put"]),
        records=int(found["binlog-records-written"]),
        files=newest - int(found["binlog-oldest-index"]) + 1 if newest else 0,
        newest_file=newest,
        pid=int(found["pid"]),
        reserved=int(found["current-jobs-reserved"]),
        workers=int(found["current-workers"]),
        max_job=int(found["max-job-size"]),
        jobs=int(found["total-jobs"]),
    )


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _is_tube(name: str) -> bool:
    """Whether we can ask about it: other servers may have tubes with names that the protocol does not allow."""
    try:
        return bool(Tube(name))
    except ValueError:
        return False


def _checked_tube(name: str) -> str:
    try:
        return Tube(name)
    except ValueError as error:
        raise QueueError(f"bad tube name {name!r}: {error}") from None


def whole_seconds(seconds: float) -> int:
    """Rounds up, because beanstalkd takes whole seconds. Raises QueueError for infinity and NaN."""
    if not math.isfinite(seconds):
        raise QueueError(f"bad number of seconds {seconds!r}: expected a finite one")
    return math.ceil(seconds)


def _checked_int(name: str, value: int, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _UINT32:
        raise QueueError(f"bad {name} {value!r}: expected a whole number of seconds from {least} to {_UINT32}")
    return value


def _check_id(job_id: int) -> None:
    if not isinstance(job_id, int) or isinstance(job_id, bool) or not 0 <= job_id <= _UINT64:
        raise QueueError(f"bad job id {job_id!r}: expected a whole number from 0 to {_UINT64}")


@contextmanager
def _closed_on_error(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError | BlockingIOError):
        return "no answer in time"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return "the connection broke inside a reply (is that beanstalkd?)"
