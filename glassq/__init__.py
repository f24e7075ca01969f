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

from glassq.delivery import Delivery
from glassq.errors import Bury, Drop, Retry
from glassq.headers import retry_after

if TYPE_CHECKING:
    import glassq.push.deferred as deferred
    import glassq.push.taskqueue as taskqueue
    from glassq.push.received import task

__all__ = ["Bury", "Delivery", "Drop", "Retry", "__version__", "deferred", "retry_after", "task", "taskqueue"]

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    # lazily, because they load a database library, which intake and most handlers do not need
    if name in ("deferred", "taskqueue"):
        return importlib.import_module(f"glassq.push.{name}")
    if name == "task":
        return importlib.import_module("glassq.push.received").task
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
