"""Sample pings by kind and event, in words of our own: what `glassq ping` sends.

KIND.json holds an object of events, the usual one first. Each has a `body` (JSON) or a `form`, and perhaps `headers`.
$id, $uuid and $sha in a text are another one for each ping, and $time, $ms and $iso are the time of sending.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from glassq.content import FORM
from glassq.sources.draft import written


class Sample(msgspec.Struct, frozen=True):
    """A ping before it is signed. `document` is its JSON, or its form by field; a field may hold JSON."""

    document: Any
    is_form: bool
    headers: dict[str, str]

    @property
    def content_type(self) -> str:
        """Of its own, or by its form."""
        return self.headers.get("Content-Type", FORM if self.is_form else "application/json")

    def body(self) -> bytes:
        """The bytes that are sent."""
        if not self.is_form:
            return written(self.document)
        fields = {name: each if isinstance(each, str) else written(each) for name, each in self.document.items()}
        return urlencode(fields).encode()


class _Row(msgspec.Struct, frozen=True):
    body: Any = None
    form: dict[str, Any] | None = None
    headers: dict[str, str] = {}


def events(kind: str) -> tuple[str, ...]:
    """The events of which there are samples, the usual one first; () for a kind without any."""
    return tuple(_rows(kind))


def sample(kind: str, event: str, now: float) -> Sample:
    """The sample of this event, or the kind's usual one where there is none; made for this moment (Unix time)."""
    rows = _rows(kind) or {"sample": _Row({"type": event or "sample", "id": "$id", "text": "a sample by glassq ping"})}
    row = rows.get(event) or next(iter(rows.values()))
    values = _values(now)
    headers = {name: str(_filled(value, values)) for name, value in row.headers.items()}
    return Sample(_filled(row.body if row.form is None else row.form, values), row.form is not None, headers)


@cache
def _rows(kind: str) -> dict[str, _Row]:
    # settings name kinds; a custom one may hold anything
    file = Path(__file__).parent / f"{Path(kind).name}.json"
    return msgspec.json.decode(file.read_bytes(), type=dict[str, _Row]) if file.is_file() else {}


def _values(now: float) -> dict[str, object]:
    unique = uuid.uuid4()
    moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "$uuid": str(unique),
        "$sha": f"{unique.hex}{unique.hex[:8]}",
        "$id": unique.hex[:24],
        "$time": int(now),
        "$ms": int(now * 1000),
        "$iso": moment,
    }


def _filled(value: Any, values: dict[str, object]) -> Any:
    """The value with its placeholders filled in; one that is the whole text becomes what it stands for."""
    if isinstance(value, dict):
        return {name: _filled(each, values) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, values) for each in value]
    if not isinstance(value, str) or "$" not in value:
        return value
    if value in values:
        return values[value]
    for name, each in values.items():
        value = value.replace(name, str(each))
    return value
