"""Which handler a delivery goes to, and what a handler gets.

A handler is a function of a delivery, or of a delivery and a Context, plain or `async`:

    def handle(delivery: Delivery) -> str | dict | None: ...
    async def handle(delivery: Delivery, context: Context) -> str | dict | None: ...

handler.py says how other functions are called. The return value, a string or a small dict, is recorded in the ledger.

Handlers' authors import `Context`, `requires` and `retry_policy` from here. The names of release 0.2 (`needs`,
`retried_by`, `Context.once`, `Context.keep`) are aliases for one more release.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import msgspec

from glassq.errors import GlassqError, SettingsError
from glassq.event_loop import EventLoop, Shared, Stoppable, detached
from glassq.excerpts import MAX_MESSAGE, words_of
from glassq.handler import finished
from glassq.log import fields, logger
from glassq.settings import DEFERRED_NAME, TASK_SOURCE, TASKS_NAME, FirstMatch, Route
from glassq.values import HandlerName, UrlPattern

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glassq.bodies import BodyStore
    from glassq.delivery import Delivery, Evidence, StepResult
    from glassq.errors import Interrupt
    from glassq.policy import Deadlines, Policy
    from glassq.settings import Settings

log = logger("glassq.worker")

T = TypeVar("T")
# The routes of tasks that no route of the settings takes: deferred calls, and requests to HTTP endpoints.
DEFERRED = Route(
    source=TASK_SOURCE,
    name=DEFERRED_NAME,
    handler=HandlerName("glassq.push.deferred:handle"),
    url=UrlPattern("/_ah/queue/deferred"),
)
TASKS = Route(source=TASK_SOURCE, name=TASKS_NAME, handler=HandlerName("glassq.push.dispatch:post"))
Result = str | dict[str, Any] | None
# What a handler's call gives may be a coroutine of the result.
Handler = Callable[["Delivery", "Context"], Any]


@dataclass(slots=True)
class Context:
    """What a handler may use beside its delivery. Each worker process has one, for as long as it lives.

    In a process that works many deliveries at once, each of its threads has one; all share the resources.
    """

    settings: Settings
    #: the soft deadline of the current attempt, on time.monotonic()
    deadline: float = float("inf")
    #: the handler's own settings, [handlers.NAME], read-only
    options: Mapping[str, Any] = field(default_factory=dict)
    #: the hard deadline, when the process is killed, on the same clock
    hard: float = float("inf")
    #: for handlers that wait for something else than Python: says why the attempt has to end now, if it has to;
    #: within `shielded` they are not interrupted otherwise
    pending: Callable[[], type[Interrupt] | None] = lambda: None
    shielded: Callable[[], AbstractContextManager[None]] = nullcontext
    #: the results of the steps before this one, by their names
    results: Mapping[str, Any] = field(default_factory=dict)
    #: the step that runs, what those before it leave to later attempts, and where large results go
    step: str = ""
    done: tuple[StepResult, ...] = ()
    bodies: BodyStore | None = None
    _resources: dict[Callable[[Settings], Any], Any] = field(default_factory=dict)
    _making: threading.RLock = field(default_factory=threading.RLock)
    # in the main thread of a child a signal interrupts the handler
    _stoppable: Stoppable = nullcontext
    #: where coroutines run
    loop: EventLoop = field(default_factory=EventLoop)

    def remaining(self) -> float:
        """Seconds until this attempt's soft deadline; 0 if it has passed."""
        return max(0.0, self.deadline - time.monotonic())

    def resource(self, make: Callable[[Settings], T]) -> T:
        """`make(settings)`, called once per process: for clients, caches, connections. The same object every time.

        If `make` is an `async def`, await what this returns: it gives the same object every time.
        """
        if make not in self._resources:
            with self._making:
                if make not in self._resources:
                    self._resources[make] = self._make(make)
        return cast("T", self._resources[make])

    def stoppable(self, stop: Callable[[], None]) -> AbstractContextManager[object]:
        """Use it around what waits, in a handler that may run in a thread that no signal can interrupt.

        There, `stop()` is called from another thread when the attempt must end, and the exit raises the Interrupt. In
        the main thread the Interrupt is raised in the block itself.
        """
        return self._stoppable(stop)

    @property
    def in_lane(self) -> bool:
        """Whether the attempt runs in such a thread."""
        return self._stoppable is not nullcontext

    def complete(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs the coroutine in this process's event loop, under the attempt's deadline; returns its result."""
        return self.loop.complete(coroutine, self.stoppable)

    def for_thread(self, stoppable: Stoppable) -> Context:
        """A context for another thread of this process, with the same resources."""
        return replace(self, _stoppable=stoppable)

    def _make(self, make: Callable[[Settings], Any]) -> Any:
        def made() -> Any:
            found = make(self.settings)
            if not issubclass(type(found), Coroutine):
                return found
            return Shared(found, lambda: self._resources.pop(make, None))

        return detached(made)

    def provide(self, make: Callable[[Settings], T], resource: T) -> None:
        """From now on `resource(make)` returns this object. For tests, and for resources made elsewhere."""
        self._resources[make] = resource

    def once(self, make: Callable[[Settings], T]) -> T:
        """The old name of `resource`."""
        return self.resource(make)

    def keep(self, make: Callable[[Settings], T], made: T) -> None:
        """The old name of `provide`."""
        self.provide(make, made)


class RetryPolicy(Protocol):
    """When to retry a failed delivery. Any object with this method is one."""

    def after(self, failures: int, age: float) -> float | None:
        """Seconds to wait after so many failed attempts (1 or more); None: give up, and bury the delivery.

        `age` is the number of seconds since the first attempt began.
        """


@dataclass(frozen=True, slots=True)
class HandlerMarks:
    """What decorators have said about a handler. `for_tasks`: see `push.dispatch.of_tasks`."""

    requires: Callable[[Settings], Any] | None = None
    preload: Callable[[Settings], object] | None = None
    retry_policy: Callable[[Delivery, Context], RetryPolicy] | None = None
    for_tasks: bool = False


# The one attribute that decorators set on a handler. functools.wraps copies it to whatever wraps the handler.
_MARKS = "__glassq_marks__"


def marks_of(handler: Handler) -> HandlerMarks:
    """What decorators have said about this handler."""
    marks: HandlerMarks = getattr(handler, _MARKS, HandlerMarks())
    return marks


def mark(handler: Handler, **changes: Any) -> Handler:
    """Sets these fields of the handler's HandlerMarks; returns the same handler."""
    setattr(handler, _MARKS, replace(marks_of(handler), **changes))
    return handler


def requires(
    make: Callable[[Settings], Any], *, preload: Callable[[Settings], object] | None = None
) -> Callable[[Handler], Handler]:
    """Decorates a handler that uses `context.resource(make)`: the pool makes it before it takes the first delivery.

    If `make` raises SettingsError, the pool does not start. `preload(settings)` imports what `make` will need; it is
    called once, in the process that the pool's children are forked from, and must open nothing.
    """
    return lambda handler: mark(handler, requires=make, preload=preload)


def retry_policy(policy: Callable[[Delivery, Context], RetryPolicy]) -> Callable[[Handler], Handler]:
    """Decorates a handler whose deliveries are retried by the RetryPolicy that `policy` returns, not by the route's."""
    return lambda handler: mark(handler, retry_policy=policy)


# The old names of `requires` and `retry_policy`.
needs, retried_by = requires, retry_policy


def call(handler: Handler, delivery: Delivery, context: Context) -> Result:
    """Calls the handler, plain or async; returns its result. Raises what it raises, and Bury for unfinished work."""
    called = handler(delivery, context)
    # also where a decorator hides the async def
    if called is not None and issubclass(type(called), Coroutine):
        called = context.complete(called)
    return cast("Result", finished(called))


@dataclass(frozen=True, slots=True)
class Destination:
    """A route with its handler loaded. Deliveries must come from `tube`; "": from any.

    `in_lanes`: the handler may run in a thread that no signal can interrupt (see `Context.stoppable`). `alone`: lane
    children reserve from `tube`, and a delivery that has lost an attempt there is worked alone, out of this tube ("":
    plain children work all). `policy` and `deadlines` are those of the route (None: the pool's count). `options` are
    the handler's own settings, read-only. `parts` are the handlers of its steps.
    """

    route: Route
    handler: Handler
    tube: str = ""
    in_lanes: bool = False
    alone: str = ""
    policy: Policy | None = None
    deadlines: Deadlines | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[Handler, ...] = ()

    @property
    def handlers(self) -> tuple[Handler, ...]:
        """Its handler, or those of its steps."""
        return self.parts or (self.handler,)

    def prepare(self, context: Context) -> None:
        """Makes the resources that its handlers require, as `Routes.prepare` says."""
        for handler in self.handlers:
            make = marks_of(handler).requires
            if make is None:
                continue
            try:
                context.resource(make)
            except SettingsError:
                raise
            except Exception as error:
                why = error if isinstance(error, GlassqError) else words_of(error, MAX_MESSAGE)
                log.warning("not ready for deliveries yet %s", fields(why=why))

    def tube_of(self, delivery: Delivery) -> str:
        """The tube that the delivery must come from; "": any."""
        return self.alone if self.alone and delivery.lost else self.tube

    def work(self, delivery: Delivery, context: Context) -> Result:
        """Calls the handler; returns its result. Raises what it raises, and Bury if it returned unfinished work."""
        return call(self.handler, _copy(delivery), context)

    def retry_policy(self, delivery: Delivery, context: Context) -> RetryPolicy | None:
        """The handler's own retry policy for this delivery; None: the route's counts."""
        policy = marks_of(self.handler).retry_policy
        return None if policy is None else policy(_copy(delivery), context)


def _copy(delivery: Delivery) -> Delivery:
    """A copy for the handler, so that its changes to labels or details do not reach later attempts."""
    labels, headers, evidence = dict(delivery.labels), dict(delivery.headers), tuple(map(_own, delivery.evidence))
    return msgspec.structs.replace(delivery, labels=labels, headers=headers, evidence=evidence)


def _own(failure: Evidence) -> Evidence:
    # by JSON, where the details came from: copy.deepcopy fails on deep nesting
    return msgspec.structs.replace(failure, detail=msgspec.json.decode(msgspec.json.encode(failure.detail)))


class Routes:
    """The routes of the settings with their handlers loaded. The first route that matches a delivery gets it."""

    def __init__(self, destinations: list[Destination]) -> None:
        self._destinations = destinations
        self._first = FirstMatch((found.route, found) for found in destinations)

    def prepare(self, context: Context) -> None:
        """Makes the resources that handlers require (see `requires`), before the first delivery is reserved.

        Raises SettingsError, so that a secret that cannot be read stops the start and costs no attempt. Any other
        failure may be temporary, so it is logged, and the handler's first delivery tries again.
        """
        for destination in self._destinations:
            destination.prepare(context)

    @property
    def lane_routes(self) -> list[Destination]:
        """Those that lane children work."""
        return [found for found in self._destinations if found.alone]

    def match(self, delivery: Delivery) -> Destination | None:
        """Where this delivery goes; None if no route matches."""
        return self._first.of(delivery.source, delivery.labels)


def all_routes(settings: Settings) -> tuple[Route, ...]:
    """All routes in order: those of the settings, then those that a [push] section adds."""
    if settings.push is None:
        return settings.routes
    return (*settings.routes, *((DEFERRED,) if settings.push.deferred else ()), TASKS)
