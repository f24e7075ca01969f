"""Which buried deliveries an operator means: filters, all of which must fit."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from glassq.cli.completion import sources, tubes
from glassq.cli.find import is_ours, our_tubes, walk
from glassq.cli.output import line, warn_short
from glassq.errors import LedgerError, SettingsError
from glassq.values import Duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.cli.app import App
    from glassq.cli.find import Found
    from glassq.queues import Queue
    from glassq.queues.beanstalk.protocol import ScanShort

# The longest delay or pause that beanstalkd's protocol allows, in seconds: 136 years.
MAX_SECONDS = (1 << 32) - 1
BURIED = frozenset({"buried"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """What is asked for; what is None or empty is not. `older` is in seconds, `tube` is one of ours."""

    errors: tuple[re.Pattern[str], ...] = ()
    source: str | None = None
    older: float | None = None
    tube: str | None = None

    def __bool__(self) -> bool:
        return bool(self.errors) or any(asked is not None for asked in (self.source, self.older, self.tube))

    def fits(self, found: Found) -> bool:
        """Whether the job is what is asked for; a damaged one has no source."""
        return (
            (self.tube is None or found.stats.tube == self.tube)
            and (self.source is None or (found.delivery is not None and found.delivery.source == self.source))
            and (self.older is None or found.age > self.older)
            and all(error.search(found.reason) for error in self.errors)
        )

    def tubes(self, queue: Queue) -> list[str]:
        """Where to look. Raises click.UsageError for a tube that is not ours."""
        if self.tube is None:
            return our_tubes(queue)
        if not is_ours(queue.tube, self.tube):
            raise click.UsageError(
                f"tube {line(self.tube)} is not ours: expected {queue.tube} or {queue.tube}.push.QUEUE"
            )
        return [self.tube]


def lying(app: App, queue: Queue, where: Where, on_short: Callable[[ScanShort], None] = warn_short) -> Iterator[Found]:
    """The buried jobs of our tubes that fit, newest first.

    The ledger says where most of them are; those that it does not know are searched for.
    """
    return filter(where.fits, walk(queue, BURIED, where.tubes(queue), _hints(app, "buried"), on_short))


def _hints(app: App, *states: str) -> list[int]:
    """Where the ledger says that deliveries of these states are; none where it cannot be read."""
    try:
        with app.ledger() as ledger:
            return [int(job) for state in states for job in ledger.jobs(state)]
    except (LedgerError, SettingsError):
        return []


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options, and their values as one Where, named `where`."""

    @functools.wraps(command)
    def gathered(
        *args: Any, where: tuple[str, ...], source: str | None, older_than: str | None, tube: str | None, **rest: Any
    ) -> Any:
        asked = Where(
            errors=tuple(map(_pattern, where)),
            source=source,
            older=None if older_than is None else seconds("--older-than", older_than),
            tube=tube,
        )
        return command(*args, where=asked, **rest)

    for option in _OPTIONS:
        gathered = option(gathered)
    return gathered


_OPTIONS = (
    click.option("--tube", metavar="TUBE", shell_complete=tubes, help="Only in this tube."),
    click.option("--older-than", metavar="DURATION", help='Only those that came in longer ago than this: "2d".'),
    click.option("--source", metavar="SOURCE", shell_complete=sources, help='Only from this source: "mirror".'),
    click.option(
        "--where",
        multiple=True,
        metavar="error~REGEX",
        help="Only those in whose reason this regular expression is found; of several, each.",
    ),
)


def _pattern(text: str) -> re.Pattern[str]:
    name, tilde, regex = text.partition("~")
    if (name.strip(), tilde) != ("error", "~") or not regex:
        raise click.UsageError(f"--where {line(text)}: expected error~REGEX")
    try:
        return re.compile(regex)
    except re.error as error:
        raise click.UsageError(f"--where {line(text)}: not a regular expression: {error}") from None


def seconds(option: str, text: str) -> float:
    """The value of an option that is a duration. Raises click.UsageError."""
    try:
        return Duration(text)
    except ValueError as error:
        raise click.UsageError(f"{option} {line(text)}: {error}") from None


def whole_seconds(option: str, text: str) -> int:
    """The same in beanstalkd's whole seconds, rounded up; up to MAX_SECONDS. Raises click.UsageError."""
    found = math.ceil(seconds(option, text))
    if found > MAX_SECONDS:
        raise click.UsageError(f"{option} {line(text)}: expected at most {MAX_SECONDS // 86_400}d")
    return found


def nothing(where: Where) -> str:
    """What to say where there is none."""
    return "nothing that lies buried fits" if where else "nothing lies buried"
