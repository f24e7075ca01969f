"""A short `make powercut`, and that it would see a loss."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.powercut.cuts import summary
from tests.powercut.powercut import BLIND, record_scene
from tests.powercut.recording import compiler
from tests.powercut.scene import Scene

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="no C compiler (cc)"),
    pytest.mark.skipif(shutil.which("beanstalkd") is None, reason="beanstalkd is missing: make setup"),
]


def test_no_power_cut_loses_what_was_promised(tmp_path: Path) -> None:
    cuts = record_scene(Scene(2.0, 7, old=60), tmp_path / "all").cut(10, starts=1)
    assert len(cuts) >= 16
    assert [cut for cut in cuts if not cut.ok] == [], summary(cuts)


def test_without_the_syncers_syncs_power_cuts_lose_pings(tmp_path: Path) -> None:
    (blind,) = [blind for blind in BLIND if blind.name == "the syncer syncs no file"]
    cuts = record_scene(Scene(1.0, 7, old=60, unsynced=blind.unsynced), tmp_path / "all").cut(60, blind)
    assert any(cut.lost for cut in cuts), summary(cuts)
