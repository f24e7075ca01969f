"""Writes docs/settings.md, or the file that is named: `python tools/settings_docs.py [FILE]`.

What a key is for stands in conf/glassq.toml, what it may be in glassq/settings/ and in values/; nothing stands here.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from glassq import settings, values

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "conf" / "glassq.toml"
TARGET = ROOT / "docs" / "settings.md"

HEAD = """\
<!-- Made by tools/settings_docs.py from conf/glassq.toml and glassq/settings/: change those, and run it. -->
# Settings

`/etc/glassq/glassq.toml`, or the file that `--config` or the environment variable GLASSQ_CONFIG names.
"""
_TABLE = re.compile(r"(?:# )?(\[+([a-z.]+)\]+)")
_ENTRY = re.compile(r"(?:# )?([a-z_]+) = (\S.*)")
_TITLE = re.compile(r"# -+ (.+?) -+")


class Key(NamedTuple):
    """A key of the file: `written` is its value there, `why` the comment above it."""

    name: str
    written: str
    why: str


class Section(NamedTuple):
    """A section of the file; `table` is its name in brackets, `name` without them, `why` the comment above it."""

    table: str
    name: str
    title: str
    why: str
    keys: list[Key]


def sections(text: str) -> Iterator[Section]:
    """The sections of glassq.toml, in their order. What is optional stands there as a comment."""
    title, current = "", None
    remarks: list[str] = []
    for line in text.splitlines():
        if found := _TITLE.fullmatch(line):
            title = found[1]
        elif found := _TABLE.fullmatch(line):
            if current:
                yield current
            current = Section(found[1], found[2], title, " ".join(remarks), [])
            title = ""
        elif (found := _ENTRY.fullmatch(line)) and current:
            current.keys.append(Key(found[1], found[2], " ".join(remarks)))
        elif line:
            remarks.append(line.removeprefix("# "))
            continue
        remarks = []
    if current:
        yield current


def page(text: str) -> str:
    """All of settings.md."""
    head, _, rest = text.partition("\n\n")
    lines = [HEAD, " ".join(line.removeprefix("# ") for line in head.splitlines()[1:]), ""]
    used: set[type] = set()
    for section in sections(rest):
        lines += [f"## `{section.table}`{section.title and f': {section.title}'}", ""]
        lines += [section.why, ""] if section.why else []
        lines += ["| key | kind | default | what it is for |", "|---|---|---|---|"]
        lines += [_row(section.name, key, used) for key in section.keys]
        lines.append("")
    lines += ["## Kinds of values", "", "| kind | |", "|---|---|"]
    lines += [f"| {_called(kind)} | {_cell(inspect.getdoc(kind) or '')} |" for kind in sorted(used, key=_called)]
    return "\n".join(lines) + "\n"


def _row(section: str, key: Key, used: set[type]) -> str:
    struct = _struct(section)
    # without a class the keys are names of the user's own
    field = next((each for each in msgspec.structs.fields(struct) if each.name == key.name), None) if struct else None
    own = Any if section.startswith("handlers.") else values.TargetUrl
    kind = typing.get_type_hints(struct, include_extras=True)[key.name] if struct else own
    default = f"`{_literal(field.default)}`" if field and _has_default(field) else f"none; such as `{key.written}`"
    return f"| `{key.name}` | {_cell(_kind(kind, used))} | {_cell(default)} | {_cell(key.why)} |"


def _struct(section: str) -> type[msgspec.Struct] | None:
    """The class of a section; None where its keys are names of the user's own."""
    found: Any = settings.Settings
    for name in section.split("."):
        if found is None:
            break
        # the sections of a table have names of the user's own
        hint = typing.get_args(found)[1] if typing.get_origin(found) is dict else typing.get_type_hints(found)[name]
        parts = (hint, *typing.get_args(hint))
        of_sections = typing.get_origin(hint) is dict and _is_struct(parts[-1])
        found = hint if of_sections else next((each for each in parts if _is_struct(each)), None)
    return typing.cast("type[msgspec.Struct] | None", found)


def _is_struct(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _has_default(field: msgspec.structs.FieldInfo) -> bool:
    # a route without a handler has steps
    without = isinstance(field.default, values.HandlerName)
    return field.default is not None and field.default is not msgspec.NODEFAULT and not without


def _literal(value: object) -> str:
    """A value as glassq.toml has it; JSON's are TOML's."""
    plain = isinstance(value, bool | tuple | dict) or type(value) is int
    return json.dumps(value if plain else str(value), ensure_ascii=False)


def _kind(hint: Any, used: set[type]) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return f"whole number, {arguments[1].ge} or more"
    if origin is typing.Literal:
        return " or ".join(f"`{_literal(each)}`" for each in arguments)
    if origin is tuple:
        return f"list of {_kind(arguments[0], used)}"
    if origin is dict:
        return f"table of {_kind(arguments[1], used)}"
    if origin in (types.UnionType, typing.Union):
        return _kind(arguments[0], used)
    if hint is Any:
        return "anything"
    if hint is bool:
        return "`true` or `false`"
    if hint is str:
        return "text"
    used.add(hint)
    return _called(hint)


def _called(kind: type) -> str:
    """ "SecretFile" as "secret file"."""
    return re.sub(r"(?<=[a-z])([A-Z])", r" \1", kind.__name__).lower().replace("url", "URL")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    (Path(sys.argv[1]) if sys.argv[1:] else TARGET).write_text(page(SOURCE.read_text("utf-8")), "utf-8")
