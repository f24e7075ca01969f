"""Every test of this package runs once an engine, on a server that all of a process's tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.proxy import Proxy
from tests.queues.conformance.engines import ENGINES
from tests.queues.conformance.roles import Roles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.queues.conformance.engine import Engine


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    kind = ENGINES[request.param]
    if missing := kind.missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    running = kind(tmp_path_factory.mktemp(kind.name))
    yield running
    running.end()


@pytest.fixture
def roles(engine: Engine) -> Iterator[Roles]:
    opened = Roles(engine)
    yield opened
    opened.close()


@pytest.fixture
def proxy(engine: Engine) -> Iterator[Proxy]:
    with Proxy(engine.port) as running:
        yield running
