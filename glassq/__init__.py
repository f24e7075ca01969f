"""Answers a webhook ping in milliseconds and does the work later, without ever losing one.

A handler imports:

    from glassq import Bury, Delivery, Drop, Retry

    def handle(delivery: Delivery) -> str | None:
        ...

It may also import `retry_after`, for a response's headers, and `task`, for a delivery that is a task. A program that
adds tasks, the App Engine way, imports `taskqueue` or `deferred`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import glassq.push.deferred as deferred
    import glassq.push.taskqueue as taskqueue
    from glassq.delivery import Delivery
    from glassq.errors import Bury, Drop, Retry
    from glassq.headers import retry_after
    from glassq.push.received import task

__all__ = ["Bury", "Delivery", "Drop", "Retry", "__version__", "deferred", "retry_after", "task", "taskqueue"]

__version__ = "0.3.0"


# What a name is taken from, and when: not before it is used, as the syncer and most handlers need little of it.
_MODULES = {"deferred": "glassq.push", "taskqueue": "glassq.push", "task": "glassq.push.received"}
_MODULES |= {"Delivery": "glassq.delivery", "retry_after": "glassq.headers"}
_MODULES |= dict.fromkeys(("Bury", "Drop", "Retry"), "glassq.errors")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("deferred", "taskqueue"):
        return importlib.import_module(f"glassq.push.{name}")
    found = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
    return found
