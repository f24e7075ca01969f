"""Buried deliveries in groups: by the cause of their failure (causes.py), by handler or by source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from glassq.operations.hints import Hint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from glassq.causes import Cause

By = Literal["reason", "handler", "source"]


class Failed(Protocol):
    """What is put into groups: a buried job, as find.Found is one."""

    @property
    def ref(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def handler(self) -> str: ...
    @property
    def cause(self) -> Cause: ...
    @property
    def failed_at(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class Group:
    """Deliveries of one cause, handler or source; `condition` is the filter that selects them.

    `first` and `last` say when the first and the last of them failed (None: nobody knows). `example` is a delivery's
    id, or the reference of a job that is damaged.
    """

    id: str
    words: str
    count: int
    first: datetime | None
    last: datetime | None
    example: str
    condition: str


def group(jobs: Iterable[Failed], by: By = "reason") -> list[Group]:
    """The jobs in groups, the largest first."""
    groups: dict[str, Group] = {}
    for found in jobs:
        id_, words, condition = _KEYS[by](found)
        at, example = found.failed_at, found.name or found.ref
        known = groups.get(id_)
        if known is None:
            groups[id_] = Group(id_, words, 1, at, at, example, condition)
        else:
            first = min(filter(None, (known.first, at)), default=None)
            last = max(filter(None, (known.last, at)), default=None)
            groups[id_] = Group(id_, known.words, known.count + 1, first, last, known.example, condition)
    return sorted(groups.values(), key=lambda each: (-each.count, each.id))


def _by_cause(found: Failed) -> tuple[str, str, str]:
    cause = found.cause
    return cause.id, cause.words, f"cause={cause.id}"


def _by_handler(found: Failed) -> tuple[str, str, str]:
    handler = found.handler
    return handler, found.cause.words, f"handler={handler}"


def _by_source(found: Failed) -> tuple[str, str, str]:
    source = found.source
    return source, found.cause.words, f"source={source}"


_KEYS: dict[By, Callable[[Failed], tuple[str, str, str]]] = {
    "reason": _by_cause,
    "handler": _by_handler,
    "source": _by_source,
}


def summary(buried: int) -> Hint | None:
    """Where to go on from a status that shows so many buried deliveries; None for a single one or none.

    It costs nothing: naming the causes would need a look at every buried job.
    """
    return Hint(f"{buried} deliveries are buried; for their causes", "buried --by reason") if buried > 1 else None
