"""Which arguments a handler gets, what cannot be one, and when its work is over."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import itertools
import operator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

from glassq.errors import Bury, DeadlineExceeded, SettingsError
from glassq.handler import as_handler, finished, is_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from glassq.routes import Context

DELIVERY, CONTEXT = "the delivery", "the context"


# -- decorators, as people write them ----------------------------------------------------------------------------------


def bare(function: Callable[..., Any]) -> Callable[..., Any]:
    def w(*a: Any, **k: Any) -> Any:
        return function(*a, **k)

    return w


def wrapping(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def w(*a: Any, **k: Any) -> Any:
        return function(*a, **k)

    return w


def bare_with_options(on_error: Callable[[Exception], None], times: int = 3) -> Callable[..., Any]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def w(*args: Any) -> Any:
            for _ in range(times):
                try:
                    return function(*args)
                except ValueError as error:
                    on_error(error)
            return None

        return w

    return decorate


def bare_with_rest(function: Callable[..., Any]) -> Callable[..., Any]:
    def w(delivery: Any, *rest: Any, **options: Any) -> Any:
        return function(delivery, *rest, **options)

    return w


class Holding:
    """A decorator that is a class."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def narrowing(function: Callable[[Any], Any]) -> Callable[..., Any]:
    """Takes what the pool gives, whatever its function takes."""

    @functools.wraps(function)
    def w(delivery: Any, context: Any) -> Any:
        return (*function(delivery), context)

    return w


def complain(error: Exception) -> None: ...


# -- handlers ----------------------------------------------------------------------------------------------------------


def one(delivery: Any) -> Any:
    return (delivery,)


def two(delivery: Any, context: Any) -> Any:
    return delivery, context


def second_of_any_name(delivery: Any, things: Any) -> Any:
    return delivery, things


def with_retries(delivery: Any, retries: int = 3) -> Any:
    return delivery, retries


def optional_context(delivery: Any, context: Any = None) -> Any:
    return delivery, context


def annotated(delivery: Any, given: Context | None = None) -> Any:
    return delivery, given


def context_last(delivery: Any, retries: int = 3, context: Any = None) -> Any:
    return delivery, retries, context


def context_by_name(delivery: Any, *, context: Any) -> Any:
    return delivery, context


def by_position_only(delivery: Any, context: Any, /) -> Any:
    return delivery, context


def option_by_name(delivery: Any, *, colour: str = "green") -> Any:
    return delivery, colour


def anything(*args: Any) -> Any:
    return args


class Handlers:
    def one(self, delivery: Any) -> Any:
        return (delivery,)

    def two(self, delivery: Any, context: Any) -> Any:
        return delivery, context

    @bare
    def bare_one(self, delivery: Any) -> Any:
        return (delivery,)

    @wrapping
    def wrapped_one(self, delivery: Any) -> Any:
        return (delivery,)

    @staticmethod
    def static(delivery: Any) -> Any:
        return (delivery,)

    @classmethod
    def of_class(cls, delivery: Any, context: Any) -> Any:
        return delivery, context

    def __call__(self, delivery: Any) -> Any:
        return (delivery,)


