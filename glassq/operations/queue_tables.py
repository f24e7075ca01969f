"""The tables of an engine that keeps jobs in a database: making them, and bringing them to this version.

With them go the tables of what else lives in that database (shared_tables.py).

They belong to the role that makes them; pools and intake need less, and may run as another one. Engines that need
nothing of the kind say so.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glassq.errors import InvalidRequest
from glassq.operations.tubes import wanted_tubes
from glassq.queues import engine_name, open_tables
from glassq.values import QueueUrl

if TYPE_CHECKING:
    from glassq.operations import Operations


@dataclass(frozen=True, slots=True)
class TablesReport:
    """The tables at `url`. `engine` needs none where `known` is 0.

    `found` is the version of the queue's that was there (0: none); now they are of this glassq's, which is `known`.
    `made` are the parts whose tables were made ("queue", "ledger"), `changed` those that were of an older version.
    `rights` are the statements that give a role of pools and intake what it needs; `granted` is the role that got it.
    `noun` is what the engine has: "tables", or "queues", whose names are the parts then. Unless it `grants`, `rights`
    are given elsewhere.
    """

    url: str
    engine: str
    known: int = 0
    found: int = 0
    made: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    rights: tuple[str, ...] = ()
    granted: str = ""
    noun: str = "tables"
    grants: bool = True

    def document(self) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "url": self.url,
            "engine": self.engine,
            "found": self.found,
            "version": self.known,
            "made": list(self.made),
            "changed": list(self.changed),
            "rights": list(self.rights),
            "granted": self.granted,
        }


def init(operations: Operations, *, url: str = "", role: str = "") -> TablesReport:
    """Makes the tables where they are missing; the rest is as `upgrade`."""
    return _prepared(operations, url, role, make=True)


def upgrade(operations: Operations, *, url: str = "", role: str = "") -> TablesReport:
    """Brings the tables to this version while pools work. Several at once do no harm.

    `url` is that of the tables' owner ("": [queue] url); `role` gets the rights that pools and intake need. Raises
    InvalidRequest where there are no tables, or the URL is none, and QueueError.
    """
    return _prepared(operations, url, role, make=False)


def _prepared(operations: Operations, url: str, role: str, *, make: bool) -> TablesReport:
    at = _url(url) if url else operations.settings.queue.url
    tables = open_tables(operations.settings, at, wanted_tubes(operations))
    if tables is None:
        return TablesReport(at, engine_name(at))
    with closing(tables):
        if not make and not tables.version():
            raise InvalidRequest(f"there are no {tables.noun} of glassq in {at}: `glassq queue init` makes them")
        if role:
            tables.check_role(role)
        if at.is_database:
            # what few commands need
            from glassq.operations import shared_tables

            shared_tables.check_foreign(operations.settings, at)
        before = tables.parts()
        found = tables.upgrade()
        if at.is_database:
            shared_tables.make(operations.settings, at)
        after = tables.parts()
        if role:
            tables.grant(role)
        return TablesReport(
            url=at,
            engine=tables.engine,
            known=tables.known,
            found=found,
            made=tuple(name for name in after if name not in before),
            changed=tuple(name for name, version in after.items() if before.get(name, version) != version),
            rights=tuple(tables.rights(role or "your_role")),
            granted=role,
            noun=tables.noun,
            grants=tables.grants,
        )


def _url(text: str) -> QueueUrl:
    try:
        return QueueUrl(text)
    except ValueError as error:
        raise InvalidRequest(f"--url: {error}") from None
