"""A request as its source sees it, made of a WSGI environ without copying it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from glassq.sources.base import HeadRequest, HookRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.intake.peers import TrustedProxies
    from glassq.sources.base import Body

# The headers that have a name of their own in a WSGI environ (PEP 3333).
_CGI = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}
_NAMES = {key: name for name, key in _CGI.items()}


class EnvironHeaders(Mapping[str, str]):
    """The headers of a WSGI environ, by names in lower case. Values are latin-1, as in any WSGI environ."""

    __slots__ = ("_environ",)

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        return str(self._environ[_key(name)])

    def get(self, name: str, default: Any = None) -> Any:
        # Mapping's own raises and catches for each header that is not there
        return self._environ.get(_key(name), default)

    def __iter__(self) -> Iterator[str]:
        for key in self._environ:
            if key.startswith("HTTP_"):
                yield key[5:].replace("_", "-").lower()
            elif key in _NAMES:
                yield _NAMES[key]

    def __len__(self) -> int:
        return sum(1 for _ in self)


# Sources ask for few names, and name them in settings or presets.
@lru_cache(maxsize=1024)
def _key(name: str) -> str:
    return _CGI.get(name) or f"HTTP_{name.upper().replace('-', '_')}"


def hook_request(environ: Mapping[str, Any], body: Body | None, proxies: TrustedProxies) -> HookRequest:
    """The request of an environ, with its body; a HeadRequest where not all of that is here (None)."""
    headers = EnvironHeaders(environ)
    # an IPv4 client of a listener for both
    peer = environ["REMOTE_ADDR"].removeprefix("::ffff:")
    if proxies:
        peer = proxies.client(peer, headers)
    method, target, now = environ["REQUEST_METHOD"], environ["RAW_URI"], time.time()
    if body is None:
        return HeadRequest(method, target, headers, b"", peer, now)
    return HookRequest(method, target, headers, body, peer, now)
