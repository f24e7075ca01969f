"""The sources of the settings, and what the running intake has counted of each."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from glassq.errors import SettingsError
from glassq.in_effect import runtime_directories
from glassq.intake.report import PATH, SourceReport, SourcesReport, report_socket
from glassq.local_http import fetch
from glassq.operations.hints import Hint
from glassq.operations.words import span
from glassq.sources.opening import open_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.operations import Operations
    from glassq.settings import Settings

# How long the intake may take to answer, in seconds.
TIMEOUT = 2.0
# A sender's clock, or ours, that is farther off than this is told, in seconds.
SKEWED = 60.0
# A secret beside the one in use that nobody used for so long may be removed, in seconds.
IDLE = 86_400.0
# Secrets that were read within this time of the start of glassq-web were read once, in seconds.
AT_START = 1.0


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One source of the settings. `problem` says why it takes no ping ("": it does), `counted` what came so far.

    `max_body` is in bytes; 0 where the source cannot be opened.
    """

    name: str
    kind: str
    path: str
    tube: str
    max_body: int
    problem: str = ""
    counted: SourceReport | None = None


@dataclass(frozen=True, slots=True)
class SourcesView:
    """All sources. `hints` are about what was counted.

    `counting` is for how long the intake counts, in seconds, None where it does not say; `note` says why then.
    `reloaded` is how long ago it read its secrets again, in seconds: their uses are counted from then on. None: it has
    not read them again.
    """

    rows: tuple[SourceRow, ...]
    hints: tuple[Hint, ...]
    counting: float | None = None
    note: str = ""
    reloaded: float | None = None

    @property
    def todo(self) -> list[str]:
        """What an operator should know or do."""
        problems = (f"{row.name} takes no pings: {row.problem}" for row in self.rows if row.problem)
        return [*problems, *map(str, self.hints)]

    def document(self) -> dict[str, Any]:
        """The sources for JSON; ages in seconds."""
        rows = [{**asdict(row), "counted": _plain(row.counted)} for row in self.rows]
        times = {"counting": self.counting, "reloaded": self.reloaded}
        return {"sources": rows, **times, "note": self.note, "hints": self.todo}


def snapshot(operations: Operations) -> SourcesView:
    """The sources as they are now; it raises nothing, what cannot be read is told."""
    settings = operations.settings
    report, note = read_report(settings)
    counted = report.sources if report else {}
    rows = tuple(_row(settings, name, counted.get(name)) for name in settings.sources)
    if operations.confined:
        # its secrets are hidden from us alone
        rows = tuple(replace(row, problem="") for row in rows)
    now = operations.clock().timestamp()
    counting = max(0.0, now - report.since) if report else None
    loaded = max(0.0, now - report.loaded) if report else 0.0
    reloaded = loaded if report and report.loaded - report.since > AT_START else None
    return SourcesView(rows, tuple(_hints(rows, loaded)), counting, note, reloaded)


def read_report(settings: Settings) -> tuple[SourcesReport | None, str]:
    """What the running intake with these settings says, or why it says nothing."""
    directories = list(runtime_directories("glassq-web", Path(settings.file)))
    if not directories:
        return None, "no glassq-web runs with these settings"
    why = ""
    for directory in directories:
        socket = report_socket(str(directory))
        try:
            return msgspec.json.decode(fetch(str(socket), PATH, timeout=TIMEOUT), type=SourcesReport), ""
        except OSError as error:
            why = f"{socket}: {error.strerror or error}"
        except msgspec.DecodeError as error:
            why = f"{socket}: glassq-web is of another version: {error}"
    return None, why


def _row(settings: Settings, name: str, counted: SourceReport | None) -> SourceRow:
    section = settings.sources[name]
    try:
        source = open_source(settings, name)
    except SettingsError as error:
        return SourceRow(name, section.kind_of(name), f"/hooks/{name}", "", 0, str(error), counted)
    path = f"/hooks/{name}" + ("/TOKEN" if section.path_token_file else "")
    return SourceRow(name, source.kind, path, source.tube, source.max_body, "", counted)


def _hints(rows: tuple[SourceRow, ...], loaded: float) -> Iterator[Hint]:
    """What follows from what was counted; `loaded` is how long the secrets are in use, in seconds."""
    for row in rows:
        if row.counted is None:
            continue
        refused = row.counted.refused
        if wrong := refused.get("wrong signature", 0) + refused.get("no signature", 0):
            test = f"sources test {row.name} FILE"
            yield Hint(f"{row.name} refused {wrong} by their signature; a saved request says why", test)
        skew = row.counted.refused_skew if refused.get("too old", 0) + refused.get("too new", 0) else row.counted.skew
        if skew is not None and abs(skew) > SKEWED:
            where = "behind" if skew < 0 else "ahead of"
            words = f"{row.name}: the sender's time is {span(abs(skew))} {where} ours; is this machine's clock right"
            yield Hint(words, "doctor")
        yield from _idle_secrets(row, row.counted.secrets, loaded)


def _idle_secrets(row: SourceRow, used: tuple[float | None, ...], loaded: float) -> Iterator[Hint]:
    """Lines that can go, once their sender uses another one."""
    if len(used) < 2 or loaded < IDLE or not any(age is not None and age < IDLE for age in used):
        return
    for number, age in enumerate(used, 1):
        if age is None or age > IDLE:
            since = span(loaded if age is None else age)
            yield Hint(f"{row.name}: secret {number} of {len(used)} was not used for {since}; its line may go")


def _plain(report: SourceReport | None) -> dict[str, Any] | None:
    return None if report is None else msgspec.to_builtins(report)
