"""The filter of a page's query or of a form, as the conditions that commands take: every view has a command."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from glassq.errors import InvalidRequest
from glassq.operations.filters import parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from glassq.operations.filters import Filter

# The fields of the forms, and the conditions that they stand for.
_CONDITIONS = {
    "source": "source",
    "tube": "tube",
    "newer": "newer-than",
    "older": "older-than",
    "words": "words",
    "cause": "cause",
}


def one_of(params: Mapping[str, str], name: str, known: Sequence[str]) -> str:
    """The value of this parameter; the first that is known where it is not given. Raises InvalidRequest."""
    value = params.get(name, "").strip() or known[0]
    if value not in known:
        shown = [each for each in known if each]
        raise InvalidRequest(f"{name} {value}: expected {', '.join(shown[:-1])} or {shown[-1]}")
    return value


def conditions(fields: Mapping[str, str]) -> list[str]:
    """The conditions of these fields; what is empty is not asked."""
    return [f"{name}={value}" for field, name in _CONDITIONS.items() if (value := fields.get(field, "").strip())]


def filter_of(fields: Mapping[str, str]) -> Filter:
    """Raises InvalidRequest, which names the condition."""
    return parse(conditions(fields))


def options(fields: Mapping[str, str]) -> str:
    """The same as the options of a command: " --where source=mirror", or ""."""
    return "".join(f" --where {shlex.quote(condition)}" for condition in conditions(fields))


def named(asked: Mapping[str, str]) -> str:
    """Options of a command by their names: " --who anna --since 2h", or ""; they are pasted into a root's shell."""
    return "".join(f" --{name}{_joined(value)}" for name, value in asked.items() if value)


def _joined(value: str) -> str:
    return f"{'=' if value.startswith('-') else ' '}{shlex.quote(value)}"
