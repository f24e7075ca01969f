"""What becomes of deliveries without a route, for each kind of child: see glassq/worker/unrouted.py."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from glassq import routes
from glassq.settings import POOL, load
from glassq.worker.unrouted import Unrouted

if TYPE_CHECKING:
    from glassq.settings import Route, Settings


def unrouted_of(settings: Settings) -> Unrouted:
    """For a child of these settings."""
    return Unrouted(settings, _routes_on_disk)


def _routes_on_disk(file: str) -> tuple[Route, ...]:
    return routes.all_routes(load(file, os.environ, POOL))
