"""What the keys of a route must keep together, and with other sections."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from glassq.mistakes import nearest
from glassq.settings.options import options_of
from glassq.settings.parking import SUFFIX
from glassq.settings.route import DEFERRED_NAME, MAX_NAME, NO_HANDLER, TASKS_NAME
from glassq.settings.sections import COLLECTIONS, SCHEDULE_SOURCE, TASK_SOURCE
from glassq.settings.tubes import route_tube, source_tube

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.settings.route import Route
    from glassq.settings.settings import Settings

# Whether the rule holds, the key, its value, and what is expected of it.
Rule = tuple[bool, str, object, str]
# The longest name of a tube that beanstalkd takes.
MAX_TUBE = 200
SOURCE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# More are no limit: a pool has fewer children and lanes.
MAX_CONCURRENCY = 4000
# What an exit code of a program may mean.
MEANINGS = ("done", "drop", "retry", "bury")
# What its section may say of a program, which gets no other options.
_PROGRAM_KEYS = ("exit_codes", "environment")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The limits that tasks, and pings for a URL, have from their queue.
_QUEUE_LIMITS = ("max_attempts", "backoff", "backoff_cap", "concurrency")
_NAME = re.compile(rf"[a-z0-9][a-z0-9-]{{0,{MAX_NAME - 1}}}")


def route_rules(settings: Settings) -> Iterator[Rule]:
    """The rules of all routes."""
    names = [DEFERRED_NAME, TASKS_NAME, *(route.name for route in settings.routes)]
    for index, route in enumerate(settings.routes):
        at = f"routes.{index}"
        fits, expected = bool(_NAME.fullmatch(route.name)), f"a name of 1 to {MAX_NAME} of a-z 0-9 and -, not - first"
        yield fits, f"{at}.name", route.name, expected
        fits, expected = names.count(route.name) == 1, "a name that no other route has"
        yield fits, f"{at}.name", route.name, expected
        yield from _handler_rules(at, route, settings)
        yield from _program_rules(at, route, settings)
        yield from _match_rules(at, route)
        yield from _limit_rules(at, route, settings)


def without_handler(settings: Settings) -> Iterator[str]:
    """The keys of routes that say nothing to do."""
    for index, route in enumerate(settings.routes):
        if route.handler == NO_HANDLER and route.steps is None:
            yield f"routes.{index}"


def _handler_rules(at: str, route: Route, settings: Settings) -> Iterator[Rule]:
    # a route with an unknown source would match nothing, and its pings would be dropped as "no route"; a machine
    # without intake needs no sections of sources
    known = (*settings.sources, TASK_SOURCE, SCHEDULE_SOURCE)
    elsewhere = not settings.sources and bool(SOURCE_NAME.fullmatch(route.source))
    yield (
        route.source in known or elsewhere,
        f"{at}.source",
        route.source,
        f"one of: {', '.join(known)}{nearest(route.source, known)}",
    )
    both = route.steps is not None and route.handler != NO_HANDLER
    yield not both, f"{at}.handler", route.handler, "no handler beside steps, or no steps"
    steps = ", ".join(route.steps or ())
    yield route.steps != (), f"{at}.steps", steps, 'handlers, such as ["module:function", "https://HOST/PATH"]'
    names = [step.name for step in route.steps or ()]
    fits, expected = len({*names}) == len(names), 'a name of its own for each: { name = "NAME", handler = "HANDLER" }'
    yield fits, f"{at}.steps", steps, expected
    to_url = route.needs_push
    fits = not to_url or settings.push is not None
    yield fits, f"{at}.{_key(route)}", route.handler or steps, "a [push] section, which URLs need"
    of_tasks = route.source == TASK_SOURCE
    fits = route.queue is None or to_url or of_tasks
    expected = f'none: it is for tasks (source = "{TASK_SOURCE}") and for handlers that are a URL'
    yield fits, f"{at}.queue", route.queue or "", expected
    fits, expected = route.url is None or of_tasks, f'none: it is for tasks (source = "{TASK_SOURCE}")'
    yield fits, f"{at}.url", route.url or "", expected
    fits, expected = route.secret_file is None or to_url, "none: it is for handlers that are a URL"
    yield fits, f"{at}.secret_file", route.secret_file, expected


def _program_rules(at: str, route: Route, settings: Settings) -> Iterator[Rule]:
    """What [handlers.NAME] may say of a program."""
    for handler in route.handlers:
        if not handler.is_program:
            continue
        for key in settings.handlers.get(handler, {}):
            expected = f"no key {key} in its [handlers] section, but {' or '.join(_PROGRAM_KEYS)}"
            yield key in _PROGRAM_KEYS, f"{at}.{_key(route)}", handler, expected
        options = options_of(settings, route, handler)
        codes, names = options.get("exit_codes", {}), options.get("environment", ())
        fits = isinstance(codes, Mapping) and all(
            re.fullmatch(r"[1-9][0-9]{0,2}", str(code)) and int(code) < 256 and meaning in MEANINGS
            for code, meaning in codes.items()
        )
        expected = f'exit_codes = {{ 65 = "bury" }} in its [handlers] section: 1 to 255, each {" or ".join(MEANINGS)}'
        yield fits, f"{at}.{_key(route)}", handler, expected
        fits = isinstance(names, tuple) and all(isinstance(name, str) and _VARIABLE.fullmatch(name) for name in names)
        expected = 'environment = ["NAME"] in its [handlers] section: names of variables that the pool has'
        yield fits, f"{at}.{_key(route)}", handler, expected


def _key(route: Route) -> str:
    """The key that names its handlers."""
    return "handler" if route.steps is None else "steps"


def _match_rules(at: str, route: Route) -> Iterator[Rule]:
    match, words = route.match or {}, COLLECTIONS.get(route.source, ())
    named = route.match is None or bool(match)
    yield named, f"{at}.match", "", 'labels, such as { event = "push" }; without match, a route takes all'
    for name, wanted in match.items():
        several = (wanted,) if isinstance(wanted, str) else wanted
        right = bool(several) and all(text and "*" not in text[:-1] and text.isprintable() for text in several)
        expected = 'a text, a text with * at its end for all that begin so, or a list of these: ["opened", "closed"]'
        yield right, f"{at}.match.{name}", ", ".join(several), expected
    for name in ("collection", "operation"):
        given = getattr(route, name)
        yield given is None or name not in match, f"{at}.{name}", given, f"none beside match, which has {name}"
    collection = route.conditions.get("collection", "")
    known = not isinstance(collection, str) or collection in ("", *words) or collection.endswith("*") or not words
    key = "collection" if route.collection else "match.collection"
    yield known, f"{at}.{key}", collection, f"one of: {', '.join(words)}"


def _limit_rules(at: str, route: Route, settings: Settings) -> Iterator[Rule]:
    window, kept = route.dedupe_window, settings.ledger.retention
    fits = window is None or 0 < window <= kept
    yield fits, f"{at}.dedupe_window", window or 0, f"up to {kept}, as long as [ledger] retention"
    fits = route.deadline is None or route.deadline >= 1
    yield fits, f"{at}.deadline", route.deadline, "at least 1s"
    yield route.backoff is None or route.backoff >= 1, f"{at}.backoff", route.backoff, "at least 1s"
    backoff, cap = route.backoff or settings.worker.backoff, route.backoff_cap or settings.worker.backoff_cap
    fits = cap >= backoff or (route.backoff is None and route.backoff_cap is None)
    if route.backoff_cap is not None:
        yield fits, f"{at}.backoff_cap", cap, f"at least backoff, {backoff}"
    yield fits, f"{at}.backoff", backoff, f"at most backoff_cap, {cap}"
    most = route.concurrency or 1
    yield most <= MAX_CONCURRENCY, f"{at}.concurrency", most, f"1 to {MAX_CONCURRENCY}"
    longest = len(route_tube(settings, route))
    expected = f"a shorter one: with [queue] tube before it, it has {longest} of {MAX_TUBE} characters"
    yield longest <= MAX_TUBE, f"{at}.name", route.name, expected
    yield from _gate_rules(at, route, settings)
    yield from _queue_limit_rules(at, route)


def _gate_rules(at: str, route: Route, settings: Settings) -> Iterator[Rule]:
    """What is parked is in tubes that are named after the route, and after the tube that it came from."""
    if route.concurrency_by is None and route.breaker is None:
        return
    origins = [str(settings.queue.tube), route_tube(settings, route), source_tube(settings, route.source)]
    longest = max(map(len, origins)) + SUFFIX + len(route.name)
    expected = f"a shorter one: with its tube before it, a tube of its parked deliveries has {longest} of {MAX_TUBE}"
    yield longest <= MAX_TUBE, f"{at}.name", route.name, f"{expected} characters"


def _queue_limit_rules(at: str, route: Route) -> Iterator[Rule]:
    """Tasks, and pings for a URL, have the limits of their queue; but a URL may have limits of its own."""
    if route.source == TASK_SOURCE:
        expected = "none: tasks have the limits of their queue in queue.yaml (rate, max_concurrent_requests, retry_...)"
    elif route.queue is not None:
        expected = f'none: queue = "{route.queue}" has its limits in queue.yaml; without queue, give concurrency too'
    elif route.needs_push and (route.concurrency is None or route.concurrency_by):
        expected = "concurrency beside it, and no concurrency_by: else a URL has the limits of its queue in queue.yaml"
    else:
        return
    for key in _QUEUE_LIMITS:
        value = getattr(route, key)
        # how many of one key is no limit of the queue's
        fits = value is None or (key == "concurrency" and route.concurrency_by is not None)
        yield fits, f"{at}.{key}", value, expected
