"""The commands of a clone whose path holds what shells and #! lines stumble over."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree as `make setup` leaves it, but with our libraries instead of installed ones."""
    made = tmp_path_factory.mktemp("odd") / 'it\'s "my" $HOME `x` #1 100%41 é'
    made.mkdir()
    for name in ("bin", "conf", "glassq", "tools"):
        shutil.copytree(ROOT / name, made / name)
    for path in (ROOT / "Makefile", ROOT / "setup.py", *ROOT.glob("requirements*.lock")):
        shutil.copy(path, made)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made / ".venv"], check=True)
    (libraries,) = (made / ".venv" / "lib").glob("python*/site-packages")
    (libraries / "clone.pth").write_text(f"{made}\n{sysconfig.get_path('purelib')}\n")
    subprocess.run(["tools/launchers", ".venv/bin"], cwd=made, check=True)
    for name in (".locked", ".ready", ".dev"):
        (made / ".venv" / name).touch()
    return made


@pytest.mark.parametrize("name", ["glassq", "glassq-console", "glassq-tasks", "glassq-web", "glassq-worker"])
def test_a_command_starts_by_its_path_by_a_link_and_by_its_name(clone: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(clone / ".venv" / "bin" / name)
    elsewhere = {**os.environ, "PATH": f"{clone}/.venv/bin:{os.environ['PATH']}"}
    ways = [[str(tmp_path / name)]]
    # all are written alike: one of them shows the other ways
    if name == "glassq":
        ways += [[f".venv/bin/{name}"], ["sh", "-c", f"exec {name} --version"]]
    for command in ways:
        done = subprocess.run(
            [*command, "--version"], cwd=clone, capture_output=True, text=True, env=elsewhere, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("glassq ")


def test_make_runs_the_demo_there(clone: Path) -> None:
    done = subprocess.run(
        ["make", "demo", "DEMO_ARGS=--pings 3 --rate 50"], cwd=clone, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"state: {clone}/var/demo\n" in done.stdout
    assert (clone / "var" / "demo" / "ledger.db").exists()
