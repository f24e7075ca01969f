"""Requests for what is not here (404, 405), told to whoever sets up a source: which URL do they call?

A scanner must not flood the log with them, and a path may hold a secret.
"""

from __future__ import annotations

import logging
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING
from urllib.parse import unquote

from glassq.intake.line_budget import LineBudget
from glassq.log import fields, logger
from glassq.mask import MASK, masked_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    import falcon

log = logger("glassq.intake")

# Of the paths that take pings, so many are named where none is like the one that was called.
MAX_NAMED = 3
# Of a path, in characters.
MAX_PATH = 200
# What is as long as this, and of these characters, may be a token. Its beginning tells which one.
_LONG = re.compile(r"([A-Za-z0-9_-]{4})[A-Za-z0-9_-]{16,}")
_AFTER_KEY = re.compile(r"(/(?:access_?|api_?|auth_?)?(?:token|secret|password)/)[^/]+", re.IGNORECASE)
_SLASHES = re.compile(r"/+")
# How alike two paths are, from 0 to 1, where one of them is a slip for the other.
_ALIKE = 0.7


class Misses:
    """Logs them; for all threads of one process."""

    def __init__(self, hooks: Iterable[str]) -> None:
        """`hooks` are the paths that take pings."""
        self._hooks = list(hooks)
        self._budget = LineBudget()

    def tell(self, req: falcon.Request, status: int) -> None:
        """One line about a request that was answered with `status`, if there may be one now."""
        left_out = self._budget.admit()
        if left_out is None:
            return
        path = str(req.env.get("RAW_URI", req.path)).partition("?")[0]
        said = {"status": status, "method": req.method, "path": self._shown(path), "sender": req.remote_addr}
        if hook := self._meant(path):
            said["hint"] = f"pings go to POST {hook}"
        log.log(logging.WARNING if hook else logging.INFO, "refused %s", fields(**said, **left_out))

    def _shown(self, path: str) -> str:
        cut = "…" if len(path) > MAX_PATH else ""
        known = "/".join(self._hooks).split("/")
        # as it was meant: an encoded key is a key, and what follows one in a segment of its own is its value
        plain = _AFTER_KEY.sub(rf"\1{MASK}", unquote(path[:MAX_PATH]))
        if masked_text(plain) != unquote(path[:MAX_PATH]):
            path = plain
        segments = [each if each in known else _LONG.sub(rf"\1{MASK}", each) for each in path.split("/")]
        return masked_text("/".join(segments))[:MAX_PATH] + cut

    def _meant(self, path: str) -> str:
        """The path that a nearly right one stands for; "" where it is like none."""
        plain = _SLASHES.sub("/", unquote(path[:MAX_PATH]).strip().lower()).rstrip("/")
        for hook in self._hooks:
            if plain == hook.lower() or (plain and hook.lower().endswith(plain)):
                return hook
        close = get_close_matches(plain, self._hooks, 1, _ALIKE)
        if not close and f"{plain}/".startswith("/hooks/"):
            return " or ".join(self._hooks[:MAX_NAMED])
        return close[0] if close else ""
