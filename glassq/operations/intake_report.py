"""What the running intake says of its sources."""

from __future__ import annotations

from contextlib import suppress
from http.client import HTTPException
from typing import TYPE_CHECKING

import msgspec

from glassq.in_effect import RUN, records
from glassq.intake.report import PATH, SOCKET, SourcesReport
from glassq.local_http import get

if TYPE_CHECKING:
    from pathlib import Path

# An intake that has too much to do answers later, in seconds.
TIMEOUT = 5.0
# The largest document that is read, in bytes; a source takes less than 1 KiB.
MAX_REPORT = 4 << 20


def running_report(file: Path) -> SourcesReport | None:
    """What glassq-web with this settings file says; None: it does not run, or may not be asked by this user."""
    for record, by_systemd in records(file):
        if record.program == "glassq-web":
            home = RUN if by_systemd else file.resolve().parent / "run"
            return read_report(home / record.program)
    return None


def read_report(directory: Path) -> SourcesReport | None:
    """What the glassq-web with this runtime directory says; None: nobody answers there."""
    with suppress(OSError, HTTPException, msgspec.DecodeError):
        status, text = get(str(directory / SOCKET), PATH, timeout=TIMEOUT, most=MAX_REPORT)
        if status == 200:
            return msgspec.json.decode(text, type=SourcesReport)
    return None
