"""The recorder, compiled once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.powercut.recording import Recorder, build

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("recorder"))


@pytest.fixture
def recorder(tmp_path: Path, library: Path) -> Iterator[Recorder]:
    """One whose root is tmp_path/disk, empty."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "place").mkdir()
    made = Recorder(library, root=tmp_path / "disk", place=tmp_path / "place")
    yield made
    made.close()
