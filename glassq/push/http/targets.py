"""From a full URL to a target of [push.targets] and the path on it, and back.

The request later goes to the target's own scheme, host and port: those of the URL are compared and never used. So a
client cannot reach what the settings do not name, however it writes a URL.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from glassq.push.http.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

_PORTS = {"http": 80, "https": 443}
# urlsplit would drop some of them without a word
_NEVER = re.compile(r"[\x00-\x20\x7f\\#]")


class Targets:
    """The targets of the settings."""

    def __init__(self, targets: Mapping[str, str], file: str) -> None:
        """`targets` are the URLs by name; `file` is the settings file, for messages."""
        self._bases = {name: url.rstrip("/") for name, url in targets.items()}
        self._file = file
        found = [(_origin(urlsplit(base)), urlsplit(base).path, name) for name, base in self._bases.items()]
        # the longest path first: the nearest target takes it
        self._places = sorted(found, key=lambda place: (-len(place[1]), place[2]))

    def below(self, field: str, url: str) -> tuple[str, str]:
        """The target that this URL is below, and the rest of the URL from its path on. Raises ApiError."""
        try:
            parts = urlsplit(url)
            origin = _origin(parts)
        except ValueError:
            raise invalid(f"{field}: expected an http or https URL") from None
        if _NEVER.search(url) or parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
            raise invalid(f"{field}: expected an http or https URL without a user, a fragment or spaces")
        path = parts.path or "/"
        for place, base, name in self._places:
            if place == origin and path.startswith(f"{base}/"):
                query = url.partition("?")[2]
                return name, path[len(base) :] + (f"?{query}" if query else "")
        known = ", ".join(f"{name} = {base}" for name, base in sorted(self._bases.items())) or "none"
        raise invalid(f"{field}: is below no target of [push.targets] in {self._file}; there are: {known}")

    def url(self, name: str, relative: str) -> str:
        """The full URL of a path on a target; the path alone if the settings do not have the target."""
        return f"{self._bases.get(name, '')}{relative}"


def _origin(parts: SplitResult) -> tuple[str, str, int | None]:
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
