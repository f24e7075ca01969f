"""What systemd says of units, where it runs."""

from __future__ import annotations

import shutil
import subprocess

from glassq.host import has_systemd

# systemd answers within this many seconds, or something is wrong with it.
TIMEOUT = 3.0
INTAKE, POOL = "glassq-web.service", "glassq-worker.service"


def ask(program: str, *arguments: str) -> tuple[str, str]:
    """What a program of systemd's says, and why it says nothing."""
    path = shutil.which(program)
    if path is None or not has_systemd():
        return "", "systemd does not run here"
    try:
        done = subprocess.run(
            [path, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return "", f"{program} did not answer within {TIMEOUT:g} s"
    if done.returncode:
        return "", f"{program}: {done.stderr.strip() or f'exit {done.returncode}'}"
    return done.stdout, ""


def listens_for_intake() -> bool:
    """Whether systemd holds the intake's socket: then glassq-web does not listen by itself."""
    said, _ = ask("systemctl", "show", "--property=LoadState", "--", "glassq-web.socket")
    return said.strip() == "LoadState=loaded"


def leaves_out_intake() -> bool:
    """Whether this machine is to run the pool, and not the intake."""
    said, _ = ask("systemctl", "show", "--property=UnitFileState", "--", INTAKE, POOL)
    return said.split() in (
        ["UnitFileState=disabled", "UnitFileState=enabled"],
        ["UnitFileState=masked", "UnitFileState=enabled"],
    )
