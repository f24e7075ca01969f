"""Which deliveries an operator means: one filter language for every command and page.

| condition            | selects deliveries                                                       |
|----------------------|--------------------------------------------------------------------------|
| error~REGEX          | whose reason has a match of the regular expression                       |
| reason~REGEX         | the same                                                                 |
| result~REGEX         | whose handler returned something that has a match                        |
| source=NAME          | from this source                                                         |
| label.NAME=VALUE     | with this label                                                          |
| handler=NAME         | that a pool with these settings gives to this handler                    |
| cause=ID             | that failed for this cause (see groups.py)                               |
| words=TEXT           | whose cause has each of these words, in any case                         |
| tube=TUBE            | in this tube                                                             |
| newer-than=DURATION  | received within this time: "2h"                                          |
| older-than=DURATION  | received longer ago than this: "2d"                                      |

A delivery has to meet all conditions that are given.
"""

from __future__ import annotations

import math
import re
import shlex
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from glassq.causes import Cause, is_cause_id
from glassq.delivery import made_at
from glassq.errors import InvalidRequest
from glassq.values import Duration

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

_CONDITION = re.compile(r"\s*([a-z][a-z-]*)(?:\.([^~=]+?))?\s*([~=])(.+)", re.DOTALL)
# The forms of a condition, as help and errors name them.
FORMS = {
    "error": "error~REGEX (or reason~REGEX)",
    "result": "result~REGEX",
    "source": "source=NAME",
    "label": "label.NAME=VALUE",
    "handler": "handler=NAME",
    "cause": "cause=ID",
    "words": "words=TEXT",
    "tube": "tube=TUBE",
    "newer-than": "newer-than=DURATION",
    "older-than": "older-than=DURATION",
}
# Between a delivery's id and its receipt is less than this, in seconds.
RECEIVED_WITHIN = 3600.0
# So many ids are named in words.
MAX_NAMED = 10
_EXPECTED = "expected " + " or ".join(", ".join(FORMS.values()).rsplit(", ", 1))


