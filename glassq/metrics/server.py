"""Tells metrics over HTTP, in a process that does nothing else."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server

from glassq.metrics.exposition import Collector, with_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.core import Metric

    from glassq.metrics.board import Board
    from glassq.metrics.exposition import Looked
    from glassq.values import Address


class _Now:
    """What is registered: it looks anew each time that it is asked."""

    def __init__(self, board: Board, look: Callable[[], Looked], version: str) -> None:
        self._board = board
        self._look = look
        self._version = version
        self._looking = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        with self._looking:
            looked = self._look()
        return Collector(self._board, with_version(looked, self._version)).collect()


def serve(address: Address, board: Board, look: Callable[[], Looked], version: str) -> None:
    """Answers in threads from now on. Raises OSError where it cannot listen there."""
    registry = CollectorRegistry()
    registry.register(_Now(board, look, version))
    host, port = address.parts
    start_http_server(port, host, registry)