ONE, BOTH = (DELIVERY,), (DELIVERY, CONTEXT)
CALLS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "one argument": (one, ONE),
    "two arguments": (two, BOTH),
    "a second argument of any name": (second_of_any_name, BOTH),
    "a lambda": (lambda d: (d,), ONE),
    "a default that is no context": (with_retries, (DELIVERY, 3)),
    "a context that may be left out": (optional_context, BOTH),
    "a context by its annotation": (annotated, BOTH),
    "a context behind another default": (context_last, (DELIVERY, 3, CONTEXT)),
    "a context by name alone": (context_by_name, BOTH),
    "by position alone": (by_position_only, BOTH),
    "an option by name": (option_by_name, (DELIVERY, "green")),
    "any arguments": (anything, BOTH),
    "a method": (Handlers().one, ONE),
    "a method of two": (Handlers().two, BOTH),
    "a static method": (Handlers.static, ONE),
    "a class method": (Handlers.of_class, BOTH),
    "an object": (Handlers(), ONE),
    "a partial": (functools.partial(second_of_any_name, things=1), (DELIVERY, 1)),
    "a partial that has the context": (functools.partial(two, context=1), (DELIVERY, 1)),
    "a partial with an option": (functools.partial(with_retries, retries=7), (DELIVERY, 7)),
    "a partial of a partial": (
        functools.partial(functools.partial(context_last, retries=7), context=1),
        (DELIVERY, 7, 1),
    ),
    "a cache": (functools.lru_cache(one), ONE),
    "wraps, of one": (wrapping(one), ONE),
    "wraps, of two": (wrapping(two), BOTH),
    "wraps, of a context by name": (wrapping(context_by_name), BOTH),
    "wraps, twice": (wrapping(wrapping(one)), ONE),
    "wraps, with parameters of its own": (narrowing(one), BOTH),
    "bare, of one": (bare(one), ONE),
    "bare, of two": (bare(two), BOTH),
    "bare, of a default": (bare(with_retries), (DELIVERY, 3)),
    "bare, of a context by name": (bare(context_by_name), BOTH),
    "bare, twice": (bare(bare(one)), ONE),
    "bare on wraps": (bare(wrapping(one)), ONE),
    "wraps on bare": (wrapping(bare(one)), ONE),
    "bare, of any": (bare(anything), BOTH),
    "bare, of a method": (bare(Handlers().one), ONE),
    "bare, of an object": (bare(Handlers()), ONE),
    "bare, of a partial": (bare(functools.partial(two, context=1)), (DELIVERY, 1)),
    "bare, with the delivery of its own": (bare_with_rest(one), ONE),
    "bare, with the delivery of its own, of two": (bare_with_rest(two), BOTH),
    "bare, with options": (bare_with_options(complain)(one), ONE),
    "bare, with options, of two": (bare_with_options(complain)(two), BOTH),
    "a partial of a bare one": (functools.partial(bare(one)), ONE),
    "a decorator that is a class": (Holding(one), ONE),
    "a decorator that is a class, of two": (Holding(two), BOTH),
    "a class's decorator on a bare one": (Holding(bare(one)), ONE),
    "a bare decorator of a method": (Handlers().bare_one, ONE),
    "a wrapping decorator of a method": (Handlers().wrapped_one, ONE),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_handler_gets_the_arguments_that_it_takes(name: str) -> None:
    function, got = CALLS[name]
    assert as_handler(function, "here")(DELIVERY, CONTEXT) == got


def three(delivery: Any, context: Any, more: Any) -> None: ...


def needs_a_client(delivery: Any, *, client: Any) -> None: ...


def by_names(**names: Any) -> None: ...


