"""What pip installs is all that the demo needs: no source tree beside it, no extra, no library of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# Libraries that nothing of it may need.
MISSING = ("PIL", "flask", "pytest", "hypothesis")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install --target` made of a copy of the tree."""
    place = tmp_path_factory.mktemp("plain")
    tree = place / "tree"
    for name in ("bin", "conf", "glassq"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--no-compile", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-qq", *options, "--target", place / "target", tree],
        check=True,
        env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"},
        timeout=120,
    )
    shutil.rmtree(tree)
    for name in MISSING:
        (place / "target" / f"{name}.py").write_text(f"raise ModuleNotFoundError('{name} is not installed')\n")
    return place / "target"


def test_the_demo_works_from_what_pip_installs(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [installed / "bin" / "glassq", "demo", "--pings", "12", "--rate", "50", "--dir", tmp_path / "demo"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        # what one of its processes has compiled the others need not compile again
        env={**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": ""},
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    photos = sorted({path.suffix for path in (tmp_path / "demo" / "photos").iterdir()})
    assert photos == [".jpg", ".mp4", ".png"]
    logs = "".join(path.read_text() for path in (tmp_path / "demo" / "log").iterdir())
    assert "ModuleNotFoundError" not in logs
    assert str(ROOT) not in logs


def test_its_commands_are_such_as_start_from_a_path_with_a_space(installed: Path) -> None:
    # a script of setup(scripts=...) would have its first line copied as it is
    metadata = next(installed.glob("glassq-*.dist-info"))
    commands = (metadata / "entry_points.txt").read_text()
    assert sorted(line.split(" = ")[0] for line in commands.splitlines() if " = " in line) == [
        "glassq",
        "glassq-console",
        "glassq-syncer",
        "glassq-tasks",
        "glassq-web",
        "glassq-worker",
    ]
