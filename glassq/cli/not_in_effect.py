"""Settings on disk that a running program has not read yet, or could not use: for `status` and `doctor`."""

from __future__ import annotations

import shlex
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from glassq.cli.output import without_password
from glassq.errors import SettingsError
from glassq.in_effect import records
from glassq.operations.words import moment
from glassq.settings import file_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.cli.app import App
    from glassq.in_effect import Record


def not_in_effect(app: App) -> Iterator[tuple[str, str]]:
    """For each program that runs with other settings than those on disk: that in words, and what to do."""
    try:
        file = file_of(app.file, app.environ)
    except SettingsError:
        return
    for record, is_unit in records(file):
        changed = record.changed()
        if not changed:
            continue
        said = (
            f"settings on disk are not those in effect: {' and '.join(map(_with_time, changed))}; "
            f"{record.program} works with what it read at {_at(record.since)}"
        )
        if record.error:
            said += f"; its last reload failed: {without_password(record.error)}"
        yield said, f"{app.command('config check')}, then {_reload(record, is_unit=is_unit)}"


def _with_time(path: Path) -> str:
    with suppress(OSError):
        return f"{path} was changed at {_at(path.stat().st_mtime)}"
    return f"{path} is gone"


def _at(seconds: float) -> str:
    return moment(datetime.fromtimestamp(int(seconds), UTC))


def _reload(record: Record, *, is_unit: bool) -> str:
    return f"systemctl reload {record.program}" if is_unit else shlex.join(["kill", "-HUP", str(record.pid)])
