"""What the booted tests did and saw, in a file for people: a heading for each test, commands and what they said."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Lines in a terminal's colours are hard to read in a file.
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
# The longest line, in characters.
WIDTH = 160


class Transcript:
    """Written line by line, so that of a run that hangs there is all of it; in place of an older one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        #: whether there is anything in it
        self.told = False
        self._heading = ""

    def begin(self, heading: str) -> None:
        """The next line, if there is one, is the first below this heading."""
        self._heading = heading

    def say(self, text: str) -> None:
        """A line of ours."""
        self._write(text)

    def ran(self, command: str, said: str, lines: int) -> None:
        """A command, and the first `lines` of what it said."""
        told = _STYLE.sub("", said).splitlines()
        self._write(f"# {command}")
        for line in told[:lines]:
            self._write(f"    {line}"[:WIDTH].rstrip())
        if len(told) > lines:
            self._write(f"    ... ({len(told) - lines} more lines)")

    def _write(self, line: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a" if self.told else "w") as file:
            if self._heading:
                file.write(f"\n--- {self._heading}\n" if self.told else f"--- {self._heading}\n")
                self._heading = ""
            file.write(line + "\n")
        self.told = True
