"""Where deliveries wait. The URL names the engine (values/queue_url.py); its package here opens the roles.

An engine's modules are imported where they are opened: nobody pays for an engine, or a role of one, that is not used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.errors import QueueError
    from glassq.queues.base import Inspector, Producer, Receiver
    from glassq.queues.engine import EngineTables, LocalEngine, Mover, Opening
    from glassq.settings import Settings
    from glassq.values import QueueUrl

__all__ = ["Inspector", "Producer", "Receiver", "advice", "check_tables", "engine_name", "local_engine"]
__all__ += ["open_inspector", "open_mover", "open_producer", "open_receiver", "open_tables", "remarks"]


def __getattr__(name: str) -> Any:
    # the roles' names are for types; the syncer, which is small, never needs them
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("glassq.queues.base"), name)


def open_producer(settings: Settings) -> Producer:
    """A producer for all threads of a process, before and after a fork. It connects when it is used."""
    return _opening(settings.queue.url).open_producer(settings)


def open_receiver(settings: Settings) -> Receiver:
    """A receiver: one connection for one thread. It connects at its first call, and again after it broke."""
    return _opening(settings.queue.url).open_receiver(settings)


def open_inspector(settings: Settings) -> Inspector:
    """An inspector: one connection for one thread. It connects like a receiver."""
    return _opening(settings.queue.url).open_inspector(settings)


def open_tables(settings: Settings, url: QueueUrl, tubes: Sequence[str] = ()) -> EngineTables | None:
    """The tables of the engine at `url`, for whoever makes them; None where it needs none. Connects when it is used.

    `tubes` are used beside those that the settings name, as those of queue.yaml.
    """
    return _opening(url).open_tables(settings, url, tubes)


def open_mover(settings: Settings) -> Mover | None:
    """What moves deliveries on that the engine cannot keep so itself; None where it keeps all. Connects when used."""
    return _opening(settings.queue.url).open_mover(settings)


def advice(settings: Settings, error: QueueError) -> str:
    """What to do about this error, where its engine knows more than its kind tells; "" else."""
    return _opening(settings.queue.url).advice(settings, error)


def remarks(settings: Settings) -> Iterator[str]:
    """What these settings ask of their engine that it cannot do, or what it will cost, a sentence each.

    Connects to nothing. Raises SettingsError where the engine's library is missing.
    """
    return _opening(settings.queue.url).remarks(settings)


def engine_name(url: QueueUrl) -> str:
    """The name of the engine at `url`, for people."""
    return _opening(url).NAME


def check_tables(settings: Settings) -> None:
    """Raises SettingsError if the queue's tables are missing or not for this code, where one can tell now."""
    from contextlib import closing, suppress

    from glassq.errors import QueueError, SettingsError, WrongTables

    tables = open_tables(settings, settings.queue.url)
    if tables is None:
        return
    with closing(tables), suppress(QueueError):
        try:
            tables.check()
        except WrongTables as error:
            raise SettingsError(str(error)) from None


def local_engine(settings: Settings) -> LocalEngine:
    """The parts of the engine on this machine. Connects to nothing."""
    return _opening(settings.queue.url).local_engine(settings)


def _opening(url: QueueUrl) -> Opening:
    """The module that opens the roles of the engine whose server the URL names."""
    return cast("Opening", importlib.import_module(f"glassq.queues.{url.engine}.opening"))