class Subject(Protocol):
    """What a filter looks at: a job (find.Found), or an entry of the ledger. `age` is in seconds since the ping."""

    @property
    def source(self) -> str: ...
    @property
    def tube(self) -> str: ...
    @property
    def age(self) -> float: ...
    @property
    def reason(self) -> str: ...
    @property
    def result(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def handler(self) -> str: ...
    @property
    def cause(self) -> Cause: ...


@dataclass(frozen=True, slots=True)
class Recorded:
    """A Subject of which only the ledger tells: it does not know the cause, nor always the labels and the handler."""

    source: str
    tube: str
    age: float
    reason: str
    result: str
    labels: Mapping[str, str] = field(default_factory=dict)
    handler: str = ""

    @property
    def cause(self) -> Cause:
        """Nothing: the ledger keeps no tracebacks. `Filter.only` has refused `cause=` and `words=` before."""
        return Cause("", "", "", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What is asked for; what is None or empty is not. `newer` and `older` are in seconds, `tube` is one of ours."""

    errors: tuple[re.Pattern[str], ...] = ()
    results: tuple[re.Pattern[str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    source: str | None = None
    handler: str | None = None
    cause: str | None = None
    words: str | None = None
    tube: str | None = None
    newer: float | None = None
    older: float | None = None

    @property
    def conditions(self) -> frozenset[str]:
        """The names of the conditions that are given."""
        named = {
            "error": self.errors,
            "result": self.results,
            "label": self.labels,
            "source": self.source,
            "handler": self.handler,
            "cause": self.cause,
            "words": self.words,
            "tube": self.tube,
            "newer-than": self.newer,
            "older-than": self.older,
        }
        return frozenset(name for name, value in named.items() if value not in (None, ()))

    @property
    def typed(self) -> str:
        """The conditions as they are typed, with quotes around those that the shell would take apart."""
        one = {name: getattr(self, name) for name in ("source", "handler", "cause", "words", "tube")}
        said = [f"error~{pattern.pattern}" for pattern in self.errors]
        said += [f"result~{pattern.pattern}" for pattern in self.results]
        said += [f"label.{name}={value}" for name, value in self.labels]
        said += [f"{name}={value}" for name, value in one.items() if value is not None]
        for name, seconds in (("newer-than", self.newer), ("older-than", self.older)):
            said += [] if seconds is None else [f"{name}={seconds:g}s"]
        return shlex.join(said)

    def __bool__(self) -> bool:
        return bool(self.conditions)

    def fits(self, subject: Subject) -> bool:
        """Whether it meets all conditions; a damaged job has neither source nor labels."""
        return (
            self.tube in (None, subject.tube)
            and self.source in (None, subject.source)
            and (self.newer is None or subject.age < self.newer)
            and (self.older is None or subject.age > self.older)
            and all(subject.labels.get(name) == value for name, value in self.labels)
            and all(pattern.search(subject.reason) for pattern in self.errors)
            and all(pattern.search(subject.result) for pattern in self.results)
            and self.handler in (None, subject.handler)
            and (self.cause is None or subject.cause.id == self.cause)
            and (self.words is None or has_words(subject.cause.words, self.words))
        )

    def by_id(self) -> Callable[[str], bool] | None:
        """What refuses the ids of deliveries that cannot fit, as an id tells when it was made; None: it refuses none.

        A ping's body may take a while after that until it is received.
        """
        if self.newer is None and self.older is None:
            return None
        now = time.time()
        first = now - self.newer - RECEIVED_WITHIN if self.newer is not None else -math.inf
        last = now - self.older if self.older is not None else math.inf

        def wanted(key: str) -> bool:
            return first <= made_at(key) <= last

        return wanted

    def only(self, possible: Collection[str], command: str) -> None:
        """Raises InvalidRequest where a condition is given that a command on the ledger cannot filter by."""
        for name in sorted(self.conditions - frozenset(possible)):
            why = ": the ledger does not keep it" if name in ("cause", "words") else ""
            able = ", ".join(sorted(possible))
            raise InvalidRequest(f"`glassq {command}` cannot filter by {name}{why}; it can by: {able}")


def has_words(text: str, words: str) -> bool:
    """Whether each of the words occurs in the text, in any case and order."""
    folded = text.casefold()
    return all(word in folded for word in words.casefold().split())


def parse(conditions: Sequence[str], base: Filter | None = None) -> Filter:
    """The filter of these conditions, added to those of `base`. Raises InvalidRequest, which names the condition."""
    made = base or Filter()
    for text in conditions:
        made = _add(made, text)
    return made


def _add(made: Filter, text: str) -> Filter:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise InvalidRequest(f"condition {text}: {_EXPECTED}")
    name, label, sign, value = match.groups()
    value = value.strip() if sign == "=" else value
    if name == "label" and label and sign == "=":
        return replace(made, labels=(*made.labels, (label.strip(), value)))
    if label or (name, sign) not in _FIELDS:
        raise InvalidRequest(f"condition {text}: {_EXPECTED}")
    attribute, read = _FIELDS[name, sign]
    try:
        found = read(value)
    except ValueError as error:
        raise InvalidRequest(f"condition {text}: {error}") from None
    before = getattr(made, attribute)
    if isinstance(before, tuple):
        found = (*before, found)
    elif before not in (None, found):
        raise InvalidRequest(f"condition {text}: {name} is given twice")
    changed: dict[str, Any] = {attribute: found}
    return replace(made, **changed)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None


def _cause_id(text: str) -> str:
    if not is_cause_id(text.lower()):
        raise ValueError("expected the 12 hex digits of a cause, as `glassq buried --by reason` shows them")
    return text.lower()


# What a condition is kept as, and what reads its value or raises ValueError.
_FIELDS: dict[tuple[str, str], tuple[str, Callable[[str], object]]] = {
    ("error", "~"): ("errors", _pattern),
    ("reason", "~"): ("errors", _pattern),
    ("result", "~"): ("results", _pattern),
    ("source", "="): ("source", str),
    ("handler", "="): ("handler", str),
    ("cause", "="): ("cause", _cause_id),
    ("words", "="): ("words", str),
    ("tube", "="): ("tube", str),
    ("newer-than", "="): ("newer", Duration),
    ("older-than", "="): ("older", Duration),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which deliveries an operation is for: those of `ids`, those that fit the filter, or `everything`.

    `limit` is how many at most of those that fit, the newest first.
    """

    ids: tuple[str, ...] = ()
    filter: Filter = field(default_factory=Filter)
    everything: bool = False
    limit: int | None = None

    @property
    def bulk(self) -> bool:
        """Whether the deliveries are not named one by one."""
        return self.everything or bool(self.filter)

    @property
    def typed(self) -> str:
        """What it is for: the ids, the conditions, or "all"."""
        if self.ids:
            more = len(self.ids) - MAX_NAMED
            return " ".join(self.ids[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
        said = self.filter.typed or ("all" if self.everything else "")
        return f"{said} limit={self.limit}".strip() if self.limit else said

    def check(self) -> None:
        """Raises InvalidRequest unless it has either ids, or says otherwise which deliveries are meant."""
        if self.bulk == bool(self.ids):
            raise InvalidRequest("expected either ids, or filters that select buried deliveries (see --help)")
        if self.ids and self.limit:
            raise InvalidRequest("--limit goes with filters, not with ids")


def duration(name: str, text: str) -> float:
    """The seconds of a duration such as "2h". Raises InvalidRequest, which names the option or field."""
    try:
        return Duration(text)
    except ValueError as error:
        raise InvalidRequest(f"{name} {text}: {error}") from None


def nothing_found_text(filter_: Filter) -> str:
    """What to say where no buried delivery was found."""
    return "no buried delivery fits" if filter_ else "nothing is buried"
