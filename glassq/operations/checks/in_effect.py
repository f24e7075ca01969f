"""What running programs have recorded of themselves, for status and doctor.

Settings on disk that they have not read yet or could not use, and memory that the pool's children cannot share.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from glassq.in_effect import records
from glassq.operations.checks.base import Check
from glassq.operations.words import moment
from glassq.values import without_password

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.in_effect import Record


def not_in_effect(file: Path | None) -> Iterator[Check]:
    """A note for each running program whose settings are not those in `file`, the settings file, any more.

    None: there is no such file, and nothing to note.
    """
    for record, is_unit in records(file) if file else ():
        changed = record.changed()
        if not changed:
            continue
        said = (
            f"settings on disk are not those in effect: {' and '.join(map(_with_time, changed))}; "
            f"{record.program} works with what it read at {_at(record.since)}"
        )
        if record.error:
            said += f"; its last reload failed: {without_password(record.error)}"
        act = _restart if record.needs_restart else _reload
        yield Check("in effect", None, said, f"`glassq config check`, then {act(record, is_unit=is_unit)}")


def not_shared(file: Path) -> Iterator[Check]:
    """A note for a pool whose children each load their handlers themselves, though the settings would have it else."""
    for record, is_unit in records(file):
        if record.not_shared:
            said = f"the children of {record.program} share no memory, because {record.not_shared}"
            todo = (
                "start it at the first delivery (context.resource), or write [worker] preload = false; then "
                f"{_reload(record, is_unit=is_unit)}"
            )
            yield Check("shared memory", None, said, todo)


def no_room(file: Path) -> Iterator[Check]:
    """A note for a pool that a reload wants to be larger than there is room for."""
    for record, is_unit in records(file):
        if record.lacking:
            how = _restart(record, is_unit=is_unit)
            yield Check("room", None, f"{record.program} has room for {record.lacking}", how)


def _with_time(path: Path) -> str:
    with suppress(OSError):
        return f"{path} was changed at {_at(path.stat().st_mtime)}"
    return f"{path} is gone"


def _at(seconds: float) -> str:
    return moment(datetime.fromtimestamp(int(seconds), UTC))


def _reload(record: Record, *, is_unit: bool) -> str:
    return f"systemctl reload {record.program}" if is_unit else shlex.join(["kill", "-HUP", str(record.pid)])


def _restart(record: Record, *, is_unit: bool) -> str:
    return f"systemctl restart {record.program}" if is_unit else f"stop {record.program} and start it again"
