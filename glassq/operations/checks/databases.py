"""What glassq has in databases: can the programs' role work on it? Each check looks at what the program will need.

A part's tables must be there, with the rights to read and write them, or the role must be able to make them.
Both doctor and `queue check` go through all of them. A new check is a function of the Operations, and a line in
DATABASES.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from glassq.database.sqlite_file import file_problem, plain_file_of
from glassq.errors import LedgerError, QueueError, SettingsError
from glassq.operations.checks.access import barrier, database_file, directory, exists
from glassq.operations.checks.base import Check
from glassq.operations.checks.configuration import database_remarks, option_problems, works_glass
from glassq.queues import advice
from glassq.schedules.opening import has_schedules
from glassq.values import QueueUrl, is_postgres, without_password

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.database.rights import Trouble
    from glassq.database.schema import Needs
    from glassq.database.schema_parts import SchemaPart
    from glassq.operations import Operations

# Seconds for one statement.
TIMEOUT = 5.0
_OPTIONS = "libpq takes it no other way: mend the URL, or the file that it names"


def options(operations: Operations) -> Iterator[Check]:
    """What libpq would refuse, or ignore, of the URLs of databases."""
    for problem in option_problems(operations.settings):
        # without its driver no URL was looked at
        todo = _OPTIONS if problem.startswith(f"{operations.settings.file}: ") else ""
        yield Check("database", False, problem, todo, 78)
    for remark in database_remarks(operations.settings):
        yield Check("database", None, remark)


def ledger(operations: Operations) -> Iterator[Check]:
    def needs() -> Needs:
        from glassq.ledger.schema import NEEDS

        return NEEDS

    url, meanwhile = operations.settings.ledger.url, "the work goes on without a record"
    found = _database("ledger", url, "[ledger] url", needs, meanwhile)
    if found.ok:
        try:
            operations.ledger().close()
        except (LedgerError, SettingsError) as error:
            found = Check("ledger", False, str(error), f"mend it, or name another; {meanwhile}")
    yield found


def schedules(operations: Operations) -> Iterator[Check]:
    """In the ledger's database; a file of one host is looked at as the ledger."""
    url = operations.settings.ledger.url
    if is_postgres(url) and has_schedules(operations.settings):
        from glassq.schedules.table import NEEDS

        yield _database("schedules", url, "[ledger] url", lambda: NEEDS, "nothing is put by the clock until then")


def task_names(operations: Operations) -> Iterator[Check]:
    push = operations.settings.push
    if push is not None:

        def needs() -> Needs:
            from glassq.push.names_table import NEEDS

            return NEEDS

        yield _database("task names", push.names, "[push] names", needs, "named tasks cannot be added until then")


def credentials(operations: Operations) -> Iterator[Check]:
    place = operations.settings.glass.credentials
    if not works_glass(operations.settings):
        return
    if is_postgres(place):
        from glassq.glass.record_table import SCHEMA

        yield _part(operations, "credentials", place, SCHEMA, "pings of Glass wait until then")


def bodies(operations: Operations) -> Iterator[Check]:
    if is_postgres(url := operations.settings.bodies.url):
        from glassq.bodies.table import SCHEMA

        yield _part(operations, "bodies", url, SCHEMA, "large pings wait with the journal until then")


def limits(operations: Operations) -> Iterator[Check]:
    if (url := operations.settings.queue.url).is_database:
        from glassq.database.shares import SCHEMA

        yield _part(operations, "limits", url.whole, SCHEMA, "tubes with a limit are not worked until then")


def _database(name: str, url: str, key: str, needs: Callable[[], Needs], meanwhile: str) -> Check:
    """Whether it can be written. A file that is missing is not made: it would belong to the operator."""
    try:
        file = database_file(url, key)
        if file is not None:
            place = directory(name, file.parent)
            if not place.ok or not exists(file):
                return place
            if closed := barrier(file, write=True):
                return Check(name, False, *closed)
        problem = _problem(url, key, needs)
    except SettingsError as error:
        return Check(name, False, str(error), f"mend it, or name another; {meanwhile}", 78)
    if problem is not None:
        return Check(name, False, problem.said, f"{problem.todo or 'mend it, or name another'}; {meanwhile}")
    return Check(name, True, "can be written" if file is None else f"{file} can be written")


def _problem(url: str, key: str, needs: Callable[[], Needs]) -> Trouble | None:
    """Why it cannot be written, and what to do. Raises SettingsError."""
    if (plain := plain_file_of(url)) is not None:
        return file_problem(plain, url, key)
    from glassq.database.engine import write_problem

    return write_problem(url, key, needs())


def _part(operations: Operations, name: str, url: str, part: SchemaPart, meanwhile: str) -> Check:
    """Whether the tables of a part can be written, or made."""
    try:
        problem = _trouble(url, part)
    except QueueError as error:
        todo = advice(operations.settings, error)
        return Check(name, False, str(error), f"{todo}; {meanwhile}" if todo else meanwhile)
    except SettingsError as error:
        return Check(name, False, str(error), meanwhile, 78)
    if problem is not None:
        said = f"{without_password(url)}: {problem.said}"
        return Check(name, False, said, f"{problem.todo}; {meanwhile}")
    return Check(name, True, f"can be written in {without_password(url)}")


def _trouble(url: str, part: SchemaPart) -> Trouble | None:
    from glassq.database.postgres import PostgresSession
    from glassq.database.schema_parts import trouble

    session = PostgresSession(QueueUrl(url), name="glassq doctor", connect_timeout=TIMEOUT, timeout=TIMEOUT)
    with closing(session):
        return trouble(session, part)


DATABASES: list[Callable[[Operations], Iterator[Check]]] = [
    options,
    ledger,
    schedules,
    task_names,
    credentials,
    bodies,
    limits,
]
