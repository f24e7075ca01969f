"""A request in the making: values are written to the places where a source reads them (see places.py)."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, quote, urlencode

from glassq.content import FORM, media_type
from glassq.sources.base import HookRequest
from glassq.sources.places import PlaceReader, Unreadable

if TYPE_CHECKING:
    from glassq.sources.places import Place, Spec


@dataclass(frozen=True, slots=True)
class Draft:
    """A POST to a raw `target`. Names of `headers` are in lower case."""

    target: str
    headers: dict[str, str]
    body: bytes

    def request(self, now: float) -> HookRequest:
        """As the source sees it at that moment (Unix time)."""
        return HookRequest("POST", self.target, self.headers, self.body, "127.0.0.1", now)

    def read(self, spec: Spec) -> str | None:
        """The value that the source reads there; None for none."""
        try:
            return PlaceReader([spec]).values(self.request(0.0)).text(spec)
        except Unreadable:
            return None

    def with_header(self, name: str, value: str) -> Self:
        """The same with this header."""
        return replace(self, headers={**self.headers, name.lower(): value})

    def put(self, spec: Spec, value: str) -> Self:
        """The same with the value at the first place that this body has room for; of a sum, at its last part.

        Raises ValueError where there is none.
        """
        for places in spec:
            with suppress(ValueError):
                return self._put(places[-1], value)
        raise ValueError("the body has no such place")

    def put_if_possible(self, spec: Spec, value: str) -> Self:
        """The same, or this draft where there is no such place."""
        try:
            return self.put(spec, value)
        except ValueError:
            return self

    def put_json(self, path: tuple[str, ...], value: object) -> Self:
        """The same with a value in the JSON body. Raises ValueError for a body that is no such JSON."""
        return replace(self, body=written(_put(json.loads(self.body), path, value)))

    @property
    def is_form(self) -> bool:
        """Whether the body is a form."""
        return media_type(self.headers.get("content-type", "")) == FORM

    def _put(self, place: Place, value: str) -> Self:
        match place.kind:
            case "header":
                return self.with_header(place.name, value)
            case "json":
                return self.put_json(place.path, value)
            case "form" if not self.is_form:
                raise ValueError("the body is no form")
            case "form":
                fields = dict(parse_qsl(self.body.decode(), keep_blank_values=True))
                inner = fields.get(place.name, "{}")
                text = written(_put(json.loads(inner), place.path, value)).decode() if place.path else value
                return replace(self, body=urlencode({**fields, place.name: text}).encode())
            case "query":
                sign = "&" if "?" in self.target else "?"
                return replace(self, target=f"{self.target}{sign}{quote(place.name)}={quote(value)}")
            case _:
                return self


def written(document: object) -> bytes:
    """JSON as it is sent."""
    return json.dumps(document, separators=(",", ":")).encode()


def _put(document: Any, path: tuple[str, ...], value: object) -> Any:
    """The document with the value at the path, which is made as far as it is missing. Raises ValueError."""
    if not path:
        return value
    name, rest = path[0], path[1:]
    if document is None:
        document = [] if name.isdecimal() else {}
    if isinstance(document, list):
        place = int(name) if name.isdecimal() else -1
        if not 0 <= place <= len(document):
            raise ValueError(f"the body has no place {name}")
        before = document[place] if place < len(document) else None
        return [*document[:place], _put(before, rest, value), *document[place + 1 :]]
    if not isinstance(document, dict) or name.isdecimal():
        raise ValueError(f"the body has no place for {'.'.join(path)}")
    return {**document, name: _put(document.get(name), rest, value)}
