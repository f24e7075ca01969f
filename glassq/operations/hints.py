"""What to do next, as a value. A face makes a command line or a link of it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

_COMMAND = re.compile(r"`glassq ([^`]*)`")


@dataclass(frozen=True, slots=True)
class Hint:
    """What to do next: `words` say why, `command` is what follows `glassq` on the command line ("": none does).

    `about` is what faces may show in another way.
    """

    words: str
    command: str = ""
    about: Literal["", "buried", "paused"] = ""

    def __str__(self) -> str:
        return f"{self.words}: `glassq {self.command}`" if self.command else self.words


def argument(word: str) -> str:
    """The word of a command; where it looks like an option, the command is told that none follows.

    What stands in a delivery a stranger may have written, and what is shown is pasted into a root's shell.
    """
    return f"-- {shlex.quote(word)}" if word.startswith("-") else shlex.quote(word)


def adapt_hints(document: dict[str, Any], adapt: Callable[[str], str]) -> dict[str, Any]:
    """The document for JSON with its hints adapted."""
    return {**document, "hints": [adapt(hint) for hint in document["hints"]]}


def command(words: str, config: str | None) -> str:
    """`glassq WORDS` as it is typed for the settings that --config names so (None: it is not needed)."""
    option = f" --config {shlex.quote(config)}" if config else ""
    return f"`glassq{option} {words}`"


def adapt(text: str, config: str | None) -> str:
    """The text with each `glassq ...` in it as `command` has it."""
    return _COMMAND.sub(lambda found: command(found[1], config), text)
