"""Answers a webhook ping in milliseconds and does the work later, without ever losing one.

This is what the author of a handler imports:

    from glassq import Bury, Delivery, Drop, Retry

    def handle(delivery: Delivery) -> str | None:
        ...

and whoever puts tasks, the App Engine way: `from glassq import taskqueue`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from glassq.delivery import Delivery
from glassq.errors import Bury, Drop, Retry

if TYPE_CHECKING:
    from types import ModuleType

    import glassq.push.taskqueue as taskqueue

__all__ = ["Bury", "Delivery", "Drop", "Retry", "__version__", "taskqueue"]

__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    # not before it is asked for: intake and handlers have no use for a database
    if name == "taskqueue":
        return importlib.import_module("glassq.push.taskqueue")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
