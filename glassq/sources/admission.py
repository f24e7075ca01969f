"""What is checked before the proof: the word in the path, the client's address, the content type."""

from __future__ import annotations

import hmac
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from glassq.errors import PingRefused
from glassq.sources.template import raw

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.sources.base import HookRequest


class Admission:
    """Who may come to the proof."""

    def __init__(
        self,
        name: str,
        *,
        words: Sequence[str] = (),
        networks: Sequence[str] = (),
        content_types: Sequence[str] = (),
        check_type: Callable[[str | None], None] | None = None,
    ) -> None:
        """`words` are those of which one stands behind the name in the path; none: nothing stands there.

        `content_types` are media types, in lower case; none: any. `check_type` takes their place.
        """
        self._plain = f"/hooks/{name}"
        self._words = [word.encode() for word in words]
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(each) for each in networks]
        self._content_types = frozenset(content_types)
        self._check_type = check_type or (self._in_list if self._content_types else None)

    def check(self, request: HookRequest) -> None:
        """Raises PingRefused: 404, 403 or 415."""
        if self._words or request.target != self._plain:
            self._check_path(request.target)
        if self._networks and not self._is_allowed(request.peer):
            raise PingRefused(403, "Forbidden", "This address may not send here.", "address")
        if self._check_type:
            self._check_type(request.headers.get("content-type"))

    def _check_path(self, target: str) -> None:
        segments = [unquote_to_bytes(raw(each)) for each in target.partition("?")[0].split("/")]
        word = segments[3] if len(segments) == 4 else b""
        # each is compared, also after a match
        found = [hmac.compare_digest(word, known) for known in self._words]
        fits = True in found if self._words else len(segments) == 3
        if not fits:
            raise PingRefused(404, "Not Found", "There is nothing at this path.", "path token")

    def _is_allowed(self, peer: str) -> bool:
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        address = mapped or address
        return any(address in network for network in self._networks if network.version == address.version)

    def _in_list(self, content_type: str | None) -> None:
        if content_type is not None and content_type.partition(";")[0].strip().lower() not in self._content_types:
            raise PingRefused(415, "Unsupported media type", "This content type is not taken here.", "content type")
