"""The version of the ledger's schema, and how a time is written in it: known without loading the SQL library."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from glassq.errors import SettingsError

if TYPE_CHECKING:
    from datetime import datetime

# When it is raised, `schema.prepare` brings a database of the version before to the new one.
VERSION = 5
# From this version on `job` is text: a reference of the queue's own.
JOBS_ARE_TEXT = 5
# The columns that came to the first `deliveries` later, by the version that brought them.
SINCE = {
    2: frozenset({"started", "fingerprint", "event"}),
    3: frozenset({"tube"}),
    4: frozenset({"body", "labels", "replayed"}),
}


def missing(version: int) -> frozenset[str]:
    """The columns that a database of this version has not."""
    return frozenset().union(*(names for since, names in SINCE.items() if since > version))


def stamp(moment: datetime) -> str:
    """A time as text of one width, in UTC: it sorts and compares as time does."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def check(found: int | None, url: object) -> None:
    """Raises SettingsError where the schema that was found is newer than ours."""
    if found is not None and found > VERSION:
        raise SettingsError(
            f'[ledger] url = "{url}": its schema is version {found}, this glassq knows {VERSION}: '
            "install the glassq that wrote it, or name another database"
        )
