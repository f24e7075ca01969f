"""A few values out of a JSON document that may be large: the rest is skipped, never made into Python objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from glassq.sources.base import Body

# Names of keys, and places in an array.
Path = tuple[str, ...]
# The largest value that is read, in bytes.
MAX_VALUE = 8 << 10
_MAX_INDEX = 1000
_ABSENT = msgspec.Raw()
_OPENING, _QUOTE = b"{[", ord('"')
_TEXT = msgspec.json.Decoder(str)
# msgspec's own, and what it lets through: text that is not UTF-8, and nesting beyond the interpreter's limit
_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class UnreadableJson(ValueError):
    """The document, or what stands at a path in it, cannot be read."""


class JsonFields:
    """Reads the values at some paths."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths: dict[str, set[Path]] = {}
        self._leaf = False
        for path in paths:
            if path:
                self._paths.setdefault(path[0], set()).add(path[1:])
            else:
                self._leaf = True
        self._inner = {name: JsonFields(rest) for name, rest in self._paths.items()}
        self._names = list(self._inner)
        self._object = _object_decoder(self._names)
        self._array = _array_decoder(self._names)

    def read(self, document: Body | msgspec.Raw) -> dict[Path, str | UnreadableJson]:
        """The values that are there, as text: numbers, true and false as the document writes them.

        A value that is no text, number, true or false, or is too large, is an UnreadableJson. Raises UnreadableJson if
        the document itself cannot be read.
        """
        found: dict[Path, str | UnreadableJson] = {}
        self._read(document, (), found)
        return found

    def raw(self, document: Body | msgspec.Raw) -> dict[str, msgspec.Raw]:
        """The values of the first names, each as its own document. Raises UnreadableJson."""
        # nearly all documents are objects; an array is looked at only where a path begins with a number
        try:
            try:
                values = msgspec.structs.astuple(self._object.decode(document))
            except msgspec.ValidationError:
                if self._array is None:
                    return {}
                values = msgspec.structs.astuple(self._array.decode(document))
                values = tuple(values[int(name)] if name.isdecimal() else _ABSENT for name in self._names)
        except msgspec.ValidationError:
            return {}
        except _ERRORS as error:
            raise UnreadableJson("it is not JSON") from error
        return {name: value for name, value in zip(self._names, values, strict=True) if value is not _ABSENT}

    def _read(self, document: Body | msgspec.Raw, at: Path, found: dict[Path, str | UnreadableJson]) -> None:
        for name, value in self.raw(document).items():
            inner, path = self._inner[name], (*at, name)
            if inner._leaf:
                _keep(value, path, found)
            if inner._names:
                try:
                    inner._read(value, path, found)
                except UnreadableJson:
                    # the whole was JSON, so this is only deeper than we read
                    continue


def _keep(value: msgspec.Raw, path: Path, found: dict[Path, str | UnreadableJson]) -> None:
    view = memoryview(value)
    first = view[0]
    if first in _OPENING or len(view) > MAX_VALUE:
        found[path] = UnreadableJson("it is no text or number, or too long")
    elif first == _QUOTE:
        try:
            found[path] = _TEXT.decode(value)
        except _ERRORS:
            found[path] = UnreadableJson("it is not UTF-8")
    elif (text := bytes(view)) != b"null":
        found[path] = text.decode("ascii")


def _object_decoder(names: list[str]) -> msgspec.json.Decoder[Any]:
    fields = [(f"f{place}", msgspec.Raw, msgspec.field(default=_ABSENT)) for place in range(len(names))]
    rename = {f"f{place}": name for place, name in enumerate(names)}
    return msgspec.json.Decoder(msgspec.defstruct("Object", fields, rename=rename))


def _array_decoder(names: list[str]) -> msgspec.json.Decoder[Any] | None:
    """For paths with numbers: a struct that stands in an array, of which the rest is skipped."""
    indices = [int(name) for name in names if name.isdecimal()]
    if not indices:
        return None
    fields = [(f"f{place}", msgspec.Raw, msgspec.field(default=_ABSENT)) for place in range(max(indices) + 1)]
    return msgspec.json.Decoder(msgspec.defstruct("Array", fields, array_like=True))


def parse_path(text: str) -> Path:
    """The path that "a.0.b" writes. Raises ValueError."""
    path = tuple(text.split("."))
    if not all(path) or any(name.isdecimal() and int(name) > _MAX_INDEX for name in path):
        raise ValueError(f'expected names with dots between them, such as "event.type"; numbers up to {_MAX_INDEX}')
    return path
