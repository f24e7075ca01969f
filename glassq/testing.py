"""Tests for handlers: runs one attempt as a child of the pool does, without a queue.

    from glassq.testing import work

    def test_a_share_without_a_photo_is_dropped() -> None:
        came = work("handlers:handle", b'{"itemId": "1"}', labels={"collection": "timeline"})
        assert (came.state, came.reason) == ("dropped", "no photo")

Routes, Context, deadline, retries, backoff and evidence are the pool's own. Everything that needs a queue or a database
is left out: `coalesce` and `dedupe_window` drop nothing here, task names are not recorded, and a handler that ignores
its deadline is not killed.
"""

from __future__ import annotations

import math
import os
import signal
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from glassq import delivery as envelope
from glassq import lifecycle, loading
from glassq import settings as configuration
from glassq.errors import SettingsError
from glassq.handler import as_handler
from glassq.handlers.program import programs
from glassq.handlers.steps import in_steps
from glassq.loading import Makers
from glassq.policy import Deadlines, deadlines_of, policy_of
from glassq.queues.base import Reservation
from glassq.routes import Context, Destination, Routes
from glassq.settings import TASK_SOURCE, Route, Settings, read_only
from glassq.values import HandlerName
from glassq.worker.executor import Executor
from glassq.worker.lease import Lease
from glassq.worker.record import as_recorded, word_of
from glassq.worker.scoreboard import Scoreboard

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from datetime import datetime

    from glassq.delivery import Delivery, Evidence
    from glassq.ledger import Entry
    from glassq.push.taskqueue import Task
    from glassq.queues import Receiver
    from glassq.routes import Handler, Result
from glassq.worker.executor import Attempt


@dataclass(frozen=True, slots=True)
class Worked:
    """The outcome of one attempt.

    `state`    "done", "dropped", "retrying" or "buried", as in the ledger and the log
    `reason`   the reason that an operator reads; "" if the delivery is done
    `result`   the handler's return value; `recorded` is its text in the ledger and the log
    `delay`    seconds until the next attempt; beanstalkd counts whole seconds, rounded up
    `evidence` the evidence that an operator sees; None if the delivery is done
    `error`    the exception that the handler raised, to inspect or raise again
    `delivery` the delivery as the queue stores it from now on; for a finished one, as the handler got it
    """

    state: str
    reason: str
    result: Result
    delay: float
    evidence: Evidence | None
    error: BaseException | None = field(repr=False)
    delivery: Delivery = field(repr=False)
    _work: Callable[[Delivery], Worked] = field(repr=False, compare=False)

    @property
    def recorded(self) -> str:
        """The result's text in the ledger and the log: masked, and with a note if they cannot hold all of it."""
        return as_recorded(self.result)[0]

    def again(self) -> Worked:
        """Runs the next attempt: after the delay, or after a kick if buried. Raises ValueError if there is none."""
        if self.state == "retrying":
            return self._work(self.delivery)
        if self.state == "buried":
            return self._work(lifecycle.after_kick(self.delivery))
        raise ValueError(f"there is no next attempt: it is {self.state}")

    def until_over(self, most: int = 100) -> Worked:
        """Runs all further attempts, without the delays, and returns the last; itself if there is none.

        Raises RuntimeError after `most` attempts: `Retry(counts=False)` retries for ever unless the handler ends it.
        """
        came = self
        for _ in range(most):
            if came.state != "retrying":
                break
            came = came.again()
        if came.state == "retrying":
            raise RuntimeError(f"not over after {most} more attempts: {came.reason}")
        return came


