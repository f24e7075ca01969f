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
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar, cast

import greenstalk

from glassq.errors import JobNotFound, NotDurable, QueueError, QueueUnavailable
from glassq.queues.beanstalk import commands
from glassq.queues.beanstalk.client import BROKEN, NOTHING_COMES, BeanstalkClient, refusal_of
from glassq.queues.beanstalk.commands import PRIORITY, checked_id, checked_int, checked_tube
from glassq.queues.beanstalk.limited import LimitedSocket
from glassq.queues.beanstalk.packet import Packet, Unanswered
from glassq.queues.beanstalk.process import WITHOUT_SYNCER, only_sometimes, sync_interval
from glassq.queues.beanstalk.protocol import PROBE_TUBE, JobBody, JobStats, TubeStats
from glassq.queues.beanstalk.reaching import place, reach, words
from glassq.values import QueueUrl, Tube

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.queues.base import WaitingState
    from glassq.queues.beanstalk.commands import Command
    from glassq.queues.beanstalk.protocol import ServerStats

T = TypeVar("T")

# The reply to a reserve may come this much later than the reserve's own timeout, in seconds.
_RESERVE_SLACK = 5.0
# Nobody watches the tube of probes. The delay, in seconds, is a second line of defence.
_PROBE_DELAY = 3600
IN_MEMORY_ONLY = "beanstalkd keeps jobs in memory only: its binlog failed; mend the disk and restart it"
WITHOUT_BINLOG = "beanstalkd writes nothing to disk: start it with -b DIRECTORY -f0"
_PEEKS: dict[WaitingState, Callable[[BeanstalkClient], greenstalk.Job[bytes]]] = {
    "ready": BeanstalkClient.peek_ready,
    "delayed": BeanstalkClient.peek_delayed,
    "buried": BeanstalkClient.peek_buried,
}


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
        self.url = QueueUrl(url)
        self._address = self.url.address
        self.tube = checked_tube(tube)
        #: the lease of the jobs that we put, in whole seconds
        self.ttr = checked_int("ttr", ttr, 1)
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._require_durable = require_durable
        #: which connection this is: the next one has another number, and none of our reservations
        self.number = 0
        self._deadline = math.inf
        self._sock: LimitedSocket | None = None
        self._client: BeanstalkClient | None = None
        self._using = self._server = ""
        # how often the server syncs; 0 also where that cannot be seen, None if nobody has looked
        self._interval: int | None = None
        self._watching = {self.tube}
        # ids of jobs reserved on this connection; on the next one the same id may be another job's
        self._held: set[int] = set()
        # commands that were sent, and whose replies come before any other: each with who is told of an error
        self._unread: deque[tuple[Command[None], Callable[[QueueError], None]]] = deque()
        # whether a reserve waits, whether none shall wait any more, and whether we can only read
        self._waits = self._interrupted = self._half_closed = False
        # guards them; a signal handler may interrupt the thread that has it
        self._interrupting = threading.RLock()

    def set_deadline(self, deadline: float) -> None:
        """From now on a call that is not done at `deadline` (time.monotonic()) raises QueueUnavailable."""
        self._deadline = deadline

    def connect(self) -> None:
        """Connects now, not at the first command. Raises QueueError."""
        self._call(lambda client: None)

    def test(self) -> None:
        """Asks one cheap question. Raises QueueUnavailable if the connection broke."""
        self.stats_tube()

    def server_id(self) -> str:
        """The `id` of the server that this connection leads to, new at each of its starts."""
        # One connection leads to one process for as long as it lasts, so the server is asked once.
        if self._client is None or not self._server:
            self._server = self.stats().id
        return self._server

    def check_interval(self) -> None:
        """Raises NotDurable if the server's answers prove nothing, as it is seen to sync only at an interval."""
        # One connection leads to one process for as long as it lasts, so this looks once.
        if self._client is None or self._interval is None:
            stats = self.stats()
            self._server, self._interval = stats.id, sync_interval(stats, self.url) or 0
        if self._interval:
            raise NotDurable(f"{only_sometimes(self._interval)}: {WITHOUT_SYNCER}")

    def pipeline(
        self, commands: Sequence[Command[T]], meanwhile: Callable[[], None] | None = None
    ) -> list[T | QueueError]:
        """Sends all commands before it reads their replies; a result for each, in order. Never raises QueueError.

        A command that fails does not hold up the next ones. After the connection broke, the result is Unanswered.
        `meanwhile` is called while the server works on the first of them.
        """
        packet = Packet(commands, meanwhile)
        try:
            while packet.begun < len(commands):
                self._call(lambda client: self._exchange(client, packet), unread=True)
        except QueueError as error:
            for number in range(len(packet.results), len(commands)):
                sent = number < packet.begun
                broken = sent or isinstance(error, QueueUnavailable)
                packet.results.append(Unanswered(str(error), sent=sent) if broken else error)
        return packet.results

    def put(self, body: bytes, *, delay: int = 0, tube: str | None = None) -> int:
        """Puts a job and returns its id. `delay` is in whole seconds.

        Raises JobTooBig, or QueueRefused if the job would not be durable.
        """
        tube = checked_tube(tube or self.tube)
        delay = checked_int("delay", delay, 0)

        def command(client: BeanstalkClient) -> int:
            self._use(client, tube)
            return client.put(body, PRIORITY, delay, self.ttr)

        return self._call(command)

    def put_and_reserve(
        self, puts: Sequence[tuple[bytes, str]], releases: Sequence[int], tubes: Sequence[str], most: int
    ) -> tuple[list[int | QueueError], list[JobBody]]:
        """In one packet: puts bodies into tubes, releases jobs, and reserves `most` ready jobs of `tubes`.

        Returns the id, or the error, of each put, and the jobs that were reserved. Does not wait for jobs.
        """
        packet: list[Command[object]] = [commands.put(body, tube=tube, ttr=self.ttr) for body, tube in puts]
        packet += map(commands.release, releases)
        answers, jobs = self._reserving(packet, tubes, most)
        return [answer for answer in answers[: len(puts)] if isinstance(answer, int | QueueError)], jobs

    def reserve(self, timeout: int, tubes: Sequence[str] = ()) -> JobBody | None:
        """Reserves the oldest ready job of these tubes (none: of `tube`), for its ttr.

        None if there is no job for `timeout` whole seconds, or after `interrupt`.
        """
        timeout = checked_int("timeout", timeout, 0)
        wanted = {checked_tube(name) for name in tubes} or {self.tube}

        def command(client: BeanstalkClient) -> JobBody | None:
            # in one packet, as a consumer may watch other tubes each time
            changes, reserve = self._changes(wanted), commands.reserve(timeout)
            client.send(b"".join([*(change.text for change in changes), reserve.text]))
            for change in changes:
                if isinstance(refused := self._reply(client, change), QueueError):
                    # closes the connection: it would reserve from any tube
                    raise refused
            self._watching = wanted
            return reserve.read(client, client.expect(reserve.expects))

        # before the look at _interrupted: a signal may come in between
        self._waits = True
        try:
            if self._interrupted:
                timeout = 0
            job = self._call(command, wait=timeout + _RESERVE_SLACK)
        except NOTHING_COMES:
            return None
        finally:
            with self._interrupting:
                self._waits, half_closed, self._half_closed = False, self._half_closed, False
            if half_closed:
                self.close()
        if self._client is None or job is None:
            # with the connection the job went back
            return None
        self._held.add(job.id)
        return job

    def interrupt(self) -> None:
        """Ends a `reserve` that waits, and lets no later one wait. For a signal handler, and for another thread.

        beanstalkd answers a waiting client that closes its half of the connection with TIMED_OUT (prot.c, STATE_WAIT).
        A job that came at that moment goes back with the connection.
        """
        self._interrupted = True
        with self._interrupting:
            sock = self._sock
            if self._waits and sock is not None:
                self._half_closed = True
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)

    def reserve_job(self, job_id: int) -> JobBody:
        """Reserves this job, whether it is ready, delayed or buried. Raises JobNotFound."""
        checked_id(job_id)
        job = self._call(lambda client: client.reserve_job(job_id))
        self._held.add(job.id)
        return JobBody(job.id, job.body)

    def touch(self, job_id: int) -> int:
        """Extends the lease of a job that we have reserved; returns it. Raises JobNotFound if it is not ours now."""
        self.check_held(job_id)
        packet: list[Command[object]] = [commands.touch(job_id), commands.stats_job(job_id)]
        touched, stats = self.pipeline(packet)
        for answer in (touched, stats):
            if isinstance(answer, QueueError):
                raise answer
        assert isinstance(stats, JobStats)
        return stats.ttr

    def delete_and_reserve(
        self,
        job_ids: Sequence[int],
        tubes: Sequence[str],
        most: int = 1,
        meanwhile: Callable[[], None] | None = None,
    ) -> tuple[list[QueueError | None], list[JobBody]]:
        """Deletes jobs and reserves the `most` oldest ready ones of these tubes, in one packet, without waiting.

        Returns the error of each delete, or None, and the jobs that were reserved (without tubes: none). A connection
        that broke between two replies is found out by the next call. `meanwhile` is called while the server works.
        """
        packet: list[Command[object]] = [commands.delete(job_id) for job_id in job_ids]
        answers, jobs = self._reserving(packet, tubes, most if tubes else 0, meanwhile)
        return [answer if isinstance(answer, QueueError) else None for answer in answers], jobs

    def release(self, job_id: int, *, delay: int = 0) -> None:
        """Releases a reserved job, ready after `delay` seconds. Raises JobNotFound."""
        delay = checked_int("delay", delay, 0)
        self.check_held(job_id)
        self._call(lambda client: client.release(_handle(job_id), PRIORITY, delay))
        self._held.discard(job_id)

    def bury(self, job_id: int) -> None:
        """Buries a reserved job until an operator decides. Raises JobNotFound."""
        self.check_held(job_id)
        self._call(lambda client: client.bury(_handle(job_id), PRIORITY))
        self._held.discard(job_id)

    def delete(self, job_id: int, *, held: bool = False) -> None:
        """Deletes a job that is ready, delayed, buried, or reserved by us. Raises JobNotFound.

        With `held` it must be reserved on this connection: after a reconnect the same id may be another job's.
        """
        checked_id(job_id)
        if held:
            self.check_held(job_id)
        self._call(lambda client: client.delete(job_id))
        self._held.discard(job_id)

    def begin_delete(self, job_id: int, failed: Callable[[QueueError], None]) -> None:
        """Deletes a job that we have reserved, without waiting for the reply: the next call reads it.

        It may go with the next command, or with the end of the connection: each one alone would wake the server, which
        takes the processor from us. `failed` is told if the job was not ours any more, or if the connection ends before
        the reply.
        """
        self.check_held(job_id)
        command = commands.delete(job_id)
        self._call(lambda client: client.send(command.text, more=True), unread=True)
        self._unread.append((command, failed))
        self._held.discard(job_id)

    def end_deletes(self) -> None:
        """Reads the replies to all deletes that were begun. Raises nothing: who began them is told."""
        if self._unread:
            with suppress(QueueError):
                self._call(lambda client: None)

    @property
    def begun_deletes(self) -> int:
        """How many deletes were begun whose replies are not read."""
        return len(self._unread)

    def kick(self, job_id: int) -> None:
        """Makes a buried or delayed job ready. Raises JobNotFound."""
        checked_id(job_id)
        self._call(lambda client: client.kick_job(job_id))

    def peek(self, job_id: int) -> JobBody:
        """A job's body. Changes nothing. Raises JobNotFound."""
        checked_id(job_id)
        job = self._call(lambda client: client.peek(job_id))
        return JobBody(job.id, job.body)

    def stats_job(self, job_id: int) -> JobStats:
        """A job's state and counters. Raises JobNotFound."""
        checked_id(job_id)
        return self._call(lambda client: client.job_stats(job_id))

    def peek_first(self, state: WaitingState, tube: str | None = None) -> JobBody | None:
        """The tube's first job in this state: the oldest ready, the next delayed, or the first buried one.

        None if there is none. Changes nothing.
        """
        name = checked_tube(tube or self.tube)

        def command(client: BeanstalkClient) -> greenstalk.Job[bytes]:
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
        name = checked_tube(tube or self.tube)
        seconds = checked_int("seconds", seconds, 0)
        try:
            self._call(lambda client: client.pause_tube(name, seconds))
        except JobNotFound:
            return False
        return True

    def stats_tube(self, tube: str | None = None) -> TubeStats:
        """A tube's counts; all are 0 if the tube does not exist now."""
        name = checked_tube(tube or self.tube)
        try:
            return self._call(lambda client: client.tube_stats(name))
        except JobNotFound:
            return TubeStats(name, ready=0, reserved=0, delayed=0, buried=0, waiting=0, paused_for=0)

    def stats(self) -> ServerStats:
        """The statistics of the server."""
        return self._call(BeanstalkClient.server_stats)

    def tubes(self) -> list[str]:
        """The names of all tubes that exist."""
        return self._call(lambda client: [name for name in client.tube_names() if _is_tube(name)])

    def probe_durability(self) -> JobStats:
        """Puts an empty job into a tube that nobody watches, and deletes it again; returns its statistics.

        Raises QueueRefused like `put`.
        """
        # A probe that is answered BURIED is not deleted: beanstalkd has it in two lists, and would free it in only one.
        probe = self.put(b"", delay=_PROBE_DELAY, tube=PROBE_TUBE)
        found = self.stats_job(probe)
        self.delete(probe)
        return found

    def max_job_id(self) -> int:
        """The highest job id so far. Raises QueueRefused like `put`."""
        # no command of the protocol tells it
        return self.probe_durability().id - 1

    def close(self) -> None:
        """Closes the connection. Jobs that we have reserved become ready at once."""
        client, sock, self._client, self._sock = self._client, self._sock, None, None
        self._using = self._server = ""
        self._interval = None
        # as a new connection does
        self._watching = {self.tube}
        self.number += 1
        self._held.clear()
        unread, self._unread = self._unread, deque()
        if client is not None:
            with suppress(OSError):
                client.close()
        # not sock.close(): if connecting failed half-way, greenstalk's reader would keep the descriptor open
        if sock is not None and (descriptor := sock.detach()) >= 0:
            os.close(descriptor)
        for _, failed in unread:
            failed(QueueUnavailable(f"beanstalkd at {place(self._address)}: the connection ended before its answer"))

    def close_inherited(self) -> None:
        """Call in a forked child: closes its copy of the socket, so that the parent's reservations end with it."""
        # not close(): a thread of the parent may have had the reader's lock at the fork, and does not exist here
        if self._sock is not None and (descriptor := self._sock.detach()) >= 0:
            os.close(descriptor)

    def holds(self, job_id: int) -> bool:
        """Whether the job was reserved on this connection, and has not been settled."""
        return job_id in self._held

    def check_held(self, job_id: int) -> None:
        """Raises JobNotFound unless the job was reserved on this connection."""
        checked_id(job_id)
        if job_id not in self._held:
            raise JobNotFound("not reserved on this connection")

    def _call(self, command: Callable[[BeanstalkClient], T], *, wait: float = 0.0, unread: bool = False) -> T:
        """Runs one command. Its reply may take `wait` seconds longer than usual.

        With `unread` the command copes with replies that are not read yet.
        """
        seconds = self._timeout + wait
        try:
            if self._client is None:
                # the commands of connecting have one limit together with the command itself
                client = self._connect(seconds)
            else:
                client = self._client
                self._limit(seconds)
            if self._unread and not unread:
                self._read_unread(client)
            return command(client)
        except NOTHING_COMES:
            raise
        except BROKEN as error:
            self.close()
            raise QueueUnavailable(f"beanstalkd at {place(self._address)}: {words(error)}") from error
        except greenstalk.BeanstalkdError as error:
            if refusal := refusal_of(error):
                raise refusal from None
            self.close()
            raise QueueError(f"beanstalkd answered {type(error).__name__}") from error
        except BaseException:
            # The reply may still come, so this connection is out of step.
            self.close()
            raise

    def _exchange(self, client: BeanstalkClient, packet: Packet[T]) -> None:
        """Sends the packet's next window, and reads the replies."""
        window = packet.next_window()
        using, lines = self._using, []
        for command in window:
            if command.tube not in ("", using):
                using = command.tube
                lines.append(b"use %b\r\n" % using.encode())
            lines.append(command.text)
        client.send(b"".join(lines))
        packet.sent()
        self._read_unread(client)
        for command in window:
            if command.tube not in ("", self._using):
                client.expect(b"USING")
                self._using = command.tube
            reply: T | QueueError = self._reply(client, command)
            packet.results.append(reply)

    def _read_unread(self, client: BeanstalkClient) -> None:
        if self._unread and self._sock is not None:
            self._sock.push()
        while self._unread:
            command, failed = self._unread[0]
            reply = self._reply(client, command)
            self._unread.popleft()
            if isinstance(reply, QueueError):
                failed(reply)

    def _reply(self, client: BeanstalkClient, command: Command[T]) -> T | QueueError:
        try:
            reply = command.read(client, client.expect(command.expects))
        except NOTHING_COMES:
            # so only a reserve is answered
            return cast("T", None)
        except greenstalk.BeanstalkdError as error:
            if (refusal := refusal_of(error)) is None:
                raise
            return refusal
        if command.holds and isinstance(reply, JobBody):
            self._held.add(reply.id)
        self._held.discard(command.frees)
        return reply

    def _use(self, client: BeanstalkClient, tube: str) -> None:
        if self._using != tube:
            client.use(tube)
            self._using = tube

    def _reserving(
        self,
        packet: Sequence[Command[object]],
        tubes: Sequence[str],
        most: int,
        meanwhile: Callable[[], None] | None = None,
    ) -> tuple[list[object], list[JobBody]]:
        """Sends a packet, and reserves at most so many ready jobs of these tubes with it; its answers, and the jobs."""
        wanted = {checked_tube(name) for name in tubes} if most else self._watching
        changes = self._changes(wanted)
        first, reserves = len(packet) + len(changes), [commands.reserve()] * most
        answers = self.pipeline([*packet, *changes, *reserves], meanwhile)
        jobs = [answer for answer in answers[first:] if isinstance(answer, JobBody)]
        if any(isinstance(answer, QueueError) for answer in answers[len(packet) : first]):
            # they may be of any tube, and go back
            self.close()
            jobs = []
        elif self._client is not None:
            self._watching = wanted
        return answers[: len(packet)], jobs

    def _changes(self, wanted: set[str]) -> list[Command[int]]:
        """The commands after which only these tubes are watched."""
        if wanted == self._watching:
            return []
        # the new ones first: a connection must watch at least one tube
        return [
            *(commands.watch(name) for name in wanted - self._watching),
            *(commands.ignore(name) for name in self._watching - wanted),
        ]

    def _connect(self, seconds: float) -> BeanstalkClient:
        self._sock = LimitedSocket(reach(self._address, min(self._connect_timeout, self._left())))
        try:
            self._limit(seconds)
            client = BeanstalkClient(self._sock, encoding=None, use=self.tube, watch=self.tube)
            self._client, self._using = client, self.tube
            if self._require_durable:
                stats = client.server_stats()
                self._server = stats.id
                if not stats.durable:
                    raise NotDurable(WITHOUT_BINLOG)
        except BaseException:
            # a connection that is half set up is not used
            self.close()
            raise
        return client

    def _limit(self, seconds: float) -> None:
        assert self._sock is not None
        self._sock.limit(seconds if self._deadline == math.inf else min(seconds, self._left()))

    def _left(self) -> float:
        """Seconds until the deadline of `set_deadline`, more than 0. Raises TimeoutError after it."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _handle(job_id: int) -> greenstalk.Job[bytes]:
    """greenstalk needs its own job object for some commands, but uses only its id."""
    return greenstalk.Job(job_id, b"")


def _is_tube(name: str) -> bool:
    """Whether we can ask about it: other servers may have tubes with names that the protocol does not allow."""
    try:
        return bool(Tube(name))
    except ValueError:
        return False


def whole_seconds(seconds: float) -> int:
    """Rounds up, because beanstalkd takes whole seconds. Raises QueueError for infinity and NaN."""
    if not math.isfinite(seconds):
        raise QueueError(f"bad number of seconds {seconds!r}: expected a finite one")
    return math.ceil(seconds)
