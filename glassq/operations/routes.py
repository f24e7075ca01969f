"""The routes of the settings, and where a saved ping would go."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glassq.errors import InvalidRequest, SettingsError
from glassq.mask import masked_texts
from glassq.mistakes import ordinal, place
from glassq.operations.saved_request import parse
from glassq.routes import all_routes
from glassq.settings import TASK_SOURCE, label_fits, ping_tube, route_tube
from glassq.sources import HookRequest
from glassq.sources.opening import labels_of, open_source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from glassq.operations import Operations
    from glassq.settings import Route, Settings
    from glassq.sources import Description

# The keys of a route that limit its work.
LIMITS = ("max_attempts", "deadline", "backoff", "backoff_cap", "concurrency", "concurrency_by", "breaker")
# The kind of a source whose class only its author knows: so are its labels.
_CUSTOM = "custom"
# The labels for which a source has a key of its own; others stand in its `labels`.
_EVENT_LABELS = ("event", "action", "event_id")


@dataclass(frozen=True, slots=True)
class RouteRow:
    """One route. `number` is its place in the settings, from 0 (people count from 1: `place`).

    `never` says why it takes nothing ("": it may). `tube` is the tube of its own ("": it has none).
    """

    number: int
    route: Route
    never: str = ""
    tube: str = ""

    @property
    def place(self) -> str:
        """Where it stands in the settings, for people."""
        return place(["routes", self.number])

    @property
    def limits(self) -> dict[str, Any]:
        """The limits that the route has of its own, by their keys."""
        found = {key: getattr(self.route, key) for key in LIMITS}
        return {key: value for key, value in found.items() if value is not None}

    def document(self) -> dict[str, Any]:
        """The route for JSON."""
        route = self.route
        return {
            "route": self.number,
            "source": route.source,
            "match": route.conditions,
            "name": route.name,
            "handler": route.work,
            "limits": self.limits,
            "tube": self.tube,
            "coalesce": route.coalesce,
            "dedupe_window": route.dedupe_window,
            "never": self.never,
        }


@dataclass(frozen=True, slots=True)
class TriedRoute:
    """A route, and why it does not take the ping ("": it does, or would if it came first)."""

    row: RouteRow
    why_not: str


@dataclass(frozen=True, slots=True)
class RouteTrial:
    """Where a saved ping would go: its labels, masked, those that could not be read, its tube, all routes.

    `remarks` say what was odd about the file.
    """

    source: str
    labels: Mapping[str, str]
    unread: tuple[str, ...]
    content_type: str
    tube: str
    tried: tuple[TriedRoute, ...]
    remarks: tuple[str, ...]

    @property
    def chosen(self) -> RouteRow | None:
        """The route that gets it; None: no route does, and it is dropped."""
        return next((each.row for each in self.tried if not each.why_not), None)

    def document(self) -> dict[str, Any]:
        """The outcome for JSON."""
        chosen = self.chosen
        return {
            "source": self.source,
            "labels": dict(self.labels),
            "unread": list(self.unread),
            "content_type": self.content_type,
            "tube": self.tube,
            "route": chosen.number if chosen else None,
            "handler": chosen.route.work if chosen else None,
            "routes": [{**each.row.document(), "why_not": each.why_not} for each in self.tried],
            "remarks": list(self.remarks),
        }


def listing(settings: Settings) -> tuple[RouteRow, ...]:
    """All routes, in the order in which they are asked. Those that a [push] section adds are the last ones."""
    return tuple(
        RouteRow(number, route, _never(settings, number, route), route_tube(settings, route))
        for number, route in enumerate(all_routes(settings))
    )


def trial(operations: Operations, source: str, data: bytes) -> RouteTrial:
    """Where a ping of this source would go. `data` is a saved request, or a body alone; its proof is not checked.

    Raises InvalidRequest for a source that is not there and for what is no request, and SettingsError.
    """
    settings = operations.settings
    if source not in settings.sources:
        known = ", ".join(settings.sources) or "none"
        raise InvalidRequest(f"there is no source {source}: the settings have {known}")
    saved = parse(data, bare=True)
    request = HookRequest(saved.method, saved.target, saved.headers, saved.body, "127.0.0.1", time.time())
    found = _described(settings, source, request)
    tried = tuple(TriedRoute(row, _why_not(row.route, source, found.labels)) for row in listing(settings))
    tube = ping_tube(settings, source)(found.labels)
    labels = masked_texts(found.labels)
    return RouteTrial(source, labels, found.unread, found.content_type, tube, tried, saved.remarks)


def _described(settings: Settings, source: str, request: HookRequest) -> Description:
    if settings.sources[source].kind_of(source) == _CUSTOM:
        return open_source(settings, source).describe(request)
    return labels_of(settings, source).describe(request)


def _why_not(route: Route, source: str, labels: Mapping[str, str]) -> str:
    if route.source != source:
        return f"it is for {route.source}"
    for name, wanted in route.conditions.items():
        if not label_fits(wanted, labels.get(name)):
            has = f'is "{masked_texts(labels)[name]}"' if name in labels else "is not there"
            return f"{name} {has}, and must be {words_of(wanted)}"
    return ""


def words_of(wanted: str | Sequence[str]) -> str:
    """What a condition wants, in words."""
    return " or ".join(f'"{text}"' for text in _texts(wanted))


def _never(settings: Settings, number: int, route: Route) -> str:
    """Why the route can take nothing: one before it takes all that it would, or its source never has such a label."""
    # those that a [push] section adds are for what is left, even if nothing is
    before = settings.routes[:number] if number < len(settings.routes) else ()
    first = next((index for index, each in enumerate(before) if _takes_all_of(each, route)), None)
    if first is not None:
        return (
            f"the {ordinal(first + 1)} takes all that it would, and the first that matches wins: put this one above it"
        )
    return _lacks_label(settings, route)


def _takes_all_of(first: Route, route: Route) -> bool:
    """Whether whatever the route wants is wanted by the first one as well."""
    wanted = route.conditions
    return first.source == route.source and all(
        name in wanted and all(label_fits(takes, text) for text in _texts(wanted[name]))
        for name, takes in first.conditions.items()
    )


def _texts(wanted: str | Sequence[str]) -> Sequence[str]:
    return (wanted,) if isinstance(wanted, str) else wanted


def _lacks_label(settings: Settings, route: Route) -> str:
    """Says which label that the route wants its source never has."""
    return lacked_label(settings, route, list(route.conditions))


def lacked_label(settings: Settings, route: Route, wanted: Sequence[str]) -> str:
    """Says which of these labels the pings of the route's source never have; "" if none, or if nobody knows."""
    if route.source == TASK_SOURCE or route.source not in settings.sources:
        return ""
    if settings.sources[route.source].kind_of(route.source) == _CUSTOM:
        return ""
    try:
        names = labels_of(settings, route.source).names
    except SettingsError:
        # another check says what is wrong with the source
        return ""
    lacking = [name for name in wanted if name not in names]
    if not lacking:
        return ""
    has = ", ".join(sorted(names)) or "none"
    key = f'{lacking[0]} = "json:PATH"'
    line = key if lacking[0] in _EVENT_LABELS else f"labels = {{ {key} }}"
    adds = f"{line} (or header:NAME) in [sources.{route.source}] adds it"
    return f"no ping of {route.source} has a label {lacking[0]}: it has {has}; {adds}"
