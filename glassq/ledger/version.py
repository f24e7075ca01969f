"""What is known of the ledger's database without SQLAlchemy: the version of its schema, and what to say of trouble."""

from __future__ import annotations

from glassq.database.plain import check_version
from glassq.errors import LedgerError

# When you raise it, `schema.prepare` must bring a database of the previous version to the new one.
VERSION = 7
# The oldest version whose code may use the tables as they are now: `kept` and `story` may be missing in what it writes.
OLDEST = 5
KEY = "[ledger] url"
# From this version on `job` is text: a reference of the queue's own.
JOBS_ARE_TEXT = 5
# From this version on there is the table of activities.
ACTIVITIES = 7
# The columns that `deliveries` got later, by the version that brought them.
SINCE = {
    2: frozenset({"started", "fingerprint", "event"}),
    3: frozenset({"tube"}),
    4: frozenset({"body", "labels", "replayed"}),
    6: frozenset({"kept"}),
    7: frozenset({"story"}),
}


def missing(version: int) -> frozenset[str]:
    """The columns that a database of this version lacks."""
    return frozenset().union(*(names for since, names in SINCE.items() if since > version))


def check(found: int | None, url: object, oldest: int | None) -> None:
    """Raises SettingsError if the schema that was found is newer than ours, and not for code as old as ours."""
    check_version(found, VERSION, url, KEY, oldest)


def unreadable(url: object, why: object) -> LedgerError:
    """The error for a ledger that exists but cannot be read."""
    return LedgerError(f'[ledger] url = "{url}": cannot be read: {why}')


def unwritable(url: object, why: object) -> LedgerError:
    """The error for a ledger that cannot be written."""
    return LedgerError(f'[ledger] url = "{url}": cannot be written: {why}')
