"""Operations on a real queue, for an operator named ada."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from glassq import settings
from glassq.errors import Stopped
from glassq.operations import Operations
from glassq.operations.progress import Silent
from glassq.queues.beanstalk.inspector import CAPABILITIES
from tests.ports import free_port
from tests.syncers import queue_section

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.queues.base import Inspector
    from tests.conftest import Beanstalkd


class Blind:
    """The real inspector of an engine that can do less."""

    engine = "SQS"
    capabilities = replace(CAPABILITIES, lists=frozenset({"buried"}), pause=False, max_delay=900)

    def __init__(self, inspector: Inspector) -> None:
        self._inspector = inspector

    def __getattr__(self, name: str) -> object:
        return getattr(self._inspector, name)


class StopsAt(Silent):
    """Somebody stops the operation while the nth step of this kind is at hand."""

    def __init__(self, number: int, words: str = "") -> None:
        self._number = number
        self._words = words

    def advance(self, done: int, total: int, words: str) -> None:
        if done == self._number and words.startswith(self._words):
            raise Stopped


class Heard(Silent):
    """Keeps what it is warned of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, words: str) -> None:
        self.warnings.append(words)


@pytest.fixture
def operations(beanstalkd: Beanstalkd, tmp_path: Path) -> Operations:
    file = tmp_path / "glassq.toml"
    file.write_text(
        f'{queue_section(beanstalkd.url)}[ledger]\nurl = "sqlite:///{tmp_path}/ledger.db"\n'
        f'[bodies]\nurl = "file://{tmp_path}/bodies"\n'
        '[[routes]]\nsource = "mirror"\nhandler = "app:store"\ncollection = "timeline"\n'
        # nobody answers there; somebody may at the default address
        f'[intake]\nbind = "127.0.0.1:{free_port()}"\njournal = "{tmp_path}/journal"\n'
    )
    return Operations(settings.load(str(file), {}), actor="ada")


@pytest.fixture
def inspector(operations: Operations) -> Iterator[Inspector]:
    with operations.queue() as queue:
        yield queue
