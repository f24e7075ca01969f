"""What carries requests to Google: a requests adapter that reads final responses, and asks this machine directly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter

from glassq import host
from glassq.final_response import reading_final

if TYPE_CHECKING:
    import requests


class Adapter(HTTPAdapter):
    """Skips interim responses. A proxy that the environment names is for other hosts: the simulated Glass is here."""

    def send(
        self,
        request: Any,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> Any:
        """The response to one request; `proxies` are those of the environment."""
        own = host.is_own(urlsplit(request.url).hostname or "")
        return super().send(request, stream, timeout, verify, cert, None if own else proxies)

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
        """The pool of connections to a host."""
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        pool.ConnectionCls = reading_final(pool.ConnectionCls)
        return pool


def mount(session: requests.Session) -> None:
    """Has `session` send all requests by this adapter."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, Adapter())
