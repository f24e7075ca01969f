"""Every exception of glassq, in one tree.

GlassqError
+-- SettingsError           glassq.toml, or a file it names, cannot be used (exit 78)
+-- UnreadableText          a file that people edit cannot be read, or is not UTF-8 text
+-- DamagedDelivery         a job's bytes are not a delivery, or its checksum is wrong
+-- PingRefused             a ping that is not taken: bad shape, wrong token, too big
+-- QueueError              the queue did not do what it was asked
|   +-- QueueUnavailable    no connection, or it broke; the last command may have happened or not
|   +-- QueueRefused        the queue lives but takes no job now: draining, out of memory or disk
|   |   +-- NotDurable      it keeps jobs in memory only, those it took a moment ago perhaps too
|   +-- SearchIncomplete    a search could not find all jobs
|   +-- JobTooBig           a job is larger than the queue takes
|   +-- JobNotFound         no such job, or it is no longer ours
+-- OperationError          an operation was not done as it was asked for
|   +-- InvalidRequest      the request is wrong (exit 2, HTTP 400)
|   +-- NotFound            what it names is not there (exit 1, HTTP 404)
|   +-- Ambiguous           it names several things (exit 2, HTTP 409)
|   +-- Conflict            things changed meanwhile, or it is not possible now (exit 1, HTTP 409)
|   +-- Unsupported         this engine cannot do it (exit 1, HTTP 501)
+-- Stopped                 an operator stopped an operation between two of its steps (exit 130)
+-- SpoolError              the spool cannot keep a delivery: full, no disk, not writable
+-- Verdict                 what a handler raises to say what its attempt came to
|   +-- Drop                nothing to do: spoofed, gone, stale
|   +-- Retry               an expected failure: try again later
|   +-- Bury                no retry can help: keep it for the operator
+-- CredentialsError        a user's credentials cannot be stored or read
|   +-- UserUnknown         there are none for this user
|   +-- UserRevoked         the user took the consent back
+-- NamesUnavailable        the task names' database cannot be used now
+-- taskqueue.Error         what App Engine's API raises (push/task_errors.py)
+-- deferred.Error          what its deferred library raises, or lets a function raise (push/deferred.py)
+-- StackError              `glassq dev` or `demo`: a server did not come up, or died

Interrupt (a BaseException, so that a handler's `except Exception` cannot swallow it)
+-- DeadlineExceeded        the handler overran its soft deadline
+-- Interrupted             the pool stops now: the attempt does not count
+-- LeaseLost               the job is somebody else's by now: this attempt is worth nothing
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# sysexits.h: the configuration is wrong; starting again helps nobody.
EX_CONFIG = 78


class GlassqError(Exception):
    """Anything that glassq raises on purpose."""


class SettingsError(GlassqError):
    """The settings cannot be used. The message names file, key, value and what is expected."""


class UnreadableText(GlassqError):
    """A file that people edit cannot be read, or is not UTF-8 text.

    The message starts with a verb ("cannot be read: ..."), so that the caller puts the file's name before it.
    """


class DamagedDelivery(GlassqError):
    """A job's bytes are not a delivery, or its checksum is wrong."""


class PingRefused(GlassqError):
    """A ping is not taken.

    `status` is the HTTP status (4xx), `title` a short fixed phrase and `detail` a sentence for the sender's
    author. Neither ever holds anything out of the ping.
    """

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(f"{status} {title}: {detail}")
        self.status = status
        self.title = title
        self.detail = detail


class QueueError(GlassqError):
    """The queue did not do what it was asked."""


class QueueUnavailable(QueueError):
    """There is no connection, or it broke. Whether the last command happened cannot be known."""


class QueueRefused(QueueError):
    """The queue lives but takes no job now: draining, or out of memory or disk."""


class NotDurable(QueueRefused):
    """The queue keeps jobs in memory only: what it took a moment ago may be gone after a restart."""


class JobTooBig(QueueError):
    """The job is larger than the queue takes."""


class SearchIncomplete(QueueError):
    """Only `found` of the `promised` jobs could be found, among `looked` places: the queue takes no job now."""

    def __init__(self, found: int, promised: int, looked: int) -> None:
        super().__init__(
            f"{promised - found} of {promised} jobs were not found: while the queue takes no jobs, their ids can only "
            f"be searched for ({looked} were looked at); try again when that is mended"
        )
        self.found = found
        self.promised = promised
        self.looked = looked


class JobNotFound(QueueError):
    """There is no such job, or it is not in a state (or ours) to do this with."""


class OperationError(GlassqError):
    """An operation was not done as it was asked for. A command of ours stands in the message as `glassq ...`."""


class InvalidRequest(OperationError):
    """The request is wrong: a value that cannot be, or options that do not go together."""


class NotFound(OperationError):
    """Neither the queue nor the ledger has what the request names."""


class Ambiguous(OperationError):
    """The request names several things; `candidates` are some of them, a line each."""

    def __init__(self, message: str, candidates: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.candidates = tuple(candidates)


class Conflict(OperationError):
    """It cannot be done now: things changed since they were looked at, or something else has to come first."""


class Unsupported(OperationError):
    """The queue's engine cannot do this. The message names the engine."""


class Stopped(GlassqError):
    """An operator stopped an operation between two of its steps."""

    def __init__(self) -> None:
        super().__init__("stopped")


class SpoolError(GlassqError):
    """The spool cannot keep a delivery. The message names its directory and why."""


class Verdict(GlassqError):
    """What a handler raises to say what its attempt came to.

    `reason` is for the operator, in words. `detail` is kept beside it in the evidence: a small dict of what JSON can
    say, such as {"status": 502, "body": "..."}.
    """

    def __init__(self, reason: str, *, detail: Mapping[str, object] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = dict(detail or {})


class Drop(Verdict):
    """There is nothing to do (spoofed, gone, stale): the delivery is deleted and recorded as dropped."""


class Retry(Verdict):
    """An expected failure: the delivery is tried again.

    `delay` is in seconds; without it the pool's backoff decides. With `counts=False` the attempt is not taken
    from the delivery's budget: for waiting until something is ready. The handler then says itself when enough is
    enough (by `Delivery.waits` or its age). With `slow_down=True` whom the handler asks is overloaded: where the
    delivery's tube has a rate, all of it is worked more slowly for a while.
    """

    def __init__(
        self,
        reason: str,
        delay: float | None = None,
        *,
        counts: bool = True,
        slow_down: bool = False,
        detail: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(reason, detail=detail)
        self.delay = delay
        self.counts = counts
        self.slow_down = slow_down


class Bury(Verdict):
    """No retry can help: the delivery is kept aside with this reason until an operator decides."""


class CredentialsError(GlassqError):
    """A user's credentials cannot be stored or read."""


class UserUnknown(CredentialsError):
    """There are no credentials for this user."""


class UserRevoked(CredentialsError):
    """The user took the consent back; only a fresh one helps."""


class NamesUnavailable(GlassqError):
    """The task names' database cannot be used now, or a name is being added by others again and again."""


class StackError(GlassqError):
    """One of the servers that `glassq dev` starts did not come up, or died. The message says which, and why."""


class Interrupt(BaseException):
    """Ends a running handler from outside. A BaseException: `except Exception` does not catch it."""


class DeadlineExceeded(Interrupt):
    """The handler overran its soft deadline."""


class Interrupted(Interrupt):
    """The pool stops now. The job goes back and the attempt does not count."""


class LeaseLost(Interrupt):
    """The queue has given the job to somebody else. Whatever this attempt does is done twice."""
