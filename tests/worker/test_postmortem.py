"""What killed a child, as far as the kernel counts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glassq.worker import postmortem
from glassq.worker.postmortem import LOOK, OutOfMemory

if TYPE_CHECKING:
    from pathlib import Path

# The file that is looked at, /proc/self/cgroup, and what is said of a kill.
GROUPS = [
    ("a/memory.events", "0::/a\n", "it ran out of memory"),
    ("memory/b/memory.oom_control", "9:name=systemd:/\n4:memory:/b\n0::/\n", "it ran out of memory"),
    ("vmstat", "0::/nowhere\n", "perhaps the machine ran out of memory"),
]


@pytest.mark.parametrize(("file", "groups", "says"), GROUPS, ids=["version 2", "version 1", "none"])
def test_only_a_kill_of_a_moment_ago_is_a_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, groups: str, says: str
) -> None:
    counts = tmp_path / file
    counts.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "cgroup").write_text(groups)
    monkeypatch.setattr(postmortem, "_VMSTAT", tmp_path / "vmstat")
    monkeypatch.setattr(postmortem, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(postmortem, "_MOUNT", tmp_path)

    def killed(number: int) -> None:
        counts.write_text(f"oom 7\noom_kill {number}\n")

    killed(3)
    killer = OutOfMemory()
    assert killer.why() == ""
    killed(4)
    assert [killer.why(), killer.why()] == [says, ""]
    # somebody else, long before a child dies by another SIGKILL
    killed(5)
    killer.look(float("inf"))
    assert killer.why() == ""
    assert LOOK > 0