def work(
    handler: Callable[..., Result | Coroutine[Any, Any, Result]] | str | None,
    body: bytes | Task = b"",
    *,
    source: str = "mirror",
    labels: Mapping[str, str] | None = None,
    content_type: str = "",
    headers: Mapping[str, str] | None = None,
    attempt: int = 1,
    settings: Settings | str | Path | None = None,
    context: Context | None = None,
    deadline: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> Worked:
    """Runs a handler once on a delivery with this body, and returns the outcome.

    `handler` is a function of (delivery) or (delivery, context), plain or async, or "module:function"; None means the
    handler that the routes of `settings` select. `body` may be a taskqueue.Task: the label "queue" names its queue, by
    default "default"; if the settings have a [push] section, that queue's retry rule applies. With a later `attempt`,
    all attempts before it count as failed. `settings` is the path of a glassq.toml or a Settings value, by default all
    defaults. `headers` are those that the source keeps; their names become lower case, as intake makes them. Pass a
    `context` instead to replace, with `provide`, anything that the handler gets by `resource`.
    `options` are the handler's own settings, in place of [handlers.NAME].
    `deadline` is the soft deadline in seconds; it interrupts the handler as the pool does: by SIGALRM, in the main
    thread.

    Raises SettingsError if a pool would refuse to start. Passes KeyboardInterrupt on.
    """
    if context is None:
        context = Context(_settings(settings))
    elif settings is not None:
        raise TypeError("a context has its settings: give one of the two")
    new = _delivery(body, source, dict(labels or {}))
    kept = {name.lower(): value for name, value in (headers or {}).items()}
    new = msgspec.structs.replace(new, content_type=content_type, headers=kept)
    loaded = _routes(handler, new.source, context)
    loaded.prepare(context)
    return _Child(loaded, context, deadline, options).work(
        msgspec.structs.replace(new, attempt=attempt, failures=attempt - 1)
    )


@dataclass(frozen=True, slots=True)
class _Child:
    """The parts that all attempts share."""

    routes: Routes
    context: Context
    deadline: float | None
    options: Mapping[str, Any] | None

    def work(self, delivery: Delivery) -> Worked:
        # as the queue would return it, without parts that a job has no room for
        delivery = envelope.decode(envelope.encode(delivery))
        destination = self._match(delivery)
        settings = self.context.settings
        route = destination.route if destination else None
        soft = deadlines_of(settings, route).soft if self.deadline is None else self.deadline
        policy = policy_of(settings, route)
        lease = Lease(cast("Receiver", _NoQueue()), math.inf, Scoreboard(1).slots[0])
        deadlines = Deadlines(soft=soft, hard=math.inf)
        executor = Executor(
            self.routes, self.context, _NoLedger(), lease, policy, deadlines, passing=(KeyboardInterrupt,)
        )
        with _kept(lease) if self.deadline is not None else nullcontext():
            attempt = executor.run(Reservation("", "", b"", math.inf), delivery, self._for_test(destination))
        outcome = attempt.outcome
        return Worked(
            state=word_of(outcome.kind),
            reason=outcome.reason,
            result=outcome.result,
            delay=outcome.delay,
            evidence=attempt.evidence,
            error=attempt.error,
            delivery=_stored(attempt),
            _work=self.work,
        )

    def _for_test(self, destination: Destination | None) -> Destination | None:
        """The destination with what the tester has given."""
        if destination is None:
            return None
        options = destination.options if self.options is None else read_only(self.options)
        # the executor's deadlines know of the tester's
        return replace(destination, deadlines=None, options=options)

    def _match(self, delivery: Delivery) -> Destination | None:
        found = self.routes.match(delivery)
        if found and found.route.handler.is_url:
            raise SettingsError(f"the route leads to {found.route.handler}: an endpoint is tested by a request to it")
        return found


@contextmanager
def _kept(lease: Lease) -> Iterator[None]:
    """The lease's keeper runs meanwhile; the signal that it interrupts by is the tester's again afterwards."""
    before = signal.getsignal(signal.SIGALRM)
    lease.start_keeper(cold=lambda: False, orphaned=lambda: None)
    try:
        yield
    finally:
        lease.stop_keeper()
        signal.signal(signal.SIGALRM, before)


class _NoQueue:
    """The queue of an endless lease: it is never asked to extend it, and has nothing under way."""

    def tend(self) -> None: ...


class _NoLedger:
    """A ledger that knows nothing."""

    def record(self, entry: Entry) -> None: ...

    def done_since(self, fingerprint: str, after: datetime, *, but: str) -> str:
        return ""

    def event_done(self, event: str, since: datetime, *, but: str) -> str:
        return ""

    def settle(self, patience: float) -> None: ...

    def close(self) -> None: ...


def _stored(attempt: Attempt) -> Delivery:
    """The delivery as the queue stores it from now on; of a finished one, as the handler got it."""
    following = attempt.following
    return following if following is attempt.delivery else envelope.decode(envelope.encode(following))


def _settings(given: Settings | str | Path | None) -> Settings:
    if isinstance(given, str | Path):
        return configuration.load(str(given), {})
    return given or Settings()


def _delivery(body: bytes | Task, source: str, labels: dict[str, str]) -> Delivery:
    if isinstance(body, bytes):
        return envelope.new(source, body, labels)
    new = envelope.new(TASK_SOURCE, body.payload or b"", {})
    request = body.request(labels.get("queue", "default"), new.id)
    return msgspec.structs.replace(new, labels={**request.labels(), **labels})


def _routes(handler: Callable[..., Any] | str | None, source: str, context: Context) -> Routes:
    settings = context.settings
    if handler is None:
        return loading.load(settings, _makers(context))
    if isinstance(handler, str):
        route = Route(source=source, handler=HandlerName(handler))
        return loading.load(msgspec.structs.replace(settings, routes=(route,), push=None), _makers(context))
    made = _tasks(context) if source == TASK_SOURCE else Destination
    route = Route(source=source, handler=HandlerName("testing:handler"))
    return Routes([made(route, as_handler(handler, repr(handler)))])


def _makers(context: Context) -> Makers:
    return Makers(_endpoints(context), programs(context.settings, os.environ), in_steps, _tasks(context))


def _endpoints(context: Context) -> Callable[[Route], Destination]:
    """Makes the destination of a route whose handler or step is a URL."""
    settings = context.settings
    if settings.push is None:
        return _endpoint
    from glassq.push import queue_yaml
    from glassq.push.endpoints import endpoints

    return endpoints(settings, queue_yaml.load(settings.push.queue_yaml, settings.push.targets))


def _tasks(context: Context) -> Callable[[Route, Handler], Destination]:
    """Makes a task route's destination, as in the pool, but without recording task names."""
    settings = context.settings
    if settings.push is None:
        return Destination
    # imported here: it loads a database library, which most handlers do not need
    from glassq.push import queue_yaml
    from glassq.push.dispatch import Dispatcher
    from glassq.push.endpoints import task_handlers

    queues = queue_yaml.load(settings.push.queue_yaml, settings.push.targets)
    context.provide(Dispatcher.open, replace(Dispatcher.open(settings, queues), names=cast("Any", _NoNames())))
    return task_handlers(settings, queues)


class _NoNames:
    """Replaces push.names.Names."""

    def touch(self, queue: str, name: str) -> None: ...

    def mark_finished(self, queue: str, *names: str) -> bool:
        return True


def _endpoint(route: Route) -> Destination:
    """Never called: `_match` stops there."""
    return Destination(route, lambda _delivery, _context: None)
