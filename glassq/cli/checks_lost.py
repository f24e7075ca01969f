"""What `glassq doctor` looks for where a queue may have lost jobs, or is about to: its files, and the ledger's word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.cli.checks import Check
from glassq.database.plain import file_of
from glassq.errors import LedgerError, SettingsError
from glassq.operations.missing import find_missing
from glassq.operations.progress import Silent
from glassq.push.request import SOURCE
from glassq.queues.beanstalk.binlog import missing_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.cli.app import App
    from glassq.queues import Queue, ServerStats

# The search for lost deliveries takes at most this long, in seconds: enough for some 100,000 that are where the ledger
# says.
PATIENT = 10.0


def binlog_files(app: App, queue: Queue, server: ServerStats) -> Iterator[Check]:
    if problem := missing_files(queue, app.settings.queue.url):
        todo = (
            "do not restart it, its jobs may be in memory only: let the pool work what waits, archive what lies buried "
            f"({app.command('archive --all')}), then restart it and put that back ({app.command('restore FILE')})"
        )
        yield Check("binlog", False, problem, todo)


def lost(app: App, queue: Queue, server: ServerStats) -> Iterator[Check]:
    try:
        with app.operations.queue() as inspector:
            found = find_missing(app.operations, inspector, PATIENT, Silent())
    except (LedgerError, SettingsError):
        # what is wrong with the ledger is told already
        return
    tasks = [each for each in found.deliveries if each.source == SOURCE]
    todo = (
        f"{app.command('replay --state lost')} puts them again, as far as the ledger has their bodies; "
        f"{app.command('delete --lost')} gives them up"
    )
    if found.deliveries:
        said = found.words()
        if tasks:
            said += f"; {len(tasks)} of them are tasks, which the programs that added them may have deleted"
        if not found.sure:
            todo = f"{app.command('replay --state lost --dry-run')} looks through all of the queue"
        # whoever shares a database may have a queue of his own
        certain = found.sure and len(tasks) < len(found.deliveries) and file_of(app.settings.ledger.url) is not None
        yield Check("lost", False if certain else None, said, todo)
    elif found.looked < found.total:
        said = f"{found.looked} of {found.total} unfinished deliveries checked; all are in the queue"
        yield Check("lost", None, said, "ask again when less is going on")
    else:
        yield Check("lost", True, f"the queue holds all {found.total} deliveries that the ledger has as not over")


LOST: list[Callable[[App, Queue, ServerStats], Iterator[Check]]] = [binlog_files, lost]
