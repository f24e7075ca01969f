"""All exceptions of glassq, in one tree; those of one room alone stand in that room.

GlassqError
+-- SettingsError           glassq.toml, or a file that it names, cannot be used (exit 78)
+-- UnreadableText          a file that people edit cannot be read, or is not UTF-8 text
+-- DamagedDelivery         a job's bytes are not a delivery, or its checksum is wrong
+-- PingRefused             a ping is not accepted: bad shape, wrong token, too big
+-- SourceUnready           whether a ping is genuine cannot be told now: no certificate or key yet
+-- QueueError              a queue command failed
|   +-- QueueUnavailable    no connection, or it broke; the last command may have happened or not
|   |   +-- NoProof         the queue answered, but nobody knows in time whether that is on disk
|   +-- QueueRefused        the queue accepts no job now: draining, out of memory or disk
|   |   +-- NotDurable      the queue keeps jobs in memory only, perhaps also those of a moment ago
|   |   +-- WrongTables     the queue's database lacks our tables, or has those of another version (exit 78)
|   +-- SearchIncomplete    a search could not find all jobs
|   |   +-- Unseen          the engine cannot show all jobs
|   +-- BodyUnstored        a delivery stays in the journal, as its body is not in its store yet
|   +-- JobTooBig           a job exceeds the queue's size limit
|   +-- JobNotFound         no such job, or another consumer has it by now
+-- OperationError          an operation was not done as it was asked for
|   +-- InvalidRequest      the request is wrong (exit 2, HTTP 400)
|   +-- NotFound            what it names is not there (exit 1, HTTP 404)
|   |   +-- NotInOurTubes   it may be in a tube of other programs
|   +-- Ambiguous           it names several things (exit 2, HTTP 409)
|   +-- Conflict            things changed meanwhile, or it is not possible now (exit 1, HTTP 409)
|   +-- Unsupported         this engine cannot do it (exit 1, HTTP 501)
+-- Stopped                 an operator stopped an operation between two of its steps (exit 130)
+-- JournalError            the intake journal cannot keep a delivery: full, no disk, not writable
+-- BodyError               the store of large bodies cannot keep or give one now
|   +-- BodyLost            a body is not in the store
|   +-- BodyDamaged         a body is not what was stored
+-- Verdict                 a handler raises one of these to decide the outcome of its attempt
|   +-- Drop                nothing to do: spoofed, gone, stale
|   +-- Retry               an expected failure: retry later
|   +-- Bury                no retry can help: keep it for the operator (dead letter)
|       +-- UnreadableBody  the body is not what the handler asked for: JSON, or a form
+-- CredentialsError        a user's credentials cannot be stored or read
|   +-- UserUnknown         there are no credentials for this user
|   +-- UserRevoked         the user revoked the consent
+-- NotNotified             a message to operators could not be delivered
+-- LedgerError             the ledger cannot be read or written, or is needed and absent (exit 74)
+-- NamesUnavailable        the database of task names cannot be used now
+-- taskqueue.Error         exceptions of App Engine's taskqueue API (push/task_errors.py)
+-- deferred.Error          exceptions of its deferred library (push/deferred.py)
+-- StackError              `glassq dev` or `demo`: a server did not start, or died
+-- PrepareError            the queue's files cannot be made ready for its start (exit 1)

Interrupt (a BaseException, so that a handler's `except Exception` cannot swallow it)
+-- DeadlineExceeded        the handler overran its soft deadline
+-- Interrupted             the pool stops at once: the attempt does not count
+-- LeaseLost               another consumer has the job by now: this attempt does not count
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Why a ping is refused, as metrics and logs say it.
REASONS = (
    "no signature",
    "wrong signature",
    "too old",
    "too new",
    "no token",
    "wrong token",
    "address",
    "path token",
    "method",
    "length",
    "size",
    "content type",
    "encoding",
    "malformed",
    "replayed",
    "account",
)
# sysexits.h: the configuration is wrong, so a restart does not help.
EX_CONFIG = 78


class GlassqError(Exception):
    """Base of all exceptions that glassq raises on purpose."""


class SettingsError(GlassqError):
    """The settings cannot be used. The message names file, key, value and what is expected."""


class UnreadableText(GlassqError):
    """A file that people edit cannot be read, or is not UTF-8 text.

    The message starts with a verb ("cannot be read: ..."), so that the caller puts the file's name before it.
    """


class DamagedDelivery(GlassqError):
    """A job's bytes are not a delivery, or its checksum is wrong."""


class PingRefused(GlassqError):
    """A ping is not accepted.

    `status` is the HTTP status (4xx), `title` a short fixed phrase, and `detail` a sentence for the author of the
    sender. Neither text ever quotes the ping. `reason` is one of REASONS, or "": what metrics count it as. `skew` is
    the sender's time minus ours, in seconds, where that is why.
    """

    def __init__(self, status: int, title: str, detail: str, reason: str = "", skew: float | None = None) -> None:
        super().__init__(f"{status} {title}: {detail}")
        self.status = status
        self.title = title
        self.detail = detail
        self.reason = reason
        self.skew = skew


class SourceUnready(GlassqError):
    """Whether a ping is genuine cannot be told now: a certificate or key is not here yet. Ours to mend, so 503."""


