"""beanstalkd's commands as values, for packets of several (`BeanstalkConnection.pipeline`).

Each function checks its arguments: after a bad number the server executes the body as commands. All raise QueueError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from glassq.errors import QueueError
from glassq.queues.beanstalk.protocol import JobBody, JobStats
from glassq.values import Tube

if TYPE_CHECKING:
    from glassq.queues.beanstalk.client import BeanstalkClient

T_co = TypeVar("T_co", covariant=True)
# How a reply is read: its first line's values come in, and what the command is worth to its caller goes out.
Read = Callable[["BeanstalkClient", list[bytes]], T_co]

PRIORITY = 1 << 16
_UINT32 = (1 << 32) - 1
_UINT64 = (1 << 64) - 1


class Command(msgspec.Struct, Generic[T_co], frozen=True):
    """One command: its bytes with the line's end, the first word of a good reply, and how that reply is read.

    `tube` is the tube that must be used ("": any does). `frees` is the id of a job that it ends our reservation of, and
    `holds` says that it reserves the job in its reply.
    """

    text: bytes
    expects: bytes
    read: Read[T_co]
    tube: str = ""
    frees: int = -1
    holds: bool = False


def put(body: bytes, *, tube: str, ttr: int, delay: int = 0) -> Command[int]:
    """Puts a job; its id. `ttr` and `delay` are in whole seconds."""
    numbers = (PRIORITY, checked_int("delay", delay, 0), checked_int("ttr", ttr, 1), len(body))
    return Command(b"put %d %d %d %d\r\n%b\r\n" % (*numbers, body), b"INSERTED", _number, tube=checked_tube(tube))


def watch(tube: str) -> Command[int]:
    """Adds a tube to those that are watched; their number."""
    return Command(b"watch %b\r\n" % checked_tube(tube).encode(), b"WATCHING", _number)


def ignore(tube: str) -> Command[int]:
    """Takes a tube from those that are watched, which must not be the last one; their number."""
    return Command(b"ignore %b\r\n" % checked_tube(tube).encode(), b"WATCHING", _number)


def reserve(timeout: int = 0) -> Command[JobBody | None]:
    """Reserves the oldest ready job of the tubes that are watched; None if there is none for so many seconds."""
    return Command(b"reserve-with-timeout %d\r\n" % checked_int("timeout", timeout, 0), b"RESERVED", _job, holds=True)


def reserve_job(job_id: int) -> Command[JobBody]:
    """Reserves this job, whether it is ready, delayed or buried."""
    return Command(b"reserve-job %d\r\n" % checked_id(job_id), b"RESERVED", _job, holds=True)


def bury(job_id: int) -> Command[None]:
    """Buries a job that this connection has reserved, if need be by an earlier command of the same packet."""
    return Command(b"bury %d %d\r\n" % (checked_id(job_id), PRIORITY), b"BURIED", _nothing, frees=job_id)


def release(job_id: int) -> Command[None]:
    """Releases a job that this connection has reserved; it is ready at once."""
    return Command(b"release %d %d 0\r\n" % (checked_id(job_id), PRIORITY), b"RELEASED", _nothing, frees=job_id)


def touch(job_id: int) -> Command[None]:
    """Extends the lease of a job that this connection has reserved."""
    return Command(b"touch %d\r\n" % checked_id(job_id), b"TOUCHED", _nothing)


def delete(job_id: int) -> Command[None]:
    """Deletes a job that is ready, delayed, buried, or reserved by this connection."""
    return Command(b"delete %d\r\n" % checked_id(job_id), b"DELETED", _nothing, frees=job_id)


def kick(job_id: int) -> Command[None]:
    """Makes a buried or delayed job ready."""
    return Command(b"kick-job %d\r\n" % checked_id(job_id), b"KICKED", _nothing)


def peek(job_id: int) -> Command[JobBody]:
    """A job's body. Changes nothing."""
    return Command(b"peek %d\r\n" % checked_id(job_id), b"FOUND", _peeked)


def stats_job(job_id: int) -> Command[JobStats]:
    """A job's state and counters."""
    return Command(b"stats-job %d\r\n" % checked_id(job_id), b"OK", _job_stats)


def checked_tube(name: str) -> str:
    """The name. Raises QueueError if the protocol does not allow it."""
    if isinstance(name, Tube):
        return name
    try:
        return Tube(name)
    except ValueError as error:
        raise QueueError(f"bad tube name {name!r}: {error}") from None


def checked_int(name: str, value: int, least: int) -> int:
    """The number. Raises QueueError if the protocol does not allow it."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _UINT32:
        raise QueueError(f"bad {name} {value!r}: expected a whole number of seconds from {least} to {_UINT32}")
    return value


def checked_id(job_id: int) -> int:
    """The id. Raises QueueError if no job can have it."""
    if not isinstance(job_id, int) or isinstance(job_id, bool) or not 0 <= job_id <= _UINT64:
        raise QueueError(f"bad job id {job_id!r}: expected a whole number from 0 to {_UINT64}")
    return job_id


def _nothing(_client: BeanstalkClient, _values: list[bytes]) -> None:
    return None


def _number(_client: BeanstalkClient, values: list[bytes]) -> int:
    (number,) = values
    return int(number)


def _job(client: BeanstalkClient, values: list[bytes]) -> JobBody:
    job_id, size = values
    return JobBody(int(job_id), client.chunk(int(size)))


def _peeked(client: BeanstalkClient, values: list[bytes]) -> JobBody:
    job_id, size = values
    return JobBody(int(job_id), client.peeked(int(size)))


def _job_stats(client: BeanstalkClient, values: list[bytes]) -> JobStats:
    return client.read_job_stats(values)
