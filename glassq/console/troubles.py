"""What is answered where something goes wrong: a status, why, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from glassq import errors


@dataclass(frozen=True, slots=True)
class Problem:
    """An answer that is an error. `words` say why, `todo` what helps ("": the words do).

    `candidates` are what may be meant, each a line that begins with its id. `retry_after` is in seconds, 0: not at all.
    """

    status: int
    words: str
    todo: str = ""
    retry_after: int = 0
    candidates: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The status in words."""
        return HTTPStatus(self.status).phrase

    @property
    def detail(self) -> str:
        """All that is said, in one text."""
        return ": ".join(filter(None, (self.words, ", ".join(self.candidates), self.todo)))


class Refused(Exception):
    """A request is refused; the problem says why. Nothing of it was done."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


# The first that fits decides; the statuses of operations are those of errors.py.
_STATUSES: tuple[tuple[type[errors.GlassqError], int, str], ...] = (
    (errors.InvalidRequest, 400, ""),
    (errors.NotFound, 404, ""),
    (errors.Ambiguous, 409, ""),
    (errors.Conflict, 409, ""),
    (errors.Unsupported, 501, ""),
    (errors.QueueUnavailable, 503, "is the queue running, and is [queue] url right? `glassq doctor`"),
    (errors.QueueError, 503, "try again when that is mended; `glassq doctor` says more"),
    (errors.LedgerError, 503, "`glassq doctor` says more"),
    (errors.SettingsError, 503, "mend the settings, and restart glassq-console"),
    (errors.GlassqError, 503, "try again later"),
)
# So long a client waits before it asks again for what is broken, in seconds.
RETRY_AFTER = 5


def refused(status: int, words: str, todo: str = "", retry_after: int = 0) -> Refused:
    """What to raise for a request that is not let in."""
    return Refused(Problem(status, words, todo, retry_after))


def problem_of(error: errors.GlassqError) -> Problem:
    """What to answer where an operation fails."""
    status, todo = next((status, todo) for kind, status, todo in _STATUSES if isinstance(error, kind))
    candidates = error.candidates if isinstance(error, errors.Ambiguous) else ()
    retry_after = RETRY_AFTER if status == HTTPStatus.SERVICE_UNAVAILABLE else 0
    return Problem(status, str(error), todo, retry_after, candidates)
