"""What the intake says of its sources, as one JSON document on a unix socket in its runtime directory.

Nothing in it is secret: a line of a secrets file is told by its place and by when it was last used.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

# `GET /sources` on this socket; no other listener serves it.
SOCKET = "intake.sock"
PATH = "/sources"


class SourceReport(msgspec.Struct, frozen=True, kw_only=True):
    """One source, since glassq-web started. Ages are in seconds; None: never.

    `refused` has the reasons that occurred. `skew` is the sender's signed time minus ours at the last genuine ping, in
    seconds, and `max_skew` the one farthest from 0. `refused_skew` is that of the last ping that was refused as too old
    or too new, which anybody may have sent. `secrets` has the age of each secret's last use since
    `SourcesReport.loaded`, in the order of their lines.
    """

    kind: str
    pings: int = 0
    challenges: int = 0
    refused: dict[str, int] = {}
    unread_labels: int = 0
    last_ping: float | None = None
    skew: float | None = None
    max_skew: float | None = None
    refused_skew: float | None = None
    secrets: tuple[float | None, ...] = ()


class SourcesReport(msgspec.Struct, frozen=True, kw_only=True):
    """All sources. `since` is when glassq-web started, `loaded` when it read settings and secrets (Unix time)."""

    since: float
    loaded: float
    sources: dict[str, SourceReport]


def report_socket(runtime_directory: str) -> Path:
    """Where the socket is; `runtime_directory` is the environment's RUNTIME_DIRECTORY of glassq-web."""
    # systemd separates several by a colon; our units have one
    return Path(runtime_directory.partition(":")[0], SOCKET)
