"""What this machine has of PostgreSQL: the package of its client, and the directory of a server that runs here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glassq import host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.queues.base import Fact
    from glassq.values import QueueUrl


class LocalPostgres:
    """See `glassq.queues.base.LocalEngine`. The server is the distribution's, or runs elsewhere: no unit is ours."""

    packages = ("psycopg",)
    units: tuple[str, ...] = ()
    other_unit = ""

    def __init__(self, url: QueueUrl) -> None:
        self._url = url
