"""Links that sign in once, for the doors at which nobody can be recognised: printed to who started the console."""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.console.keys import Key

_PURPOSE = "link"
# A link works for so long, in seconds, and once.
LIFE = 60.0


def new_code(key: Key, name: str, now: float, life: float = LIFE) -> str:
    """A code that signs in as `name`, within so many seconds; `now` is in Unix time."""
    document = {"name": name, "made": now, "until": now + life, "once": secrets.token_hex(8)}
    return key.sign(_PURPOSE, document)


class Links:
    """Takes codes, each once. Those that were made before this object are not taken: they may have been used."""

    def __init__(self, key: Key, clock: Callable[[], float]) -> None:
        """`clock` tells Unix time."""
        self._key = key
        self._clock = clock
        self._since = clock()
        self._lock = threading.Lock()
        self._used: dict[str, float] = {}

    def look(self, code: str) -> str:
        """Whose code it is; "" where it is not taken (any more). Nothing is spent."""
        document = self._key.read(_PURPOSE, code)
        now = self._clock()
        if document is None or not self._since <= document["made"] <= now <= document["until"]:
            return ""
        with self._lock:
            return "" if document["once"] in self._used else str(document["name"])

    def spend(self, code: str) -> str:
        """The same, and the code is spent."""
        name = self.look(code)
        document = self._key.read(_PURPOSE, code) if name else None
        if document is None:
            return ""
        with self._lock:
            if document["once"] in self._used:
                return ""
            now = self._clock()
            self._used = {once: until for once, until in self._used.items() if until >= now}
            self._used[document["once"]] = document["until"]
        return name
