"""The section [[routes]]: which deliveries go where, and with which limits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import urlsplit

import msgspec

from glassq.settings.sections import TASK_SOURCE, AtLeastOne, Section
from glassq.values import Duration, HandlerName, LabelKey, SecretFile, Step, UrlPattern

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

T = TypeVar("T")
# The handler of a route that has `steps` instead.
NO_HANDLER = str.__new__(HandlerName, "")
# The names of the routes that [push] adds (`glassq.routes`).
DEFERRED_NAME, TASKS_NAME = "push-deferred", "push-tasks"
# The longest name of a route: it is a part of a tube's name, and of metrics.
MAX_NAME = 40


class Route(Section, frozen=True):
    """[[routes]]

    `name` is set in all settings: without the key it is made of source and handler (`named`). A limit that is None is
    that of [worker].
    """

    source: str
    handler: HandlerName = NO_HANDLER
    steps: tuple[Step, ...] | None = None
    name: str = ""
    match: dict[str, str | tuple[str, ...]] | None = None
    collection: str | None = None
    operation: str | None = None
    queue: str | None = None
    url: UrlPattern | None = None
    coalesce: bool = False
    dedupe_window: Duration | None = None
    max_attempts: AtLeastOne | None = None
    deadline: Duration | None = None
    backoff: Duration | None = None
    backoff_cap: Duration | None = None
    concurrency: AtLeastOne | None = None
    concurrency_by: LabelKey | None = None
    breaker: AtLeastOne | None = None
    secret_file: SecretFile | None = None

    @property
    def handlers(self) -> tuple[HandlerName, ...]:
        """Its handler, or those of its steps."""
        return self.steps or (self.handler,)

    @property
    def needs_push(self) -> bool:
        """Whether it sends requests, by the section [push]."""
        return any(handler.is_url for handler in self.handlers)

    @property
    def work(self) -> str:
        """What works its deliveries, for people: the handler, or the steps in their order."""
        return " > ".join(self.handlers)

    @property
    def conditions(self) -> dict[str, str | tuple[str, ...]]:
        """What each label must be, by its name: a text, one with * at its end for all that begin so, or several."""
        words = {"collection": self.collection, "operation": self.operation, "url": self.url}
        if self.source == TASK_SOURCE:
            # only tasks are in a queue; the route of a ping names the queue whose limits apply to its handler
            words["queue"] = self.queue
        return {**(self.match or {}), **{name: value for name, value in words.items() if value is not None}}

    def wants(self, source: str, labels: Mapping[str, str]) -> bool:
        """Whether this route matches a delivery from `source` with these labels."""
        return source == self.source and all(
            label_fits(wanted, labels.get(name)) for name, wanted in self.conditions.items()
        )


def label_fits(wanted: str | tuple[str, ...], label: str | None) -> bool:
    """Whether a label is what a condition of a route wants; None: the delivery has no such label."""
    if label is None:
        return False
    if isinstance(wanted, UrlPattern):
        return wanted.fits(label)
    several = (wanted,) if isinstance(wanted, str) else wanted
    return any(label.startswith(text[:-1]) if text.endswith("*") else label == text for text in several)


class FirstMatch(Generic[T]):
    """Something for each route; the first route that wants a delivery has it. Intake and pool ask alike."""

    def __init__(self, found: Iterable[tuple[Route, T]]) -> None:
        # the conditions take a while to put together
        self._found = [(route.source, list(route.conditions.items()), value) for route, value in found]

    def of(self, source: str, labels: Mapping[str, str]) -> T | None:
        """What the first route has that wants a delivery from `source` with these labels; None if there is none."""
        for wanted_source, conditions, value in self._found:
            if source == wanted_source and all(label_fits(wanted, labels.get(name)) for name, wanted in conditions):
                return value
        return None


def named(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """The routes with a name each. One that is made differs from all others: the second gets a -2 at its end."""
    taken = {DEFERRED_NAME, TASKS_NAME, *(route.name for route in routes)}
    found = []
    for route in routes:
        name = route.name or _free(_made_of(route), taken)
        taken.add(name)
        found.append(route if name == route.name else msgspec.structs.replace(route, name=name))
    return tuple(found)


def _made_of(route: Route) -> str:
    """A name of source and handler: "mirror-photos-store" of "mirror" and "glassq.glass.photos:store".

    Of a program it has the file's name.
    """
    first = route.handlers[0]
    if first.is_url:
        url = urlsplit(first)
        said = f"{url.hostname}{url.path}"
    elif first.is_program:
        said = first.command[0].rpartition("/")[2]
    else:
        module, _, function = first.partition(":")
        said = f"{re.split('[./]', module)[-1]} {function}"
    words, source = re.findall(r"[a-z0-9]+", said.lower()), "-".join(re.findall(r"[a-z0-9]+", route.source.lower()))
    return "-".join([source, *(words[1:] if words[:1] == [source] and words[1:] else words)])


def _free(wanted: str, taken: Collection[str]) -> str:
    name, number = wanted[:MAX_NAME].strip("-"), 1
    while name in taken:
        number += 1
        end = f"-{number}"
        name = wanted[: MAX_NAME - len(end)].strip("-") + end
    return name
