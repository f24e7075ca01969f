"""Which functions can be handlers, how they are called, and whether their work is over when they return.

A handler may be an `async def`: its call gives a coroutine, and whoever calls it runs that to its end (routes.call).

A handler is called with (delivery) or (delivery, context). Its own parameters decide, in this order:

1. A second positional parameter without a default gets the context, whatever its name.
2. A parameter gets the context if it is named `context` or `ctx`, or annotated with `Context`: by position if it is the
   second one, else by name. Every other parameter with a default keeps its default.
3. A function of (*args), such as a decorator makes, is called like the function that it passes its arguments to. That
   is `__wrapped__`, which functools.wraps sets, or else a function in its closure or object. A function that passes
   them to nothing gets both arguments.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Coroutine, Generator, Iterator
from contextlib import suppress
from io import IOBase
from itertools import islice
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, TypeVar

from glassq.errors import Bury, Interrupt, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CellType

T = TypeVar("T")

# The ways to call a handler. Any other way is the name of the parameter that gets the context.
ALONE, BOTH = "(delivery)", "(delivery, context)"
_EXPECTED = f"expected a function of {ALONE} or {BOTH}"
_CONTEXT = re.compile(r"\bContext\b")
_GENERATORS = (
    (inspect.isasyncgenfunction, "an async def with yield"),
    (inspect.isgeneratorfunction, "a def with yield"),
)
_COROUTINE = (inspect.iscoroutinefunction, "an async def")
# A decorator that calls one of these runs the coroutine of the wrapped function.
_RUNS = frozenset({"run", "run_until_complete", "run_coroutine_threadsafe", "run_sync", "async_to_sync"})
# How many values of a result are examined.
_MAX_VALUES = 1_000
_PLAIN = (str, bytes, int, float, bool, type(None))
_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType, functools.partial)
# Results whose work is not done yet, by type: the value's own methods are not called.
_TO_DO: tuple[tuple[tuple[type, ...], str], ...] = (
    ((Coroutine,), "an un-awaited coroutine"),
    ((Awaitable,), "an un-awaited awaitable"),
    ((AsyncGenerator,), "an un-iterated async generator"),
    ((Generator,), "an un-iterated generator"),
    ((AsyncIterator,), "an un-iterated async iterator"),
    (_FUNCTIONS, "a function that nobody calls"),
)
# The same for types of these modules: what @contextmanager makes, and a process pool's results.
_TO_DO_OF = {
    "contextlib": "a context manager that nobody enters",
    "multiprocessing.pool": "a result that nobody waits for",
}


def as_handler(function: Callable[..., Any], where: str) -> Callable[..., Any]:
    """The function as one of (delivery, context). Raises SettingsError, beginning with `where`, if it is none."""
    try:
        refuse_generators(function)
        way = _way(function, set()) or BOTH
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from None
    if way == BOTH:
        return function

    # wraps: the handler's marks stay (see routes.HandlerMarks)
    @functools.wraps(function)
    def work(delivery: object, context: object) -> Any:
        return function(delivery) if way == ALONE else function(delivery, **{way: context})

    return work


def finished(result: T) -> T:
    """Returns the handler's result if its work is over.

    Raises Bury if something in it must still be awaited or called: the work was not done, and no retry can change that.
    A coroutine or generator is closed, a future cancelled.
    """
    if type(result) in _PLAIN:
        return result
    pending = list(_pending(result))
    for value, _ in pending:
        _end(value)
    if pending:
        raise _unfinished(pending[0][1])
    return result


def _unfinished(what: str) -> Bury:
    todo = "Fix the handler, reload the pool, then kick this delivery"
    return Bury(f"the handler returned {what}: its work was not done. {todo}")


# -- what runs when it is called ---------------------------------------------------------------------------------------


def refuse_generators(function: object) -> None:
    """Raises ValueError for a function whose call only begins its work, unless that is a coroutine's."""
    _refuse(function, _GENERATORS, "expected a function without yield")


def refuse_async(function: object) -> None:
    """Raises ValueError for a function whose call only begins its work, because the delivery would count as done."""
    _refuse(function, (_COROUTINE, *_GENERATORS), "expected a plain function, without async and yield")


