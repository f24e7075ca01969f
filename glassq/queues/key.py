"""The id of the delivery in a job's body, for engines that name their jobs by it."""

from __future__ import annotations

import re

import msgspec

from glassq.envelope import HEADER_END, MAGIC, PREFIX

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def is_delivery_id(key: str) -> bool:
    """Whether it is a delivery's id, and no name that an engine gave to what it could not read."""
    return _ID.fullmatch(key) is not None


def key_of(body: bytes) -> str:
    """The id of the delivery in a job's body; "" where glassq did not make it."""
    if not body.startswith(MAGIC):
        return ""
    header = body[PREFIX : body.find(HEADER_END, PREFIX) + 1]
    try:
        name = msgspec.json.decode(header, type=_Named).id
    except msgspec.DecodeError:
        return ""
    # PostgreSQL takes no NUL, and SWF no control characters
    return name if name.isprintable() else ""


class _Named(msgspec.Struct):
    id: str
