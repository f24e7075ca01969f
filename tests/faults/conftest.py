"""A beanstalkd behind the fault proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.intake.conftest import start_web
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Beanstalkd

__all__ = ["start_web"]


@pytest.fixture
def proxy(beanstalkd: Beanstalkd) -> Iterator[Proxy]:
    with Proxy(beanstalkd.port) as running:
        yield running
