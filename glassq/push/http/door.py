"""Who may come in, and by which door: tokens on TCP, metrics on their own listener."""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING, Any

import falcon

from glassq.http.listen import socket_names
from glassq.http.strict import malformed
from glassq.push.http.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.values import Address

METRICS = "/metrics"
# They say nothing of tasks, and a load balancer has no token.
OPEN = frozenset({"/healthz", "/readyz"})
_BEARER = "bearer "


class Doorkeeper:
    """Refuses what is malformed, who has no token, and metrics on a listener of tasks; before anything else."""

    def __init__(self, tokens: Sequence[str], metrics: Address | None) -> None:
        """`tokens` let in on TCP; `metrics` is the address of the metrics' listener, None if there is none."""
        self._tokens = [token.encode() for token in tokens]
        self._metrics = socket_names(metrics) if metrics else set()

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Raises ApiError, or HTTPNotFound on the wrong listener."""
        if (found := malformed(req.env)) is not None:
            raise ApiError(found.status, f"{found.title}. {found.detail}")
        listener: Any = req.env["glassq.listener"]
        # a unix socket has a path; whom it lets in, its mode has said
        on_tcp = isinstance(listener, tuple)
        if (on_tcp and listener[:2] in self._metrics) != (req.path == METRICS):
            raise falcon.HTTPNotFound
        if on_tcp and req.path != METRICS and req.path not in OPEN:
            self._check(req.env.get("HTTP_AUTHORIZATION", ""))

    def _check(self, given: str) -> None:
        token = given[len(_BEARER) :].strip().encode("latin-1") if given[: len(_BEARER)].lower() == _BEARER else b""
        # each is compared, so that the time does not say which one it is
        if not sum(compare_digest(token, known) for known in self._tokens):
            raise ApiError(401, 'expected "Authorization: Bearer TOKEN", with a token of [tasks] token_file')
