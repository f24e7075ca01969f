"""For engines: an Inspector's calls for one job, made of those for many."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeVar

from glassq.errors import JobNotFound, QueueError
from glassq.queues.base import Change, NewForm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.queues.base import Happened, Job, State, TubeCounts, WaitingState

T = TypeVar("T")


class SingleCalls(ABC):
    """See `glassq.queues.base.Inspector`."""

    @abstractmethod
    def get_all(self, refs: Sequence[str]) -> list[Job | QueueError]: ...

    @abstractmethod
    def insert_all(self, forms: Sequence[NewForm]) -> list[str | QueueError]: ...

    @abstractmethod
    def change_all(self, changes: Sequence[Change]) -> list[str | QueueError]: ...

    @abstractmethod
    def delete_all(self, jobs: Sequence[Job]) -> list[QueueError | None]: ...

    def only_looks(self) -> None:  # noqa: B027
        """A server that answers takes writes as well."""

    @abstractmethod
    def counts(self, tubes: Sequence[str] | None = None) -> list[TubeCounts]: ...

    def tubes(self) -> list[str]:
        return [counts.name for counts in self.counts()]

    def ref_of(self, key: str) -> str:
        return ""

    def still(self, refs: Sequence[str], state: State) -> list[bool]:
        found = []
        for job in self.get_all(refs):
            if isinstance(job, QueueError) and not isinstance(job, JobNotFound):
                raise job
            found.append(not isinstance(job, QueueError) and job.state == state)
        return found

    def peek(self, ref: str) -> bytes:
        return _raised(*self.peek_all([ref]))

    def peek_all(self, refs: Sequence[str]) -> list[bytes | QueueError]:
        return [job if isinstance(job, QueueError) else job.body for job in self.get_all(refs)]

    def history(self, key: str) -> list[Happened]:
        return []

    def get(self, ref: str) -> Job:
        return _raised(*self.get_all([ref]))

    def insert(self, body: bytes, *, tube: str, state: WaitingState, delay: float = 0.0) -> str:
        return _raised(*self.insert_all([NewForm(body, tube, state, delay)]))

    def change(
        self, job: Job, *, state: WaitingState, body: bytes | None = None, tube: str = "", delay: float = 0.0
    ) -> str:
        return _raised(*self.change_all([Change(job, state, body, tube, delay)]))

    def delete(self, job: Job) -> None:
        _raised(*self.delete_all([job]))


def _raised(result: T | QueueError) -> T:
    if isinstance(result, QueueError):
        raise result
    return result
