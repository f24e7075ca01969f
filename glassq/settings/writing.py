"""Writes settings as glassq.toml has them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from glassq.mask import masked_body
from glassq.settings.hosts import shared_keys
from glassq.settings.route import NO_HANDLER
from glassq.values import Size, Step

if TYPE_CHECKING:
    from collections.abc import Collection

    from glassq.settings.settings import Settings


# What is said of a place in the queue's database.
SHARED = "  # the queue's database, which all hosts share"
# The sections that are there once, or once for each name, in the order of conf/glassq.toml.
_SECTIONS = (
    "queue",
    "intake",
    "bodies",
    "sources",
    "worker",
    "push",
    "tasks",
    "console",
    "glass",
    "storage",
    "ledger",
    "metrics",
    "notify",
    "log",
)


def as_toml(settings: Settings) -> str:
    """The effective settings in the form of glassq.toml. Secrets are in files of their own, so it has none."""
    lines, shared = [f"# {settings.file}"], shared_keys(settings)
    for name in _SECTIONS:
        section: Any = getattr(settings, name)
        if isinstance(section, dict):
            for source, keys in section.items():
                lines += ["", f"[{name}.{source}]", *_changed_pairs(keys)]
        elif section is not None:
            lines += ["", f"[{name}]", *_pairs(section, name, shared)]
        if name == "worker":
            for queue, keys in settings.worker.queues.items():
                lines += ["", f"[worker.queues.{queue}]", *_pairs(keys)]
    if settings.push is not None and settings.push.targets:
        lines += [
            "",
            "[push.targets]",
            *(f"{toml_value(key)} = {toml_value(url)}" for key, url in settings.push.targets.items()),
        ]
    for route in settings.routes:
        lines += ["", "[[routes]]", *_pairs(route)]
    for schedule in settings.schedule:
        lines += ["", "[[schedule]]", *_pairs(schedule)]
    for handler, options in settings.handlers.items():
        lines += ["", f"[handlers.{toml_value(handler)}]", *_masked_pairs(options)]
    return "\n".join(lines) + "\n"


def _pairs(section: msgspec.Struct, called: str = "", shared: Collection[str] = ()) -> list[str]:
    # a table of sections comes after them
    tables = ("queues", "targets")
    values = {name: getattr(section, name) for name in section.__struct_fields__ if name not in tables}
    return [
        f"{name} = {toml_value(value)}{SHARED if f'{called}.{name}' in shared else ''}"
        for name, value in values.items()
        if value is not None and value is not NO_HANDLER
    ]


def _masked_pairs(options: dict[str, Any]) -> list[str]:
    """The keys of a handler: what looks like a secret is masked, as nobody hinders an author from having one there."""
    masked = masked_body(msgspec.json.encode(options))
    shown = {name: value if name.endswith("_file") else masked[name] for name, value in options.items()}
    return [f"{toml_value(name)} = {toml_value(value)}" for name, value in shown.items()]


def _changed_pairs(section: msgspec.Struct) -> list[str]:
    """The keys that differ from their defaults: most belong to other kinds of sources."""
    default = type(section)()
    values = {name: getattr(section, name) for name in section.__struct_fields__}
    return [f"{name} = {toml_value(value)}" for name, value in values.items() if value != getattr(default, name)]


def toml_value(value: object) -> str:
    """The value as glassq.toml writes it."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{toml_value(name)} = {toml_value(each)}' for name, each in value.items())} }}"
    if isinstance(value, Step) and value.name != value:
        return toml_value({"name": value.name, "handler": str(value)})
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(toml_value, value))}]"
    if (isinstance(value, int) and not isinstance(value, Size)) or type(value) is float:
        return str(value)
    # TOML has JSON's escapes, and also requires one for DEL
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
