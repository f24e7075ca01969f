"""What is checked of a request before anything is proven: token in the path, and the client's address."""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from glassq.errors import PingRefused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network, IPv6Network

# /hooks/NAME
_SEGMENTS = 3


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
        known = any(address in network for network in allowed)
    if not known:
        raise PingRefused(403, "Forbidden", "This address may not send here.", "address")
