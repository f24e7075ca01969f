"""The URL of the ledger's database, as far as it can be read without the SQL library."""

from __future__ import annotations

import re
from pathlib import Path

from glassq.errors import SettingsError
from glassq.values import path_of

# A path, up to a "?".
_FILE = re.compile(r"sqlite(?:\+pysqlite)?:///(?!:memory:|file:)([^?]+)")


def file_of(url: str) -> Path | None:
    """The file that the URL of an SQLite database names, with %XX in it decoded; else None."""
    plain = _FILE.fullmatch(url.partition("?")[0])
    return Path(path_of(plain[1])) if plain else None


def unreadable(url: object, why: object) -> SettingsError:
    """What to say of a ledger that is there but cannot be read."""
    return SettingsError(f'[ledger] url = "{url}": cannot be read: {why}')
