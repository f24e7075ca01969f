"""The service that the tests of a file share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.queues.sqs.service import CREDENTIALS, SqsService

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqsService]:
    # for the clients that a test makes in this process
    os.environ.update(CREDENTIALS)
    with SqsService(tmp_path_factory.mktemp("sqs")) as running:
        yield running
