"""App Engine's deferred library: `from glassq import deferred` replaces google.appengine.ext.deferred.

    deferred.defer(resize, "photos/17", width=640, _countdown=60, _queue="photos")

The pool calls `resize("photos/17", width=640)` later: at least once, with a handler's deadline and the rules of the
task's queue. The task holds the function's name, "app.tasks:resize", and its arguments as JSON; never a pickle, because
a forged pickle runs any code. Whatever the task says, the pool calls only functions that a module of [push] deferred
defines itself.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from itertools import chain, starmap
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

import msgspec

from glassq.errors import Bury, GlassqError, Retry, SettingsError
from glassq.handler import refuse_async
from glassq.push import taskqueue
from glassq.push.dispatch import of_tasks
from glassq.push.plain import parts, shown, unlike_json
from glassq.push.request import DEFAULT_QUEUE
from glassq.routes import DEFERRED, requires

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from types import ModuleType

    from glassq.delivery import Delivery
    from glassq.push.taskqueue import Task, TaskRetryOptions
    from glassq.routes import Context, Result
    from glassq.settings import Settings

# The default url of deferred calls.
URL = str(DEFERRED.url)


class DeferredError(GlassqError):
    """Base of what `deferred` raises, and of what deferred functions may raise."""


# App Engine's name.
Error = DeferredError


class NotDeferrable(DeferredError, ValueError):
    """The function or its arguments cannot be deferred. The message says why, and what to do instead."""


class PermanentTaskFailure(DeferredError):
    """Raised by a deferred function that no retry can help: the task is buried for an operator (dead-lettered)."""


class SingularTaskFailure(DeferredError):
    """Raised by a deferred function to be retried without a traceback in the log."""


class _Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The payload of a deferred call's task. `call` is "module:function"."""

    call: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


def defer(
    obj: Callable[..., Any],
    /,
    *args: Any,
    _countdown: float | None = None,
    _eta: datetime | None = None,
    _headers: Mapping[str, Any] | None = None,
    _name: str | None = None,
    _queue: str = DEFAULT_QUEUE,
    _retry_options: TaskRetryOptions | None = None,
    _target: str | None = None,
    _transactional: bool = False,
    _url: str | None = URL,
    **kwargs: Any,
) -> Task:
    """Adds a task that calls `obj(*args, **kwargs)` later, and returns it.

    `obj` is a function of a module in [push] deferred. Its arguments must be JSON-serialisable without a change: None,
    booleans, 64-bit integers, finite floats, texts, and lists and dicts (with texts as keys) of these. Arguments that
    begin with _ are the task's: see `taskqueue.Task` and `Queue.add`. With another `_url`, the route of that url gets
    the task.

    Raises NotDeferrable, and what `taskqueue.add` raises: TaskTooLargeError if the arguments exceed 100 KB.
    """
    payload = serialize(obj, *args, **kwargs)
    queue = taskqueue.Queue(_queue)
    if why := _forbidden(obj.__module__, queue.client.settings):
        raise NotDeferrable(f"{_name_of(obj)}: {why}")
    task = taskqueue.Task(
        payload,
        url=_url or "",
        headers={"Content-Type": "application/json", **(_headers or {})},
        name=_name,
        countdown=_countdown,
        eta=_eta,
        target=_target,
        retry_options=_retry_options,
    )
    return queue.add(task, _transactional)


def serialize(obj: Callable[..., Any], /, *args: Any, **kwargs: Any) -> bytes:
    """The payload of a task that calls `obj(*args, **kwargs)`, for `taskqueue.Task(payload, url=deferred.URL)`.

    Does not check whether the function's module is in [push] deferred. Raises NotDeferrable or TaskTooLargeError.
    """
    name = _name_of(obj)
    if why := _unfit(obj, args, kwargs):
        raise NotDeferrable(f"{name} {why}")
    _check_arguments(name, [*((f"argument {number}", value) for number, value in enumerate(args, 1)), *kwargs.items()])
    payload = msgspec.json.encode(_Call(name, list(args), kwargs))
    if len(payload) > taskqueue.MAX_TASK_SIZE_BYTES:
        raise _too_large(name)
    return payload


def _imported(settings: Settings) -> dict[str, ModuleType]:
    """The modules of [push] deferred by name. Raises SettingsError if one cannot be imported."""
    modules: dict[str, ModuleType] = {}
    for name in settings.push.deferred if settings.push else ():
        try:
            modules[name] = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            why = f"cannot be imported: {type(error).__name__}: {error}"
            raise SettingsError(f'{settings.file}: [push] deferred: module "{name}" {why}') from error
    return modules


