"""greenstalk's client as we use it: packets of commands, replies of any bytes, errors of ours.

Raises greenstalk's errors; `refusal_of` and `BROKEN` say what they mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import greenstalk

from glassq.errors import JobNotFound, JobTooBig, NotDurable, QueueRefused
from glassq.queues.beanstalk.limited import MORE
from glassq.queues.beanstalk.protocol import DRAINING, JobStats, ServerStats, TubeStats

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glassq.errors import QueueError
    from glassq.queues.base import State

# The answers of a reserve without a job. The second one comes if a lease of ours ends in less than a second, so that we
# can extend it.
NOTHING_COMES = (greenstalk.TimedOutError, greenstalk.DeadlineSoonError)
# The errors by which greenstalk shows a broken connection, or a cut or garbled reply.
BROKEN = (OSError, AssertionError, ValueError, KeyError, greenstalk.UnknownResponseError)
_REFUSALS: dict[type[greenstalk.BeanstalkdError], tuple[type[QueueError], str]] = {
    greenstalk.NotFoundError: (JobNotFound, "no such job, or not ours"),
    greenstalk.JobTooBigError: (JobTooBig, "the job is larger than beanstalkd takes (its option -z)"),
    greenstalk.DrainingError: (QueueRefused, DRAINING),
    greenstalk.OutOfMemoryError: (QueueRefused, "beanstalkd is out of memory, or its disk is full"),
    greenstalk.InternalError: (QueueRefused, "beanstalkd has an internal error; its disk may be full"),
    greenstalk.BuriedError: (NotDurable, "beanstalkd kept the job in memory only: its binlog failed"),
}


def refusal_of(error: greenstalk.BeanstalkdError) -> QueueError | None:
    """The error of ours for an answer after which the connection is still in step; None if it is not."""
    found = _REFUSALS.get(type(error))
    return found and found[0](found[1])


class BeanstalkClient(greenstalk.Client[bytes]):
    """Reads replies of any bytes: greenstalk expects ASCII, but the host's name in a reply may be anything."""

    def send(self, data: bytes, *, more: bool = False) -> None:
        """Sends commands whose replies are read later, in order. With `more` they may wait for the next ones."""
        self._sock.sendall(data, MORE if more else 0)

    def expect(self, word: bytes) -> list[bytes]:
        """Reads the first line of a reply; the values after this word."""
        return greenstalk._parse_response(self._reader.readline(), word)

    def chunk(self, size: int) -> bytes:
        """Reads so many bytes and the line's end after them."""
        return self._read_chunk(size)

    def peeked(self, size: int) -> bytes:
        """Reads the body of a job that was looked at. Raises NotFoundError if it was deleted meanwhile.

        beanstalkd (1.12) sends it from the job's own memory, which is free once another connection has deleted the job
        (`job_copy` keeps the pointer to the body); the bytes behind the body are overwritten then.
        """
        data: bytes = self._reader.read(size + 2)
        if len(data) == size + 2 and not data.endswith(b"\r\n"):
            raise greenstalk.NotFoundError([])
        return greenstalk._parse_chunk(data, size)

    def _peek_cmd(self, cmd: bytes) -> greenstalk.Job[bytes]:
        job_id, size = self._send_cmd(cmd, b"FOUND")
        return greenstalk.Job(int(job_id), self.peeked(int(size)))

    def job_stats(self, job_id: int) -> JobStats:
        """A job's state and counters."""
        self.send(b"stats-job %d\r\n" % job_id)
        return self.read_job_stats(self.expect(b"OK"))

    def tube_stats(self, tube: str) -> TubeStats:
        """A tube's counts."""
        self.send(b"stats-tube %b\r\n" % tube.encode())
        return _tube_stats(tube, self._facts(self.expect(b"OK")))

    def server_stats(self) -> ServerStats:
        """The statistics of the server."""
        self.send(b"stats\r\n")
        return _server_stats(self._facts(self.expect(b"OK")))

    def tube_names(self) -> list[str]:
        """The names of all tubes."""
        self.send(b"list-tubes\r\n")
        return [_unquoted(line.removeprefix("- ")) for line in self._document(self.expect(b"OK")) if line]

    def read_job_stats(self, values: list[bytes]) -> JobStats:
        """The rest of a reply to stats-job."""
        return _job_stats(self._facts(values))

    def _facts(self, values: list[bytes]) -> dict[str, str]:
        """The pairs of a document. The first of two equal keys counts: a host's name may contain line ends."""
        found: dict[str, str] = {}
        for line in self._document(values):
            key, separator, value = line.partition(": ")
            if separator:
                found.setdefault(key, _unquoted(value))
        return found

    def _document(self, values: list[bytes]) -> list[str]:
        (size,) = values
        head, *lines = self._read_chunk(int(size)).decode("utf-8", "backslashreplace").split("\n")
        if head != "---":
            raise ValueError("expected a YAML document")
        return lines


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
        using=int(found["current-using"]),
        total=int(found["total-jobs"]),
        deleted=int(found["cmd-delete"]),
        pause=int(found["pause"]),
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
