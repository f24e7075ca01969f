"""Labels and headers of a ping: what its delivery keeps beside the body, for routes, handlers and people.

Nothing is refused here: the ping is genuine. What cannot be read is left out, and named.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from glassq.sources.base import Description
from glassq.sources.places import PlaceReader, Spec, Unreadable, parse_spec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from glassq.sources.base import HookRequest

EVENT_ID = "event_id"
# The longest label, in characters.
MAX_LABEL = 512
MAX_HEADERS = 32
# All kept headers together, names and values, in characters.
MAX_HEADER_TEXT = 4 << 10
# Words in names of headers that hold something with which others could act in the sender's or our name.
_SECRET_NAME = re.compile(
    r"(^|-)auth(orization|entication)?(-|$)|cookie|signature|hmac|token|secret|password|api-?key|-sig$|credential|session"
)


class Labels:
    """What is read of each ping of a source."""

    def __init__(self, texts: Mapping[str, str], keep: Iterable[str], *, digest: bool) -> None:
        """`texts` are the places of the labels, `keep` names of headers, in lower case; "ce-*" is all that begin so.

        With `digest`, a ping without an event_id gets the digest of its body as one. Raises ValueError for a text that
        is no place.
        """
        specs = {name: parse_spec(text) for name, text in texts.items() if text}
        # most labels are in a header, and need no more than a look at it
        self._plain = {name: header for name, spec in specs.items() if (header := _plain_header(spec))}
        self._specs: list[tuple[str, Spec]] = [(name, spec) for name, spec in specs.items() if name not in self._plain]
        self._places = PlaceReader(spec for _, spec in self._specs)
        names = list(dict.fromkeys(keep))
        self._names = tuple(name for name in names if not name.endswith("*"))
        self._starts = tuple(name[:-1] for name in names if name.endswith("*"))
        self._digest = digest

    @property
    def names(self) -> frozenset[str]:
        """The labels that a ping may have."""
        names = {*self._plain, *(name for name, _ in self._specs)}
        return frozenset(names | {EVENT_ID} if self._digest else names)

    def describe(self, request: HookRequest) -> Description:
        """What a delivery keeps of the request. Raises nothing."""
        headers = request.headers
        found = {name: headers.get(header) for name, header in self._plain.items()}
        unread = []
        if self._specs:
            values = self._places.values(request)
            for name, spec in self._specs:
                try:
                    found[name] = values.text(spec)
                except Unreadable:
                    unread.append(name)
        labels = {}
        for name, value in found.items():
            if value and len(value) <= MAX_LABEL and value.isprintable():
                labels[name] = value
            elif value:
                unread.append(name)
        if self._digest and EVENT_ID not in labels:
            labels[EVENT_ID] = f"sha256:{hashlib.sha256(request.body).hexdigest()}"
        return Description(labels, self._headers(headers), _printable(headers.get("content-type", "")), tuple(unread))

    def _headers(self, given: Mapping[str, str]) -> dict[str, str]:
        names: Collection[str] = self._names
        if self._starts:
            names = [*names, *sorted(name for name in given if name.startswith(self._starts) and not is_secret(name))]
        kept: dict[str, str] = {}
        room = MAX_HEADER_TEXT
        for name in names:
            value = given.get(name)
            if value is None:
                continue
            room -= len(name) + len(value)
            if room >= 0 and len(kept) < MAX_HEADERS and value.isprintable():
                kept[name] = value
        return kept


def _plain_header(spec: Spec) -> str:
    """The header that is all of a specification; "" if it is more."""
    if len(spec) != 1 or len(spec[0]) != 1 or spec[0][0].kind != "header" or spec[0][0].name.startswith("ce-"):
        return ""
    return spec[0][0].name


def is_secret(name: str) -> bool:
    """Whether a header of this name may hold a signature, a token or a cookie. `name` is in lower case."""
    return bool(_SECRET_NAME.search(name))


def _printable(text: str) -> str:
    return text if text.isprintable() and len(text) <= MAX_LABEL else ""