def is_async(function: object) -> bool:
    """Whether a call gives a coroutine, as far as can be seen through decorators."""
    return any(inspect.iscoroutinefunction(layer) for layer in _begun(function))


def _refuse(function: object, kinds: tuple[tuple[Callable[[object], bool], str], ...], expected: str) -> None:
    for layer in _begun(function):
        for is_such, kind in kinds:
            if is_such(layer):
                behind = "" if layer is function else ", behind what decorates or holds it"
                raise ValueError(f"{expected}: this is {kind}{behind}")


def _begun(function: object) -> Iterator[Any]:
    """The callable and the functions that it calls, up to one that runs coroutines to their end."""
    for layer in _layers(function):
        yield layer
        if not _RUNS.isdisjoint(_names(layer)):
            return


def _layers(function: Any) -> Iterator[Any]:
    """The callable and the functions that it calls: of a method, of a partial, __wrapped__, __call__."""
    seen: set[int] = set()
    todo: list[Any] = [function]
    while todo:
        layer = todo.pop()
        if id(layer) in seen or not callable(layer):
            continue
        seen.add(id(layer))
        yield layer
        if isinstance(layer, functools.partial):
            todo.append(layer.func)
        elif inspect.ismethod(layer):
            todo.append(layer.__func__)
        elif not inspect.isroutine(layer) and not inspect.isclass(layer):
            todo.append(type(layer).__call__)
        todo.append(getattr(layer, "__wrapped__", None))


def _names(layer: object) -> tuple[str, ...]:
    code = getattr(layer, "__code__", None)
    return code.co_names if inspect.iscode(code) else ()


# -- how it is called --------------------------------------------------------------------------------------------------


