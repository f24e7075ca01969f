"""gunicorn's entry: `glassq.intake.wsgi:get_app()`, once in every worker, after the fork."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from glassq import log
from glassq.intake.app import create_app
from glassq.intake.enqueue import Enqueue
from glassq.queues import open_queue
from glassq.settings import load
from glassq.sources import open_sources

if TYPE_CHECKING:
    import falcon


def get_app() -> falcon.App[Any, Any]:
    """The app as the settings file has it (GLASSQ_CONFIG, else /etc/glassq/glassq.toml)."""
    settings = load(None, os.environ)
    log.setup(settings.log.level)
    intake, queue = settings.intake, settings.queue
    enqueue = Enqueue(
        lambda: open_queue(queue, require_durable=intake.require_durable), queue.connect_timeout + queue.timeout
    )
    return create_app(open_sources(settings), enqueue, max_body=intake.max_body, require_durable=intake.require_durable)