class QueueError(GlassqError):
    """A queue command failed."""


class QueueUnavailable(QueueError):
    """There is no connection, or it broke. The last command may have happened or not."""


class NoProof(QueueUnavailable):
    """The queue has answered, but whether that is on disk nobody could say in time. It may be, or not."""


class QueueRefused(QueueError):
    """The queue answers, but accepts no job now: it drains, or is out of memory or disk."""


class NotDurable(QueueRefused):
    """The queue keeps jobs in memory only: a restart may lose even those of a moment ago."""


class BodyUnstored(QueueError):
    """A delivery stays in the journal: its body waits there too, as the store of bodies does not take it now."""


class WrongTables(QueueRefused):
    """The queue's database lacks our tables, or has those of another version. `todo` names the command to run."""

    def __init__(self, said: str, todo: str = "") -> None:
        super().__init__(f"{said}: {todo}" if todo else said)
        self.said = said
        self.todo = todo


class JobTooBig(QueueError):
    """The job exceeds the queue's size limit."""


class SearchIncomplete(QueueError):
    """A search among `looked` places found only `found` of `promised` jobs, because the queue accepts no job now."""

    def __init__(self, found: int, promised: int, looked: int) -> None:
        super().__init__(
            f"{promised - found} of {promised} jobs were not found: while the queue takes no jobs, their ids can only "
            f"be searched for ({looked} were looked at); try again when that is mended"
        )
        self.found = found
        self.promised = promised
        self.looked = looked


class Unseen(SearchIncomplete):
    """The engine cannot show all jobs: about `many` of those that were asked for. `why` says so in its words."""

    def __init__(self, why: str, many: int) -> None:
        QueueError.__init__(self, f"{why}; about {many} wait or are at work")


class JobNotFound(QueueError):
    """There is no such job, or its state or owner does not allow the command."""


class OperationError(GlassqError):
    """An operation was not done as it was asked for. A command of ours stands in the message as `glassq ...`."""


class InvalidRequest(OperationError):
    """The request is wrong: a value that cannot be, or options that do not go together."""


class NotFound(OperationError):
    """Neither the queue nor the ledger has what the request names."""


class NotInOurTubes(NotFound):
    """What the request names is not in our tubes, but others hold jobs. The message says what to do."""


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


class BodyError(GlassqError):
    """The store of large bodies cannot keep or give one now: no room, no disk, no permission."""


class BodyLost(BodyError):
    """A body is not in the store: somebody has removed it."""


class BodyDamaged(BodyError):
    """A body is not what was stored: its size or its SHA-256 is another."""


class JournalError(GlassqError):
    """The intake journal cannot keep a delivery, or cannot be read. The message names its directory and why."""


class Verdict(GlassqError):
    """A handler raises one of these to decide the outcome of its attempt.

    `reason` is a text for the operator. `detail` stands beside it in the evidence: a small JSON-serialisable dict, such
    as {"status": 502, "body": "..."}.
    """

    def __init__(self, reason: str, *, detail: Mapping[str, object] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = dict(detail or {})


class Drop(Verdict):
    """There is nothing to do (spoofed, gone, stale): the delivery is deleted and recorded as dropped."""


class Retry(Verdict):
    """An expected failure: the delivery is retried.

    `delay` is in seconds; without it the pool's backoff decides. `counts=False` retries for ever, without using up an
    attempt: for waiting until something is ready. The handler must end that itself, by `Delivery.waits` or
    `Delivery.age()`. `slow_down=True` says that the downstream service is overloaded; a rate-limited tube is throttled
    temporarily.
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
    """No retry can help: the delivery is buried with this reason (a dead letter) until an operator decides."""


class UnreadableBody(Bury, ValueError):
    """The body is not the JSON or the form that a handler asked for. The reason never quotes the body."""


class CredentialsError(GlassqError):
    """A user's credentials cannot be stored or read."""


class UserUnknown(CredentialsError):
    """There are no credentials for this user."""


class UserRevoked(CredentialsError):
    """The user revoked the consent; only a new consent helps."""


class NotNotified(GlassqError):
    """A message could not be delivered. The message says why."""


class LedgerError(GlassqError):
    """The ledger's database cannot be read or written, or is needed and absent. The message says where, and why."""


class NamesUnavailable(GlassqError):
    """The database of task names cannot be used now, or other programs keep adding the same name."""


class PrepareError(GlassqError):
    """The queue's files cannot be made ready: the queue must not be started on them as they are."""


class StackError(GlassqError):
    """A server that `glassq dev` starts did not come up, or died. The message says which, and why."""


class Interrupt(BaseException):
    """Interrupts a running handler. A BaseException, so that `except Exception` does not catch it.

    `detail` stands in the evidence, as that of a Verdict does.
    """

    def __init__(self, *args: object, detail: Mapping[str, object] | None = None) -> None:
        super().__init__(*args)
        self.detail = dict(detail or {})


class DeadlineExceeded(Interrupt):
    """The handler overran its soft deadline."""


class Interrupted(Interrupt):
    """The pool stops at once. The job is released, and the attempt does not count."""


class LeaseLost(Interrupt):
    """Another consumer has the job by now, so the work of this attempt happens twice."""
