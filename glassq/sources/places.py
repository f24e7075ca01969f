"""Where a value is in a request, as presets and settings write it.

    header:X-GitHub-Event       a header
    json:event.type             a value in the JSON body; a number is a place in an array: json:entry.0.id
    form:payload                a field of the form; "form:payload json:type" is within the JSON of that field
    query:topic                 a parameter of the URL
    const:shop                  this very text

"A | B" is the first of them that is there; "A + B" both, with a space between, if both are there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qsl, unquote

import msgspec

from glassq.sources import forms
from glassq.sources.json_fields import JsonFields, Path, UnreadableJson, parse_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from glassq.sources.base import HookRequest

_PLACE = re.compile(r"(header|json|form|query|const):(\S+)(?: json:(\S+))?")
_EXPECTED = (
    'expected "header:NAME", "json:a.b", "form:NAME", "form:NAME json:a.b", "query:NAME" or "const:TEXT", '
    'also several with " | " or " + " between them'
)


class Unreadable(ValueError):
    """A value may be there, but cannot be read."""


class Place(msgspec.Struct, frozen=True):
    """One place. `path` is that in the JSON body, or within the field `name` of a form."""

    kind: Literal["header", "json", "form", "query", "const"]
    name: str = ""
    path: Path = ()


# Alternatives, each a sum of places.
Spec = tuple[tuple[Place, ...], ...]


def parse_spec(text: str) -> Spec:
    """The places that a text names; none for "". Raises ValueError, which says what is expected."""
    if not text:
        return ()
    if text.startswith("const:"):
        return ((Place("const", text.removeprefix("const:")),),)
    return tuple(tuple(map(_parse_place, each.split(" + "))) for each in text.split(" | "))


def _parse_place(text: str) -> Place:
    match = _PLACE.fullmatch(text.strip())
    if not match or (match[3] and match[1] != "form"):
        raise ValueError(_EXPECTED)
    kind, name, inner = match.groups()
    if kind == "json":
        return Place("json", "", parse_path(name))
    if kind == "header":
        return Place("header", name.lower())
    return Place(kind, name, parse_path(inner) if inner else ())  # type: ignore[arg-type]


class PlaceReader:
    """Several specifications, so that a body is read once for all of them."""

    def __init__(self, specs: Iterable[Spec]) -> None:
        places = [place for spec in specs for each in spec for place in each]
        paths = {place.path for place in places if place.kind == "json"}
        self._json = JsonFields(paths) if paths else None
        names = {place.name for place in places if place.kind == "form" and place.path}
        self._inner = {
            name: JsonFields(place.path for place in places if place.kind == "form" and place.name == name)
            for name in names
        }

    def values(self, request: HookRequest) -> PlaceValues:
        """The values of one request, read when they are asked for."""
        return PlaceValues(request, self._json, self._inner)


class PlaceValues:
    """The values at the places of one request, and what has been read of it so far."""

    def __init__(self, request: HookRequest, fields: JsonFields | None, inner: dict[str, JsonFields]) -> None:
        self._request = request
        self._fields = fields
        self._inner = inner
        self._found: dict[str, dict[Path, str | UnreadableJson]] = {}

    def text(self, spec: Spec) -> str | None:
        """The value there; None if there is none. Raises Unreadable if there is none that can be read."""
        unreadable: Unreadable | None = None
        for places in spec:
            try:
                if len(places) == 1:
                    value = self._at(places[0])
                    if value is not None:
                        return value
                    continue
                values = [value for place in places if (value := self._at(place)) is not None]
            except Unreadable as error:
                unreadable = error
                continue
            if len(values) == len(places):
                return " ".join(values)
        if unreadable:
            raise unreadable
        return None

    def _at(self, place: Place) -> str | None:
        kind = place.kind
        if kind == "header":
            value = self._request.headers.get(place.name)
            # https://github.com/cloudevents/spec: the values of its headers are percent-encoded UTF-8
            return value if value is None or place.name[:3] != "ce-" else unquote(value.strip('"'))
        if kind == "json":
            return self._json_at("", place.path)
        if kind == "const":
            return place.name
        if kind == "query":
            return query_field(self._request.target, place.name)
        return self._json_at(place.name, place.path) if place.path else self._field(place.name)

    def _field(self, name: str) -> str | None:
        if not forms.has_fields(self._request):
            return None
        try:
            return forms.field(self._request, name)
        except forms.UnreadableForm as error:
            raise Unreadable(str(error)) from None

    def _json_at(self, field: str, path: Path) -> str | None:
        """The value at a path in the body, or in the JSON of a field of the form."""
        found = self._found.get(field)
        if found is None:
            try:
                found = self._found[field] = self._read(field)
            except UnreadableJson as error:
                raise Unreadable(str(error)) from None
        value = found.get(path)
        if isinstance(value, UnreadableJson):
            raise Unreadable(str(value))
        return value

    def _read(self, field: str) -> dict[Path, str | UnreadableJson]:
        if not field:
            readable = self._fields and len(self._request.body) and not forms.has_fields(self._request)
            return self._fields.read(self._request.body) if self._fields and readable else {}
        text = self._field(field)
        return self._inner[field].read(text.encode()) if text else {}


def query_field(target: str, name: str) -> str | None:
    """The first value of a parameter of the URL."""
    query = target.partition("?")[2]
    pairs = parse_qsl(query, keep_blank_values=True, errors="replace") if name in query or "%" in query else []
    return next((value for each, value in pairs if each == name), None)
