"""Values in PostgreSQL's binary form, for the statements that are said thousands of times a second.

psycopg decides anew for each value of each call how to say it, which is half of what a put costs us. Here the Python
type alone decides: int is bigint, float is float8, str is text, bytes is bytea, datetime is timestamptz; a list, which
has at least one value, is an array of one of these (src/backend/utils/adt/*.c, the functions `..._send`).
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT2, _INT4, _INT8, _FLOAT8 = (struct.Struct(f"!{form}") for form in "hiqd")
# Dimensions, whether there are NULLs, type of the elements, their number, the number of the first.
_ARRAY = struct.Struct("!iiIii")


def _moment(value: datetime) -> bytes:
    return _INT8.pack((value - _EPOCH) // _MICROSECOND)


# By Python's type: the numbers of PostgreSQL's type and of the array of it (pg_type.dat), and how a value is said.
_SAID: dict[type, tuple[int, int, Callable[[Any], bytes]]] = {
    int: (20, 1016, _INT8.pack),
    float: (701, 1022, _FLOAT8.pack),
    str: (25, 1009, str.encode),
    bytes: (17, 1001, bytes),
    datetime: (1184, 1185, _moment),
}
# By the number of PostgreSQL's type: how a value is read.
_READ: dict[int, Callable[[bytes], Any]] = {
    16: lambda said: said == b"\1",
    17: lambda said: said,
    20: lambda said: _INT8.unpack(said)[0],
    21: lambda said: _INT2.unpack(said)[0],
    23: lambda said: _INT4.unpack(said)[0],
    25: bytes.decode,
    701: lambda said: _FLOAT8.unpack(said)[0],
    1184: lambda said: _EPOCH + timedelta(microseconds=_INT8.unpack(said)[0]),
    # void: what a function of no result gives
    2278: lambda said: None,
}


def encoded(values: Sequence[Any]) -> tuple[list[bytes], tuple[int, ...]]:
    """The values of a statement, and the numbers of their types. Raises KeyError for a value of another type."""
    said, types = [], []
    for value in values:
        if type(value) is list:
            kind, array, say = _how(type(value[0]))
            said.append(_array(kind, [say(each) for each in value]))
            types.append(array)
        else:
            kind, _, say = _how(type(value))
            said.append(say(value))
            types.append(kind)
    return said, tuple(types)


def readers(types: Sequence[int]) -> list[Callable[[bytes], Any]]:
    """How the columns of these types are read. Raises KeyError for another one."""
    return [_READ[kind] for kind in types]


def numbered(sql: str) -> str:
    """The statement with $1, $2 ... for %b, as the server wants it."""
    first, *others = sql.split("%b")
    return "".join([first, *(f"${number}{part}" for number, part in enumerate(others, start=1))]).replace("%%", "%")


def _how(kind: type[Any]) -> tuple[int, int, Callable[[Any], bytes]]:
    """As in _SAID, also for a class made of one of its types."""
    return _SAID.get(kind) or _SAID[next((base for base in kind.__mro__ if base in _SAID), kind)]


def _array(kind: int, said: list[bytes]) -> bytes:
    parts = [_ARRAY.pack(1, 0, kind, len(said), 1)]
    for each in said:
        parts += (_INT4.pack(len(each)), each)
    return b"".join(parts)
