"""Programs of the distribution, run so that a failure says all of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# Of the distribution: packages and units are made for it.
PYTHON = "/usr/bin/python3"


def need(program: str, package: str) -> str:
    """The path of a program; fails the test where it is missing."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if not found:
        pytest.fail(f"{program} is missing: apt install {package}")
    return found


def run(*command: str | Path, **environment: str | Path) -> str:
    """What a command prints; fails the test with all of it where the command fails."""
    variables = os.environ | {name: str(value) for name, value in environment.items()}
    # an administrator's shell does not say it, and it hides what an installation would leave
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
