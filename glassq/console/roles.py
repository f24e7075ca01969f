"""Who does something in the console, and what that one may do."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

Door = Literal["socket", "proxy", "loopback"]


class Role(enum.IntEnum):
    """What somebody may do; each role may do what those below it may."""

    NOBODY = 0
    VIEWER = 1
    OPERATOR = 2

    @property
    def words(self) -> str:
        """The role as people read it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody at a door: `name` is who the door says that is."""

    name: str
    role: Role
    door: Door

    @property
    def identity(self) -> str:
        """Who that is, in plans and in the trail: what a proxy says is no name of a user of this machine."""
        return f"{self.name} (proxy)" if self.door == "proxy" else self.name

    @property
    def may_act(self) -> bool:
        """Whether buttons that change something are drawn."""
        return self.role >= Role.OPERATOR
