"""examples/tasks: each language adds its tasks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.push.http.conftest import Tasks

EXAMPLES = ROOT / "examples" / "tasks"


@pytest.mark.parametrize(
    ("command", "says", "payload"),
    [
        (["sh", "add.sh", "mail"], "{}", b"Dear Ann"),
        (["node", "add.mjs", "mail"], "wait", b'{"to":"bob"}'),
        (["php", "add.php", "mail"], "added", b'{"to":"cat"}'),
    ],
    ids=["curl", "node", "php"],
)
def test_an_example_adds_its_tasks(tasks: Tasks, command: list[str], says: str, payload: bytes) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    if command[0] == "php" and subprocess.run(["php", "-r", "exit(extension_loaded('curl') ? 0 : 1);"]).returncode:
        pytest.skip("php has no extension curl")
    environment = {"PATH": os.environ["PATH"], "GLASSQ_TASKS": str(tasks.address)}
    done = subprocess.run(command, cwd=EXAMPLES, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert says in done.stdout
    assert payload in [delivery.body for delivery in tasks.deliveries()]


def test_the_lines_of_the_document_can_be_typed(tasks: Tasks, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "tasks-http.md").read_text("utf-8")
    typed = re.findall(r"^    (curl (?:.*\\\n)*.*)$", page, re.MULTILINE)
    assert len(typed) == 2
    for command in typed:
        line = command.replace("/run/glassq/tasks.sock", str(tasks.address)).replace(
            "curl", "curl -sS --fail-with-body"
        )
        done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
    labels = [delivery.labels for delivery in tasks.deliveries() if delivery.body == b"Dear Ann, ..."]
    assert [found["url"] for found in labels] == ["/send?to=ann"]
    assert "mail-ann" in [delivery.labels["task"] for delivery in tasks.deliveries()]
