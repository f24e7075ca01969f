"""The transport of requests to Google: a requests adapter that skips interim responses and knows local addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter

from glassq import host
from glassq.final_response import reading_final

if TYPE_CHECKING:
    import requests


class FinalResponseAdapter(HTTPAdapter):
    """Skips interim responses. Requests to this machine (the simulated Glass) do not use the environment's proxy."""

    def send(
        self,
        request: Any,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> Any:
        """The response to one request; `proxies` are the environment's."""
        own = host.is_own(urlsplit(request.url).hostname or "")
        return super().send(request, stream, timeout, verify, cert, None if own else proxies)

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
        """The connection pool of a host."""
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        pool.ConnectionCls = reading_final(pool.ConnectionCls)
        return pool


def mount(session: requests.Session) -> None:
    """Makes `session` send all requests through this adapter."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, FinalResponseAdapter())
