"""What one check came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """What one check came to.

    `ok` is False where something is wrong, and None where nothing is, but an operator should know. `said` is what was
    seen, `todo` what to do about it; a command of ours stands there as `glassq ...`, in backquotes. `code` is the exit
    code that it stands for when it is wrong.
    """

    name: str
    ok: bool | None
    said: str
    todo: str = ""
    code: int = 1

    def __str__(self) -> str:
        return f"{self.said}: {self.todo}" if self.todo else self.said
