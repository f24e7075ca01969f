"""Writes docs/demo.svg and docs/buried.svg: what a real demo shows, as pictures of a terminal.

`python tools/terminals.py [DIRECTORY]`. Each run has other ids and times, so nothing compares them; nothing of this
machine is in them.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
WIDTH = 118
# What the directory of the trial is called in the pictures.
HOME = "~/glassq"
DEMO = ("glassq", "demo", "--pings", "60", "--keep")
# How long the demo may take, in seconds.
PATIENCE = 240.0
# rich names fonts of a server elsewhere; a picture in a document shall ask nobody.
_FONTS = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)


def main(target: Path) -> None:
    """Runs the demo, asks it, and writes both pictures."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name).resolve()
        # so that commands are called as they are in a clone
        (home / ".venv").mkdir()
        (home / ".venv" / "bin").symlink_to(BIN)
        with running_demo(home) as shown:
            picture(target / "demo.svg", home, [(DEMO[:-1], shown)], "glassq demo")
            asked = [(command, said(home, *command)) for command in _questions(home)]
            picture(target / "buried.svg", home, asked, "glassq buried")


def _questions(home: Path) -> Iterator[tuple[str, ...]]:
    yield ("glassq", "buried")
    yield ("glassq", "buried", "--by", "reason")
    found = re.search(r"--group ([0-9a-f]{12})", said(home, "glassq", "buried", "--by", "reason"))
    assert found is not None, "the demo has buried nothing"
    yield ("glassq", "kick", "--group", found[1], "--dry-run")
    yield ("glassq", "sources")


@contextmanager
def running_demo(home: Path) -> Iterator[str]:
    """The demo, with all that it has printed until it waits for Ctrl-C."""
    log = home / "demo.log"
    with log.open("wb") as out:
        demo = subprocess.Popen(_program(DEMO), cwd=home, env=_environment(), stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + PATIENCE
        while "Still running" not in log.read_text("utf-8"):
            if demo.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the demo did not come to its end:\n{log.read_text('utf-8')}")
            time.sleep(0.2)
        yield log.read_text("utf-8").partition("\nStill running")[0]
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait()


def said(home: Path, *command: str) -> str:
    """What a command prints in the trial."""
    done = subprocess.run(
        _program(command), cwd=home, env=_environment(), capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def _program(command: tuple[str, ...]) -> list[str]:
    return [str(Path(".venv/bin", command[0])), *command[1:]]


def _environment() -> dict[str, str]:
    plain = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**plain, "COLUMNS": str(WIDTH), "FORCE_COLOR": "1", "GLASSQ_CONFIG": "var/demo/glassq.toml"}


def picture(file: Path, home: Path, shown: list[tuple[tuple[str, ...], str]], title: str) -> None:
    """Writes commands and what they printed as one picture."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    for number, (command, output) in enumerate(shown):
        console.print(Text(("\n" if number else "") + "$ " + " ".join(command), style="bold green"))
        console.print(Text.from_ansi(output.replace(str(home), HOME).rstrip()), soft_wrap=False)
    svg = _FONTS.sub("", console.export_svg(title=title, unique_id="terminal"))
    file.write_text(svg, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs")