def _way(function: object, seen: set[int]) -> str:
    """How to call it; "" if it takes any arguments, and we cannot see what it passes them to.

    Raises ValueError, with what is expected, if it cannot be called as a handler. `seen` are the ids of the functions
    through which we came to this one.
    """
    if inspect.isclass(function):
        raise ValueError(f"{_EXPECTED}, not a class, whose call only makes an object: name an object of it")
    if not callable(function):
        raise ValueError(_EXPECTED)
    signature = _signature(function)
    way = _named_way(function, signature) or _passed_on(function, seen)
    values, by_name = ((1,), {}) if way == ALONE else ((1, 2), {}) if way in ("", BOTH) else ((1,), {way: 2})
    try:
        signature.bind(*values, **by_name)
    except TypeError:
        raise ValueError(_EXPECTED) from None
    return way


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Its own parameters, which it can be called with, rather than those of its __wrapped__.

    A wrapper made in C, such as that of functools.lru_cache, may have only the latter. Raises ValueError without any.
    """
    for follow_wrapped in (False, True):
        with suppress(TypeError, ValueError):
            return inspect.signature(function, follow_wrapped=follow_wrapped)
    raise ValueError(f"{_EXPECTED}, and Python does not know the parameters of this one")


def _named_way(function: object, signature: inspect.Signature) -> str:
    """How to call it, by its named parameters; "" if it takes any arguments."""
    parameters = list(signature.parameters.values())
    positional = [found for found in parameters if found.kind in (found.POSITIONAL_ONLY, found.POSITIONAL_OR_KEYWORD)]
    bound = _bound(function)
    gets = [found for found in parameters if found.name not in bound and _is_context(found)]
    if len(positional) > 1 and (positional[1].default is inspect.Parameter.empty or positional[1] in gets):
        return BOTH
    for found in gets:
        if found.kind is found.KEYWORD_ONLY or found in positional[2:]:
            return found.name
    takes_any = len(positional) < 2 and any(found.kind is found.VAR_POSITIONAL for found in parameters)
    return "" if takes_any else ALONE


def _is_context(parameter: inspect.Parameter) -> bool:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return False
    annotation = parameter.annotation
    annotated = annotation is not parameter.empty and _CONTEXT.search(inspect.formatannotation(annotation))
    return parameter.name in ("context", "ctx") or bool(annotated)


def _bound(function: object) -> set[str]:
    """The parameters to which a partial gives values."""
    names: set[str] = set()
    while isinstance(function, functools.partial):
        names |= set(function.keywords)
        function = function.func
    return names


def _passed_on(function: object, seen: set[int]) -> str:
    """How to call the function to which a function of any arguments passes them; "" if we cannot see it.

    Raises ValueError if there are several candidates that are called in different ways.
    """
    wrapped = getattr(function, "__wrapped__", None)
    if callable(wrapped) and not inspect.ismethod(function):
        return "" if id(wrapped) in seen else _way(wrapped, seen | {id(wrapped)})
    ways: dict[str, list[object]] = {}
    for held in _held(function):
        core = _core(held)
        if core not in seen:
            with suppress(ValueError):
                ways.setdefault(_way(held, seen | {core}), []).append(held)
    ways.pop("", None)
    if len(ways) > 1:
        ways = {way: found for way, found in ways.items() if any(map(_names_delivery, found))} or ways
    if len(ways) > 1:
        raise ValueError(
            f"{_EXPECTED}; which of both cannot be seen through its decorator: use functools.wraps in the decorator"
        )
    return next(iter(ways), "")


def _held(function: Any) -> list[Any]:
    """What a callable of any arguments may call: its __wrapped__, or else the callables in its closure or object."""
    if isinstance(function, functools.partial):
        return [functools.partial(held, *function.args, **function.keywords) for held in _held(function.func)]
    if inspect.ismethod(function):
        return [MethodType(held, function.__self__) for held in _held(function.__func__)]
    if callable(wrapped := getattr(function, "__wrapped__", None)):
        return [wrapped]
    if inspect.isfunction(function):
        return [value for cell in function.__closure__ or () for value in _content(cell) if callable(value)]
    if inspect.isroutine(function):
        return []
    attributes = [value for value in getattr(function, "__dict__", {}).values() if callable(value)]
    return [*attributes, *_held(MethodType(type(function).__call__, function))]


def _content(cell: CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:
        # the variable has no value yet
        return []


def _core(function: Any) -> int:
    """The id of the function inside partials and bound methods, whose own ids change with each access."""
    while isinstance(function, functools.partial | MethodType):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    return id(function)


def _names_delivery(function: Any) -> bool:
    try:
        return next(iter(inspect.signature(function).parameters), "") == "delivery"
    except (TypeError, ValueError):
        return False


# -- whether its work is over ------------------------------------------------------------------------------------------


def _pending(result: object) -> Iterator[tuple[Any, str]]:
    """Unfinished work in a result, also inside lists and dicts: each value, and what it is in words."""
    todo: list[object] = [result]
    for _ in range(_MAX_VALUES):
        if not todo:
            return
        value = todo.pop()
        # no isinstance and no methods of the value: they may run code, which could fail although the work is done
        kind = type(value)
        if kind in _PLAIN:
            continue
        if issubclass(kind, dict):
            todo += islice(dict.values(value), _MAX_VALUES)  # type: ignore[arg-type]
        elif issubclass(kind, list | tuple | set | frozenset):
            base = next(plain for plain in (list, tuple, set, frozenset) if issubclass(kind, plain))
            todo += islice(base.__iter__(value), _MAX_VALUES)  # type: ignore[arg-type]
        elif what := _still_to_do(value):
            yield value, what


def _still_to_do(value: object) -> str:
    kind = type(value)
    if hasattr(kind, "add_done_callback"):
        return "a future that nobody waits for"
    if what := next((what for kinds, what in _TO_DO if issubclass(kind, kinds)), ""):
        return what
    if issubclass(kind, Iterator) and not issubclass(kind, IOBase):
        return "an un-iterated iterator"
    return _TO_DO_OF.get(kind.__module__, "")


def _end(value: Any) -> None:
    for name in ("close", "cancel"):
        try:
            getattr(value, name, lambda: None)()
        except Interrupt:
            raise
        except BaseException:  # noqa: S112 - the value is dropped in any case
            continue
