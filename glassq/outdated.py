"""Keys of glassq.toml that have another name since the last release, or are not needed any more.

They are taken for one release, with a remark; then this module goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from glassq.errors import SettingsError
from glassq.mistakes import located, place

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECTION = "intake"
# The old name, and the new one.
_RENAMED = {"spool": "journal", "spool_max": "journal_max", "spool_min_free": "journal_min_free"}
_UNNEEDED = "require_durable"
_ALWAYS = "a ping is acknowledged only once it is proven to be on disk"


def renewed(document: dict[str, Any], text: str, file: str) -> dict[str, Any]:
    """The document with today's names.

    Raises SettingsError for a key under both of its names, and for a value that is not possible any more.
    """
    section = document.get(_SECTION)
    if not isinstance(section, dict):
        return document
    for old, new in _RENAMED.items():
        if old in section and new in section:
            where = located(text, [_SECTION, old])
            raise SettingsError(
                f"{file}: {place([_SECTION, old])} is the old name of {new}: expected only one of them{where}"
            )
    if section.get(_UNNEEDED, True) is not True:
        where = located(text, [_SECTION, _UNNEEDED])
        raise SettingsError(f"{file}: {place([_SECTION, _UNNEEDED])}: expected no such key: {_ALWAYS}{where}")
    kept = {_RENAMED.get(name, name): value for name, value in section.items() if name != _UNNEEDED}
    return {**document, _SECTION: kept}


def remarks(document: dict[str, Any], text: str, file: str) -> Iterator[str]:
    """A sentence for each outdated key in the document as it is written."""
    section = document.get(_SECTION)
    for name in section if isinstance(section, dict) else ():
        start, where = f"{file}: {place([_SECTION, name])}", located(text, [_SECTION, name])
        if name in _RENAMED:
            yield f"{start} is called {_RENAMED[name]} now; the old name is taken until the next release{where}"
        if name == _UNNEEDED:
            yield f"{start} is not needed any more, remove it: {_ALWAYS}{where}"


def as_written(message: str, document: dict[str, Any], text: str) -> str:
    """The message about a mistake, with the key's name as the document has it, and its line."""
    section = document.get(_SECTION)
    for old, new in _RENAMED.items():
        today = f"{place([_SECTION, new])} = "
        if isinstance(section, dict) and old in section and message.startswith(today):
            said = message.replace(today, f"{place([_SECTION, old])} = ", 1)
            return f"{said}{located(text, [_SECTION, old])}"
    return message
