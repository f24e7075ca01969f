"""Under another WSGI server than ours, the app itself writes a large body into the store."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from glassq.bodies import INLINE, DirectoryBodies
from glassq.errors import BodyError
from glassq.intake.large_bodies import LargeBodies
from glassq.intake.metrics import IntakeCounters, shared_counters
from glassq.intake.state import IntakeState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BODY = b"x" * (4 * INLINE)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryBodies:
    found = DirectoryBodies(tmp_path)
    found.prepare()
    return found


@pytest.fixture
def bodies(store: DirectoryBodies) -> LargeBodies:
    return LargeBodies(store, IntakeState(IntakeCounters(shared_counters().row(1)).journaling))


@pytest.fixture
def no_room() -> Iterator[None]:
    """The kernel refuses to write more than a part of BODY into a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (INLINE, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_large_body_is_stored(store: DirectoryBodies, bodies: LargeBodies) -> None:
    key, stored = bodies.store(BODY, {})
    assert stored is not None
    with store.open(key) as file:
        assert file.read() == BODY


@pytest.mark.usefixtures("no_room")
def test_a_body_that_cannot_be_written_leaves_nothing(store: DirectoryBodies, bodies: LargeBodies) -> None:
    with pytest.raises(BodyError):
        bodies.store(BODY, {})
    assert list(store.list()) == []