def ambiguous(one_of: Callable[[Any], Any], other: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda *args: (one_of if len(args) == 1 else other)(*args)


class Unsaid:
    """Made in C, or pretends to be."""

    __signature__ = "none"

    def __call__(self, *args: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda: None, "expected a function of"),
        (three, "expected a function of"),
        (wrapping(three), "expected a function of"),
        (needs_a_client, "expected a function of"),
        (by_names, "expected a function of"),
        (functools.partial(two, 1, 2), "expected a function of"),
        (7, "expected a function of"),
        (None, "expected a function of"),
        (Handlers, "not a class, whose call only makes an object: name an object of it"),
        (Holding, "not a class"),
        (Unsaid(), "Python does not know the parameters"),
        (operator.itemgetter, "not a class"),
        (ambiguous(lambda a: None, lambda a, b: None), "use functools.wraps in the decorator"),
    ],
)
def test_what_cannot_be_called_so_is_refused_with_what_is_expected(function: Any, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        as_handler(function, "handler = x")
    assert str(caught.value).startswith("handler = x: expected ")
    assert says in str(caught.value)


# -- what only begins its work -----------------------------------------------------------------------------------------


async def later(delivery: Any) -> str:
    return "done"


def pieces(delivery: Any) -> Iterator[str]:
    yield "a"


async def later_pieces(delivery: Any) -> AsyncIterator[str]:
    yield "a"


class Later:
    async def __call__(self, delivery: Any) -> str:
        return "done"

    async def method(self, delivery: Any) -> str:
        return "done"


class Wrapping(Holding):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        functools.update_wrapper(self, function)


LAZY: dict[str, Any] = {
    "yield": pieces,
    "async def with yield": later_pieces,
    "wraps, around yield": wrapping(pieces),
    "wraps, twice": wrapping(wrapping(later_pieces)),
    "a partial of a wrapper": functools.partial(wrapping(pieces)),
}
ASYNC: dict[str, Any] = {
    "async def": later,
    "wraps": wrapping(later),
    "wraps, twice": wrapping(wrapping(later)),
    "a partial": functools.partial(later),
    "a partial of a partial": functools.partial(functools.partial(functools.partial(later))),
    "a partial of a wrapper": functools.partial(wrapping(later)),
    "an async __call__": Later(),
    "a wrapper of an async __call__": wrapping(Later()),
    "a partial of an async __call__": functools.partial(Later()),
    "an async method": Later().method,
    "a partial of a method": functools.partial(Later().method),
    "a decorator that is a class": Wrapping(later),
    "a cache": functools.lru_cache(later),
}


@pytest.mark.parametrize("name", LAZY)
def test_a_function_whose_call_only_begins_its_work_is_refused_however_it_is_dressed(name: str) -> None:
    with pytest.raises(SettingsError, match=r"^x: expected a function without yield: this is a"):
        as_handler(LAZY[name], "x")


@pytest.mark.parametrize("name", ASYNC)
def test_a_function_that_gives_a_coroutine_is_a_handler_however_it_is_dressed(name: str) -> None:
    handler = as_handler(ASYNC[name], "x")
    assert is_async(handler)
    assert asyncio.run(handler(DELIVERY, CONTEXT)) == "done"


def running(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def w(*args: Any) -> Any:
        return asyncio.run(function(*args))

    return w


def test_a_decorator_that_runs_the_coroutine_makes_a_plain_function() -> None:
    handler = as_handler(running(later), "x")
    assert handler(DELIVERY, CONTEXT) == "done"
    assert not is_async(handler)


def function_made_and_not_called() -> Callable[[], None]:
    return lambda: None


def future() -> Future[None]:
    return Future()


def loop_future() -> Any:
    loop = asyncio.new_event_loop()
    try:
        return loop.create_future()
    finally:
        loop.close()


class Awaitable:
    def __await__(self) -> Iterator[None]:
        yield None


class LaterPieces:
    def __aiter__(self) -> LaterPieces:
        return self

    async def __anext__(self) -> int:
        raise StopAsyncIteration


UNFINISHED: dict[str, tuple[Callable[[], Any], str]] = {
    "a coroutine": (lambda: later(1), "an un-awaited coroutine"),
    "a generator": (lambda: pieces(1), "an un-iterated generator"),
    "an async generator": (lambda: later_pieces(1), "an un-iterated async generator"),
    "a generator expression": (lambda: (each for each in "ab"), "an un-iterated generator"),
    "a map": (lambda: map(str, "ab"), "an un-iterated iterator"),
    "a starmap": (lambda: itertools.starmap(one, [(1,)]), "an un-iterated iterator"),
    "a context manager": (lambda: contextlib.contextmanager(pieces)(1), "a context manager that nobody enters"),
    "an async iterator": (LaterPieces, "an un-iterated async iterator"),
    "a function in a list": (lambda: [one], "a function that nobody calls"),
    "a future": (future, "a future that nobody waits for"),
    "a future of asyncio": (loop_future, "a future that nobody waits for"),
    "an awaitable": (Awaitable, "an un-awaited awaitable"),
    "a function": (function_made_and_not_called, "a function that nobody calls"),
    "a partial": (lambda: functools.partial(one, 1), "a function that nobody calls"),
    "coroutines in a list": (lambda: [later(1), later(2)], "an un-awaited coroutine"),
    "coroutines in a dict": (lambda: {"a": {"b": (later(1), 7)}}, "an un-awaited coroutine"),
}


# a coroutine that is left alone would be a warning, and a warning is an error here
@pytest.mark.parametrize("name", UNFINISHED)
def test_a_result_that_is_still_to_be_awaited_is_no_end_of_the_work(name: str) -> None:
    make, what = UNFINISHED[name]
    with pytest.raises(Bury, match=f"^the handler returned {what}: its work was not done. Fix"):
        finished(make())


@pytest.mark.parametrize(
    "result", ["", "text", None, {"a": [1, {"b": None}]}, 7, True, [1, 2], b"x", object(), {1, 2}, io.StringIO("x")]
)
def test_any_other_result_is_the_end_of_the_work(result: object) -> None:
    assert finished(result) is result


def test_a_result_that_holds_itself_is_looked_at_once() -> None:
    endless: list[Any] = []
    endless += [endless, endless]
    assert finished(endless) is endless


def test_what_ends_a_handler_ends_the_closing_of_its_generator_too() -> None:
    def stubborn() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise DeadlineExceeded

    begun = stubborn()
    next(begun)
    with pytest.raises(DeadlineExceeded):
        finished(begun)


def test_a_generator_that_fails_as_it_is_closed_is_given_up_all_the_same() -> None:
    def failing() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise SystemExit(3)

    begun = failing()
    next(begun)
    with pytest.raises(Bury, match="an un-iterated generator"):
        finished(begun)