@of_tasks
@requires(_imported, preload=_imported)
def handle(delivery: Delivery, context: Context) -> Result:
    """The handler of deferred calls. Your own routes may name it: "glassq.push.deferred:handle".

    Whatever the task says, it only calls functions that a module in [push] deferred defines itself.
    Raises what the function raises, and Bury if the call cannot be made.
    """
    try:
        call = msgspec.json.decode(delivery.body, type=_Call)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Bury(f"not a deferred call: {error}") from None
    function = _function(call.call, context)
    if why := _unfit(function, call.args, call.kwargs):
        raise Bury(f"{call.call} {why}")
    try:
        result: Result = function(*call.args, **call.kwargs)
    except PermanentTaskFailure as error:
        raise Bury(f"{call.call}: {_said(error)}") from error
    except SingularTaskFailure as error:
        raise Retry(f"{call.call}: {_said(error)}") from error
    return result


def _function(name: str, context: Context) -> FunctionType:
    """The function of this name. Raises Bury if it does not exist or must not be called."""
    module, _, function = name.partition(":")
    if why := _forbidden(module, context.settings):
        raise Bury(f"{name[:200]!a}: {why}")
    # not getattr, which would call the module's __getattr__
    found = vars(context.resource(_imported)[module]).get(function)
    if found is None:
        raise Bury(f"{name[:200]!a}: the module has no such function any more")
    try:
        # only functions that the module defines, not those that it imports
        if (own := _name_of(found)) != name:
            raise NotDeferrable(f"that is {own}")
    except NotDeferrable as error:
        raise Bury(f"{name[:200]!a} is not called: {error}") from None
    return cast("FunctionType", found)


def _forbidden(module: str, settings: Settings) -> str:
    """Why functions of this module must not be called; "": they may."""
    allowed = settings.push.deferred if settings.push else ()
    if module in allowed:
        return ""
    return f"module {module[:100]!a} is not in [push] deferred of {settings.file}: {', '.join(allowed) or 'none is'}"


def _name_of(obj: Any) -> str:
    """ "module:function". Raises NotDeferrable unless it is a function that a module defines under its own name."""
    if not isinstance(obj, FunctionType):
        raise NotDeferrable(f"{shown(obj)} is not a function of a module: {_instead(obj)}")
    module, function = obj.__module__, obj.__qualname__
    name = f"{module}:{function}"
    if not function.isidentifier():
        raise NotDeferrable(f"{name} is not defined at the top of its module (a decorator needs functools.wraps)")
    if function.startswith("__"):
        raise NotDeferrable(f"{name} is for Python to call")
    if module == "__main__":
        raise NotDeferrable(f"{name} is in the program itself: move it to a module that the pool can import")
    if module not in sys.modules or vars(sys.modules[module]).get(function) is not obj:
        raise NotDeferrable(f"{name} is not what its module has by this name (a decorator needs functools.wraps)")
    try:
        refuse_async(obj)
    except ValueError as error:
        raise NotDeferrable(f"{name}: {error}") from None
    return name


def _instead(obj: object) -> str:
    if inspect.ismethod(obj):
        return "defer a function that is given a key to find the object by"
    if isinstance(obj, type):
        return "defer a function that makes the object"
    return "defer one that is defined with def at the top of a module in [push] deferred"


def _unfit(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Why the function cannot be called with these arguments; "": it can."""
    try:
        # the function's own signature: a wrapper cannot be called with the parameters of its __wrapped__
        inspect.signature(function, follow_wrapped=False).bind(*args, **kwargs)
    except TypeError as error:
        return f"cannot be called with these arguments: {error}"
    return ""


def _check_arguments(name: str, arguments: Iterable[tuple[str, Any]]) -> None:
    """Raises NotDeferrable for values that JSON would change, and TaskTooLargeError for values without an end."""
    found = chain.from_iterable(starmap(parts, arguments))
    try:
        # each part takes at least one byte; lists that share lists may have endless parts
        for count, (place, value) in enumerate(found):
            if count > taskqueue.MAX_TASK_SIZE_BYTES:
                raise _too_large(name)
            if why := unlike_json(value):
                raise ValueError(f"{place} is {why}")
    except ValueError as error:
        raise NotDeferrable(f"{name}: {error}") from None


def _too_large(name: str) -> taskqueue.TaskTooLargeError:
    return taskqueue.TaskTooLargeError(
        f"{name}: its arguments have more than the {taskqueue.MAX_TASK_SIZE_BYTES} bytes that a task may have: "
        "keep them elsewhere, and give a key to find them by"
    )


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
