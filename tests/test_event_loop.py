"""Handlers that are coroutines, as glassq.testing.work runs them: in the process's loop, like a plain child."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest

from glassq import delivery as envelope
from glassq import event_loop
from glassq.errors import Bury, DeadlineExceeded, Drop, Retry, SettingsError
from glassq.event_loop import BLOCKED, Blocked
from glassq.routes import Context, requires
from glassq.settings import Settings
from glassq.testing import work
from tests.conftest import wait_for
from tests.test_docs import files

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from glassq.delivery import Delivery


async def answers(delivery: Delivery, context: Context) -> str:
    await asyncio.sleep(0)
    return f"{delivery.text()} {context.remaining() > 0}"


async def raises(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def waits_for_ever(_delivery: Delivery) -> None:
    await asyncio.sleep(1000)


async def tidies_up(_delivery: Delivery) -> str:
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        await asyncio.sleep(0)
        return "tidied up"
    return "never"


async def gives_up_itself(_delivery: Delivery) -> None:
    task = asyncio.ensure_future(asyncio.sleep(1000))
    asyncio.get_running_loop().call_soon(task.cancel)
    await task


def hides(_delivery: Delivery) -> Any:
    return raises(Drop("hidden"))


OUTCOMES: dict[str, tuple[Callable[..., Any], str, str]] = {
    "returns": (answers, "done", ""),
    "drops": (lambda _: raises(Drop("no")), "dropped", "no"),
    "retries": (lambda _: raises(Retry("busy")), "retrying", "busy"),
    "buries": (lambda _: raises(Bury("broken")), "buried", "broken"),
    "fails": (lambda _: raises(ValueError("x")), "retrying", "ValueError: x"),
    "exits": (lambda _: raises(SystemExit(3)), "retrying", "SystemExit: 3"),
    "hidden by a decorator": (hides, "dropped", "hidden"),
    "awaits what was cancelled": (gives_up_itself, "retrying", "CancelledError"),
    "overruns": (waits_for_ever, "retrying", "the handler overran its deadline"),
    "returns when it is cancelled": (tidies_up, "done", ""),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_a_coroutine_decides_the_outcome_as_a_plain_function_does(name: str) -> None:
    handler, state, reason = OUTCOMES[name]
    came = work(handler, b"a", deadline=0.05 if handler in (waits_for_ever, tidies_up) else None)
    assert (came.state, came.reason) == (state, reason)
    if name == "overruns":
        assert isinstance(came.error, DeadlineExceeded)
        assert came.evidence is not None
        assert "await asyncio.sleep(1000)" in came.evidence.traceback, "where it was"


def test_tasks_that_a_handler_leaves_are_cancelled_and_named_and_those_of_a_resource_live(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended: list[str] = []

    async def lives(name: str) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(name)

    class Client:
        def __init__(self, _settings: Settings) -> None:
            self.task = asyncio.ensure_future(lives("client"))

    async def handler(_delivery: Delivery, context: Context) -> str:
        task = asyncio.create_task(lives("left"))
        await asyncio.sleep(0)
        return "working" if not context.resource(Client).task.done() and not task.done() else "over"

    context = Context(Settings())
    with caplog.at_level(logging.WARNING):
        assert work(handler, context=context).result == "working"
    wait_for(lambda: ended == ["left"], "the task to be cancelled")
    assert "cancelled the tasks that a handler left" in caplog.text
    assert "lives" in caplog.text
    assert work(handler, context=context).result == "working", "the client is kept"


def test_a_resource_that_is_made_by_a_coroutine_is_made_once_and_again_after_a_failure() -> None:
    made: list[int] = []

    async def connect(_settings: Settings) -> str:
        made.append(1)
        await asyncio.sleep(0)
        if len(made) == 1:
            raise ConnectionError("not yet")
        return "connected"

    async def handler(_delivery: Delivery, context: Context) -> str:
        one, two = await asyncio.gather(context.resource(connect), context.resource(connect))
        return f"{one} {two}"

    context = Context(Settings())
    assert work(handler, context=context).reason == "ConnectionError: not yet"
    assert work(handler, context=context).result == "connected connected"
    assert work(handler, context=context).result == "connected connected"
    assert len(made) == 2


def test_the_example_of_the_documents_keeps_its_connection() -> None:
    example: dict[str, Any] = {}
    exec(compile(files("other-handlers.md")["async_handlers.py"], "async_handlers.py", "exec"), example)
    connections: list[int] = []
    opened: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        while line := await reader.readline():
            writer.write(b"indexed " + line)
        writer.close()
        await writer.wait_closed()

    async def connect(_settings: Settings) -> Any:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        made = example["Index"](*await asyncio.open_connection(*server.sockets[0].getsockname()))
        opened.extend((made.writer, server))
        return made

    async def close() -> None:
        for each in opened:
            each.close()
            await each.wait_closed()

    context = Context(Settings())
    example["connect"] = connect
    bodies = [b'{"id": "%d", "state": "paid"}' % number for number in (1, 2)]
    came = [work(example["handle"], body, source="orders", context=context) for body in bodies]
    assert [each.result for each in came] == ["indexed 1", "indexed 2"]
    assert connections == [1]
    context.complete(close())


def test_an_attempt_that_is_cut_off_leaves_what_others_wait_for() -> None:
    made: list[int] = []
    go_on = threading.Event()

    async def connect(_settings: Settings) -> str:
        made.append(1)
        await asyncio.to_thread(go_on.wait)
        return "connected"

    async def handler(_delivery: Delivery, context: Context) -> str:
        return await context.resource(connect)  # type: ignore[misc]

    context = Context(Settings())
    assert work(handler, context=context, deadline=0.05).reason == "the handler overran its deadline"
    go_on.set()
    assert work(handler, context=context).result == "connected"
    assert len(made) == 1


def test_what_a_handler_requires_is_made_in_its_loop_before_the_first_attempt() -> None:
    def client(_settings: Settings) -> object:
        return asyncio.get_running_loop()

    def broken(_settings: Settings) -> object:
        raise SettingsError("no key")

    @requires(client)
    async def handler(_delivery: Delivery, context: Context) -> str:
        return str(context.resource(client) is asyncio.get_running_loop())

    @requires(broken)
    async def refused(_delivery: Delivery, _context: Context) -> None: ...

    assert work(handler).result == "True"
    with pytest.raises(SettingsError, match="no key"):
        work(refused)


def test_several_run_at_once_and_each_in_the_context_of_its_thread() -> None:
    context, done = Context(Settings()), []
    mine: ContextVar[str] = ContextVar("mine")
    both = threading.Barrier(2)

    async def meets() -> None:
        await asyncio.to_thread(both.wait)
        done.append(mine.get())

    def runs(name: str) -> None:
        mine.set(name)
        context.complete(meets())

    threads = [threading.Thread(target=runs, args=[name]) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == ["a", "b"]


def test_a_handler_that_blocks_the_loop_is_named_with_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    go_on = threading.Event()

    async def blocks() -> None:
        go_on.wait()

    context = Context(Settings())
    loop = context.loop
    thread = threading.Thread(target=context.complete, args=[blocks()])
    thread.start()
    try:
        # the time is not the test's
        moments = [time.monotonic(), time.monotonic() + 2 * BLOCKED]
        found: list[Blocked] = []

        def named() -> bool:
            found.extend(filter(None, map(loop.blocked, moments)))
            return bool(found)

        with caplog.at_level(logging.WARNING):
            wait_for(named, "it to be named")
        assert found[0].handler.endswith("blocks")
        assert __file__ in found[0].stack
        assert " in blocks" in found[0].stack
        assert "handler blocks the event loop" in caplog.text
    finally:
        go_on.set()
        thread.join()
    wait_for(lambda: loop.blocked(time.monotonic()) is None, "the loop to turn")


def test_an_interrupt_before_the_loop_was_asked_to_begin_ends_the_wait() -> None:
    loop, cancelled = asyncio.new_event_loop(), DeadlineExceeded()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        running = event_loop._Running(waits_for_ever(envelope.new("shop", b"", {})), loop)
        running.cancel()
        assert running.ended.wait(10)
        with pytest.raises(DeadlineExceeded):
            running.outcome(cancelled)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
