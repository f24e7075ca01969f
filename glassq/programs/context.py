"""What handlers find in a child: their context, and a client that adds tasks."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from glassq import routes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from glassq.push.queue_yaml import PushQueue
    from glassq.settings import Settings


@contextmanager
def adding_tasks(settings: Settings) -> Iterator[None]:
    """Lets handlers add tasks. At the end, waits for the tasks that were added without waiting."""
    if settings.push is None:
        yield
        return
    from glassq.push import taskqueue

    # a handler that adds tasks uses the same settings
    taskqueue.configure(settings.file)
    try:
        yield
    finally:
        taskqueue.finish()


def context_of(settings: Settings, queues: Mapping[str, PushQueue]) -> routes.Context:
    """The context of all handlers. Raises SettingsError."""
    context = routes.Context(settings)
    if settings.push is not None:
        from glassq.push.dispatch import Dispatcher

        # The queues as the parent has read them: a later mistake in queue.yaml must not kill a new child.
        context.provide(Dispatcher.open, Dispatcher.open(settings, queues))
    return context
