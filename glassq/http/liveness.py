"""GET /healthz: is the process alive?"""

from __future__ import annotations

from typing import Any


class LivenessResource:
    """A resource of falcon's."""

    def on_get(self, _req: object, resp: Any) -> None:
        """Answers 200, also while the queue is down."""
        resp.content_type = "text/plain; charset=utf-8"
        resp.text = "ok\n"
