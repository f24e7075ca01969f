"""Logs requests with a wrong path or method (404, 405), so that an operator sees which URL a source calls.

A scanner must not flood the log with them, and a path may contain a secret.
"""

from __future__ import annotations

import logging
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING
from urllib.parse import unquote

from glassq.http.log_limiter import LogLimiter
from glassq.log import fields, logger
from glassq.mask import MASK, masked_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    import falcon

log = logger("glassq.intake")

# Maximum number of hook paths in a hint, for a path that is similar to none of them.
MAX_NAMED = 3
# Maximum length of a logged path, in characters.
MAX_PATH = 200
# A word of at least this length and of these characters may be a token. Its first characters say which one.
_LONG = re.compile(r"([A-Za-z0-9_-]{4})[A-Za-z0-9_-]{16,}")
_AFTER_KEY = re.compile(r"(/(?:access_?|api_?|auth_?)?(?:token|secret|password)/)[^/]+", re.IGNORECASE)
# What follows a source's name in the path may be its token.
_AFTER_HOOK = re.compile(r"(^/+hooks/+[^/]+/+)[^/].*", re.IGNORECASE | re.DOTALL)
_SLASHES = re.compile(r"/+")
# Minimum similarity, from 0 to 1, of a path and a hook path that was meant.
_ALIKE = 0.7


class MissLog:
    """Logs these requests; for all threads of one process."""

    def __init__(self, hooks: Iterable[str]) -> None:
        """`hooks` are the paths for pings."""
        self._hooks = list(hooks)
        self._limiter = LogLimiter()

    def log(self, req: falcon.Request, status: int) -> None:
        """Logs a request that was answered with `status`, unless there are too many."""
        left_out = self._limiter.admit()
        if left_out is None:
            return
        path = str(req.env.get("RAW_URI", req.path)).partition("?")[0]
        found = {"status": status, "method": req.method, "path": self._shown(path), "sender": req.remote_addr}
        if hook := self._meant(path):
            found["hint"] = f"pings go to POST {hook}"
        log.log(logging.WARNING if hook else logging.INFO, "refused %s", fields(**found, **left_out))

    def _shown(self, path: str) -> str:
        cut = "…" if len(path) > MAX_PATH else ""
        known = "/".join(self._hooks).split("/")
        # decoded first: an encoded key is a key, too. The segment after a key is its value.
        plain = _AFTER_HOOK.sub(rf"\1{MASK}", _AFTER_KEY.sub(rf"\1{MASK}", unquote(path[:MAX_PATH])))
        if masked_text(plain) != unquote(path[:MAX_PATH]):
            path = plain
        segments = [word if word in known else _LONG.sub(rf"\1{MASK}", word) for word in path.split("/")]
        return masked_text("/".join(segments))[:MAX_PATH] + cut

    def _meant(self, path: str) -> str:
        """The hook path that was probably meant; "" if the path is similar to none."""
        plain = _SLASHES.sub("/", unquote(path[:MAX_PATH]).strip().lower()).rstrip("/")
        for hook in self._hooks:
            if plain == hook.lower() or (plain and hook.lower().endswith(plain)):
                return hook
        close = get_close_matches(plain, self._hooks, 1, _ALIKE)
        if not close and f"{plain}/".startswith("/hooks/"):
            return " or ".join(self._hooks[:MAX_NAMED])
        return close[0] if close else ""
