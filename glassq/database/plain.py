"""What can be known of a database without SQLAlchemy: the file of its URL, how it holds a time, whether we know it."""

from __future__ import annotations

import re
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from glassq.errors import SettingsError
from glassq.values import path_of

if TYPE_CHECKING:
    from datetime import datetime

_encode = msgspec.json.Encoder().encode
# A path, up to a "?".
_FILE = re.compile(r"sqlite(?:\+pysqlite)?:///(?!:memory:|file:)([^?]+)")


def file_of(url: str) -> Path | None:
    """The file that an SQLite URL names, with its %XX decoded; None for any other database."""
    plain = _FILE.fullmatch(url.partition("?")[0])
    return Path(path_of(plain[1])) if plain else None


def stamp(moment: datetime) -> str:
    """The time as text in UTC, always of the same width, so that it sorts and compares as time does."""
    # a tenth of what isoformat takes; every entry of the ledger has three
    text = _encode(moment.astimezone(UTC)).decode()[1:-1]
    return text if moment.microsecond else f"{text[:-1]}.000000Z"


def oldest_of(name: str) -> str:
    """Under which name the table of versions has the oldest version of the code that may use a schema."""
    return f"{name}:oldest"


def check_version(found: int | None, known: int, url: object, key: str, oldest: int | None = None) -> None:
    """Raises SettingsError if the schema is newer than the one we know, and not for code as old as ours.

    `oldest` is what `oldest_of` names; `key` is the setting that holds the URL.
    """
    if found is not None and found > known and (oldest is None or oldest > known):
        raise SettingsError(
            f'{key} = "{url}": its schema is version {found}, this glassq knows {known}: '
            "install the glassq that wrote it, or name another database"
        )
