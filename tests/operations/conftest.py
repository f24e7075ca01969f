"""Operations on a real queue, for an operator named ada."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glassq import settings
from glassq.operations import Operations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.queues.base import Inspector
    from tests.conftest import Beanstalkd


@pytest.fixture
def operations(beanstalkd: Beanstalkd, tmp_path: Path) -> Operations:
    file = tmp_path / "glassq.toml"
    file.write_text(
        f'[queue]\nurl = "{beanstalkd.url}"\n[ledger]\nurl = "sqlite:///{tmp_path}/ledger.db"\n'
        '[[routes]]\nsource = "mirror"\nhandler = "app:store"\ncollection = "timeline"\n'
    )
    return Operations(settings.load(str(file), {}), actor="ada")


@pytest.fixture
def inspector(operations: Operations) -> Iterator[Inspector]:
    with operations.queue() as queue:
        yield queue
