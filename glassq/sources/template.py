"""What a sender signs, as presets and settings write it: "{timestamp}.{body}".

Parts: body, timestamp, id, url (our public URL and the path and query as they came), method, sorted_form (names and
values of a form, sorted), unwrapped:NAME (a field of the form, or the body if it is no form), and a place as in
`glassq.sources.places`: header:NAME, json:a.b, form:NAME, query:NAME, also alternatives with "|".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from glassq.sources import forms
from glassq.sources.places import PlaceValues, Spec, Unreadable, parse_spec
from glassq.sources.schemes.base import unproven

if TYPE_CHECKING:
    from glassq.sources.base import Body, HookRequest

_PART = re.compile(r"\{([^{}]*)\}")
# What a part needs: the request, what was read of it, and the signed time and id as they were sent.
_Reader = Callable[["HookRequest", PlaceValues, str, str], "Iterable[Body]"]
_PLAIN = ("body", "timestamp", "id", "url", "method", "sorted_form")


class SignedTemplate:
    """A template, compiled. `specs` are the places that it reads."""

    def __init__(self, text: str, url: str = "") -> None:
        """`url` is our public URL before the path. Raises ValueError, which says what is expected."""
        self.parts = tuple(_PART.findall(text))
        texts = _PART.split(text)[::2]
        if any("{" in each or "}" in each for each in texts) or not self.parts:
            raise ValueError('expected parts in braces, such as "{timestamp}.{body}"')
        self.specs = tuple(
            parse_spec(part.replace("|", " | ")) for part in self.parts if part.partition(":")[0] in _PLACES
        )
        readers: list[_Reader] = [_constant(texts[0])] if texts[0] else []
        for part, after in zip(self.parts, texts[1:], strict=True):
            readers.append(_reader(part, url))
            if after:
                readers.append(_constant(after))
        self._readers = readers

    @property
    def is_body(self) -> bool:
        """Whether the body alone is signed."""
        return self.parts == ("body",) and len(self._readers) == 1

    def pieces(
        self, request: HookRequest, values: PlaceValues, timestamp: str = "", event_id: str = ""
    ) -> Iterator[Body]:
        """What is signed, piece by piece, none of them joined.

        `values` has to know `specs`. Raises PingRefused if a value that is signed is not there.
        """
        for reader in self._readers:
            yield from reader(request, values, timestamp, event_id)


_PLACES = ("header", "json", "form", "query")


def raw(text: str) -> bytes:
    """The bytes of a header's value or a URL, as they came."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def sorted_form(request: HookRequest) -> bytes:
    """Names and values of a form, each name with its values: names sorted, its values sorted, repeats once.

    Source of the rule: https://www.twilio.com/docs/usage/security. Raises PingRefused for a form that cannot be read.
    """
    try:
        pairs = sorted(set(forms.fields(request.body)))
    except forms.UnreadableForm as error:
        raise unproven("malformed", f"The form cannot be read: {error}.") from None
    return "".join(name + value for name, value in pairs).encode()


def _constant(text: str) -> _Reader:
    value = (text.encode(),)
    return lambda request, values, timestamp, event_id: value


def _reader(part: str, url: str) -> _Reader:
    if part == "body":
        return lambda request, values, timestamp, event_id: (request.body,)
    if part == "timestamp":
        return lambda request, values, timestamp, event_id: (raw(timestamp),)
    if part == "id":
        return lambda request, values, timestamp, event_id: (raw(event_id),)
    if part == "url":
        return lambda request, values, timestamp, event_id: (raw(url + request.target),)
    if part == "method":
        return lambda request, values, timestamp, event_id: (raw(request.method),)
    if part == "sorted_form":
        return lambda request, values, timestamp, event_id: (sorted_form(request),)
    if part.startswith("unwrapped:"):
        name = part.removeprefix("unwrapped:")
        return lambda request, values, timestamp, event_id: _unwrapped(request, name)
    if part.partition(":")[0] not in _PLACES:
        raise ValueError(f"expected a part of {', '.join(_PLAIN)}, or a place such as header:NAME, not {{{part}}}")
    spec = parse_spec(part.replace("|", " | "))
    # what is in a body is UTF-8; headers are bytes
    encode = raw if part.startswith("header:") else _utf8
    return lambda request, values, timestamp, event_id: (encode(required(values, spec)),)


def _unwrapped(request: HookRequest, name: str) -> Iterable[Body]:
    if not forms.is_form(request):
        return (request.body,)
    try:
        found = next(forms.field_chunks(request, name, most=len(request.body)), None)
    except forms.UnreadableForm as error:
        raise unproven("malformed", f"The form cannot be read: {error}.") from None
    if found is None:
        raise unproven("no signature", "A field that has to be signed is not there.")
    return found


def required(values: PlaceValues, spec: Spec) -> str:
    """The value at a place. Raises PingRefused where there is none."""
    try:
        found = values.text(spec)
    except Unreadable:
        found = None
    if found is None:
        raise unproven("no signature", "The signature, or a value that it signs, is not there.")
    return found
