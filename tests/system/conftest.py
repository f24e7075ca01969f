"""What a system administrator does: installs it, boots it, puts a proxy before it.

These need more than a Python (systemd, nginx, debootstrap, root), so they are collected only where they are asked for:
`make test-system`. What is missing then fails, and is not skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

HERE = Path(__file__).parent
# Of the distribution: packages and units are made for it.
PYTHON = "/usr/bin/python3"


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    asked = [Path(config.invocation_params.dir, argument.split("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(HERE) for path in asked) else True


def need(program: str, package: str) -> str:
    """The path of a program; fails the test where it is missing."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if not found:
        pytest.fail(f"{program} is missing: apt install {package}")
    return found


def run(*command: str | Path, **environment: str | Path) -> str:
    """What a command prints; fails the test with all of it where the command fails."""
    variables = os.environ | {name: str(value) for name, value in environment.items()}
    done = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package of this tree."""
    need("dpkg-deb", "dpkg")
    directory = tmp_path_factory.mktemp("package")
    run(ROOT / "tools" / "deb", DIST=directory, PYTHON=PYTHON)
    return next(directory.glob("glassq_*.deb"))
