"""What is checked of a request before anything is proven: word in the path, the client's address, content type."""

from __future__ import annotations

import hmac
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from glassq.content import media_type
from glassq.errors import PingRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from glassq.sources.base import HookRequest

# /hooks/NAME
_SEGMENTS = 3


class AdmissionRules:
    """Who may come to the proof of a source."""

    def __init__(
        self,
        *,
        words: Sequence[str] = (),
        networks: Sequence[str] = (),
        content_types: Sequence[str] = (),
        check_type: Callable[[str | None], None] | None = None,
    ) -> None:
        """`words` are those of which one stands behind the name in the path; none: nothing stands there.

        `content_types` are media types, in lower case; none: any. `check_type` takes their place.
        """
        self._words = [word.encode() for word in words]
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(each) for each in networks]
        self._content_types = frozenset(content_types)
        self._check_type = check_type or (self._in_list if self._content_types else None)

    def check(self, request: HookRequest) -> None:
        """Raises PingRefused: 404, 403 or 415."""
        check_path(request.target, self._words)
        check_address(request.peer, self._networks)
        if self._check_type:
            self._check_type(request.headers.get("content-type"))

    def _in_list(self, content_type: str | None) -> None:
        if content_type is not None and media_type(content_type) not in self._content_types:
            raise PingRefused(415, "Unsupported media type", "This content type is not taken here.", "content type")


def check_path(target: str, tokens: Sequence[bytes] = ()) -> None:
    """Checks that the path is `/hooks/NAME/TOKEN`, with one of these tokens, or `/hooks/NAME` where there are none.

    `target` is the raw path and query. Raises PingRefused with 404, as for any path that is not here.
    """
    path = target.partition("?")[0]
    if not tokens and path.count("/") < _SEGMENTS:
        return
    parts = unquote_to_bytes(path).split(b"/", _SEGMENTS)
    given = parts[_SEGMENTS] if len(parts) > _SEGMENTS else b""
    # compare with every token, also after a match, so that the time reveals nothing
    matches = [hmac.compare_digest(given, token) for token in tokens]
    if True not in matches:
        raise PingRefused(404, "Not Found", "", "path token")


def check_address(peer: str, allowed: Sequence[IPv4Network | IPv6Network]) -> None:
    """Checks that the client's address is in one of these networks; without networks, any is right.

    Raises PingRefused with 403, also for a client without an address: one of a unix socket.
    """
    if not allowed:
        return
    try:
        address = ip_address(peer)
    except ValueError:
        known = False
    else:
        # how a socket of both versions shows a client of version 4
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        known = any((mapped or address) in network for network in allowed)
    if not known:
        raise PingRefused(403, "Forbidden", "This address may not send here.", "address")
