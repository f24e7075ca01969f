"""Answers a webhook ping in milliseconds and does the work later, without ever losing one.

This is what the author of a handler imports:

    from glassq import Bury, Delivery, Drop, Retry

    def handle(delivery: Delivery) -> str | None:
        ...

and besides it `retry_after` for an answer's headers, and `task` for a delivery that is a task. Who puts tasks, the App
Engine way, imports `taskqueue` or `deferred`.
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
    # not before they are asked for: intake and most handlers have no use for a database
    if name in ("deferred", "taskqueue"):
        return importlib.import_module(f"glassq.push.{name}")
    if name == "task":
        return importlib.import_module("glassq.push.received").task
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
