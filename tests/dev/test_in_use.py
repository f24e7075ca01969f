"""One process at a time runs the servers of a directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from glassq.dev.in_use import check_unused, in_use
from glassq.errors import StackError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_directory_in_use_says_by_whom_until_it_is_left(tmp_path: Path) -> None:
    check_unused(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with in_use(tmp_path):
        for other in (check_unused, lambda path: in_use(path).__enter__()):
            with pytest.raises(StackError, match=rf"already runs in .*process {os.getpid()}\): stop it first"):
                other(tmp_path)
    check_unused(tmp_path)
