"""What a role may do with tables of ours in a PostgreSQL database. Its catalogue is asked, and nothing is changed.

What needs no more than this works on them: SELECT, INSERT, UPDATE and DELETE on each. Who makes what is missing needs
CREATE in the schema, and who brings tables to a newer version must own them.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    # asks one question, and returns its rows
    Ask = Callable[[str], Sequence[Sequence[Any]]]

_QUESTION = """
SELECT current_user, current_schema(), coalesce(has_schema_privilege(current_schema(), 'CREATE'), false),
    current_setting('transaction_read_only')::bool, name, class.oid IS NOT NULL,
    coalesce(pg_has_role(class.relowner, 'USAGE'), false),
    (
        SELECT string_agg(kind, ', ' ORDER BY place)
        FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS needed (kind, place)
        WHERE class.oid IS NOT NULL AND NOT has_table_privilege(class.oid, kind)
    )
FROM unnest(ARRAY[{names}]) AS name LEFT JOIN pg_class AS class ON class.oid = to_regclass(name)
"""


class Trouble(NamedTuple):
    """What is wrong, and what to do about it; a command of ours stands there as `glassq ...`, in backquotes."""

    said: str
    todo: str

    def __str__(self) -> str:
        return f"{self.said}: {self.todo}" if self.todo else self.said


@dataclass(frozen=True, slots=True)
class Rights:
    """The rights of the role that asks, on some tables of one use, in the database at `url` (without a password).

    `missing` are not there, `lacking` says what is not allowed ("INSERT on deliveries"), `owned`: all that are there
    are the role's own.
    """

    url: str
    role: str
    schema: str
    may_create: bool
    read_only: bool
    missing: tuple[str, ...]
    lacking: tuple[str, ...]
    owned: bool

    @classmethod
    def of(cls, ask: Ask, tables: Sequence[str], url: object) -> Self:
        """Those on these tables, whose names are ours. Raises what `ask` raises."""
        rows = ask(_QUESTION.format(names=", ".join(f"'{table}'" for table in tables)))
        role, schema, may_create, read_only = rows[0][:4]
        there = [row for row in rows if row[5]]
        return cls(
            url=str(url),
            role=role,
            schema=schema or "",
            may_create=may_create,
            read_only=read_only,
            missing=tuple(row[4] for row in rows if not row[5]),
            lacking=tuple(f"{row[7]} on {row[4]}" for row in there if row[7]),
            owned=all(row[6] for row in there),
        )

    def trouble(self, *, older: bool = False) -> Trouble | None:
        """What keeps the role from working on these tables; None if nothing does.

        `older`: they are to be brought to a newer version first.
        """
        if self.read_only:
            return Trouble(f"the database is read-only for role {self.role}", "name the server that takes writes")
        if self.missing and not self.may_create:
            where = f"in schema {self.schema}" if self.schema else "as no schema of its search_path is there"
            said = f"there is no table {self.missing[0]}, and role {self.role} may make none {where}"
            return Trouble(said, f"{init_command(self.role, self.url)} makes it")
        if older and not self.owned:
            said = f"its tables are of an older version, and role {self.role} does not own them"
            return Trouble(said, f"{command('upgrade', self.role, self.url)} does")
        if self.lacking:
            said = f"role {self.role} lacks {'; '.join(self.lacking)}"
            return Trouble(said, f"{init_command(self.role, self.url)} grants it")
        return None


def making(ask: Ask, url: object) -> str:
    """How missing tables are made, as the role that asks must have it done. Raises what `ask` raises."""
    role, may_create, _ = _may(ask)
    return f"{'`glassq queue init`' if may_create else init_command(role, url)} makes them"


def upgrading(ask: Ask, url: object) -> str:
    """How the queue's older tables are brought to this version. Raises what `ask` raises."""
    role, _, owns = _may(ask)
    return f"{'`glassq queue upgrade`' if owns else command('upgrade', role, url)} brings them to this version"


def _may(ask: Ask) -> tuple[str, bool, bool]:
    """The role that asks, whether it may make tables, and whether the queue's are its own."""
    [(role, may_create, owns)] = ask(
        """
        SELECT current_user, coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), EXISTS (
            SELECT FROM pg_class WHERE oid = to_regclass('glassq_jobs') AND pg_has_role(relowner, 'USAGE')
        )
        """
    )
    return role, may_create, owns


def init_command(role: str, url: object) -> str:
    """The command that makes tables at this URL, and gives this role what it needs, as it stands in advice."""
    return command("init", role, url)


def command(name: str, role: str, url: object) -> str:
    """`glassq queue NAME` as the tables' owner, for this role."""
    scheme, found, rest = str(url).partition("?")[0].partition("://")
    # another of SQLAlchemy's forms is none of the queue's
    owner = f"{scheme}://OWNER@{rest.rpartition('@')[2]}" if found and "+" not in scheme else "OWNER"
    return f"`glassq queue {name} --url {owner} --grant {shlex.quote(role)}`"
