"""Who waits is told of new jobs without delay."""

from __future__ import annotations

import os
import time
from contextlib import closing
from typing import TYPE_CHECKING

from glassq.database.postgres import PostgresSession
from glassq.queues.postgres.statements import CHANNEL
from glassq.queues.postgres.waking import Waker
from tests.conftest import PATIENCE

if TYPE_CHECKING:
    from tests.postgres import PostgresServer


def test_it_is_told_though_no_standby_confirms(postgres: PostgresServer) -> None:
    """It waits neither for a disk nor for a standby: else the put beside it would wait for that as well."""
    url = postgres.url(postgres.database())
    never, keeps_open = os.pipe()
    telling, listening = (
        PostgresSession(url, name="tests", connect_timeout=PATIENCE, timeout=10 * PATIENCE) for _ in range(2)
    )
    with closing(listening):
        listening.run(f"LISTEN {CHANNEL}")
        postgres.configure(synchronous_standby_names="nobody")
        try:
            waker = Waker(telling)
            waker.tell(["tube"])
            assert listening.listen(time.monotonic() + PATIENCE, never) == ["tube"]
        finally:
            postgres.configure(synchronous_standby_names=None)
        waker.close()
    os.close(never)
    os.close(keeps_open)
