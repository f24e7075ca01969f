"""What is PostgreSQL's own about its producer."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from glassq.errors import NotDurable
from glassq.queues import open_producer
from glassq.queues.base import NewJob, Receipt, Refusal
from glassq.settings import Settings
from tests.conftest import PATIENCE
from tests.queues.raw_postgres import fresh_url

if TYPE_CHECKING:
    from tests.postgres import PostgresServer


def test_while_no_standby_confirms_a_put_is_in_doubt_and_no_check_says_that_all_is_well(
    postgres: PostgresServer,
) -> None:
    """Else pings would be put again and again, each of them once more than it is kept."""
    settings = replace(Settings(), queue=replace(Settings().queue, url=fresh_url(postgres)))
    with closing(open_producer(settings)) as producer:
        assert isinstance(producer.put([NewJob("a", b"a", "tube")], within=PATIENCE)[0], Receipt)
        postgres.configure(synchronous_standby_names="nobody")
        try:
            [answer] = producer.put([NewJob("b", b"b", "tube")], within=1)
            assert isinstance(answer, Refusal)
            assert answer.in_doubt
            for _ in range(2):
                with pytest.raises(NotDurable):
                    producer.check(within=1)
        finally:
            postgres.configure(synchronous_standby_names=None)
        producer.check(within=PATIENCE)
        assert isinstance(producer.put([NewJob("c", b"c", "tube")], within=PATIENCE)[0], Receipt)
