"""What is PostgreSQL's own about its receiver."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

from msgspec.structs import replace

from glassq.queues import open_producer, open_receiver, open_tables
from glassq.queues.base import NewJob
from glassq.settings import Settings
from tests.conftest import PATIENCE

if TYPE_CHECKING:
    from tests.postgres import PostgresServer


def test_who_always_finds_work_finds_what_a_dead_one_held(postgres: PostgresServer) -> None:
    """It is older than all that waits, and lies before the place where each reserve begins."""
    settings = Settings()
    settings = replace(settings, queue=replace(settings.queue, url=postgres.url(postgres.database())))
    tables = open_tables(settings, settings.queue.url)
    assert tables is not None
    with closing(tables):
        tables.upgrade()
    with closing(open_producer(settings)) as producer, closing(open_receiver(settings)) as busy:
        producer.put([NewJob("key", b"%d" % number, "tube") for number in range(3)], within=20)
        dead = open_receiver(settings)
        first = dead.reserve(["tube"], 0)
        assert first is not None
        assert first.body == b"0"
        held = busy.reserve(["tube"], 0)
        dead.close()
        end = time.monotonic() + PATIENCE
        while held is not None and held.body != b"0" and time.monotonic() < end:
            producer.put([NewJob("key", b"more", "tube")], within=20)
            busy.complete(held, then=["tube"])
            assert busy.has_next
            held = busy.reserve(["tube"], 0)
        assert held is not None
        assert (held.body, held.losses) == (b"0", 1)
