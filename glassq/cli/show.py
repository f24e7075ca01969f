"""`glassq show ID`: one delivery's whole story."""

from __future__ import annotations

import json
from dataclasses import asdict
from textwrap import indent
from typing import TYPE_CHECKING, Any

import click
import msgspec

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.completion import buried_ids
from glassq.cli.find import OPEN, Finder, ambiguous, checked_prefix, fate, is_job_id
from glassq.cli.output import console, facts, line, print_json
from glassq.errors import JobNotFound, SettingsError
from glassq.log import escape
from glassq.mask import masked_body, masked_text
from glassq.operations.words import moment, reason, span

if TYPE_CHECKING:
    from rich.console import Console

    from glassq.cli.find import Found
    from glassq.delivery import Delivery, Evidence
    from glassq.ledger import Entry


@click.command()
@click.argument("id_", metavar="ID", shell_complete=buried_ids)
@as_json
@pass_app
def show(app: App, id_: str, as_json: bool) -> None:
    """One delivery's whole story.

    ID is a delivery id, the first 8 characters of one or more, a job id, or the name of a task that is in the queue.
    """
    with app.queue() as queue:
        try:
            found, missing = _find(Finder(queue, app.ledger), id_), None
        except JobNotFound as error:
            found, missing = None, error
    entry, note = _recorded(app, id_, found)
    if missing is not None and entry is None:
        raise JobNotFound(f"{missing}; {note or 'the ledger does not know it either'}")
    if as_json:
        print_json(_document(found, entry, note))
    else:
        _print(console(), found, entry, note)


def _find(finder: Finder, text: str) -> Found:
    """The job of an id; else that of the task of this name. Raises as `Finder.find` does."""
    try:
        return finder.find(text, glance=True)
    except JobNotFound as error:
        found = finder.task(text)
        if found is None:
            raise JobNotFound(f"{error}, and no task of this name") from None
    except click.UsageError as error:
        found = finder.task(text)
        if found is None:
            raise click.UsageError(f"{error.message}; and no task in the queue has this name") from None
    return found


def _recorded(app: App, text: str, found: Found | None) -> tuple[Entry | None, str]:
    """What the ledger holds of it, and why that is nothing. Raises click.ClickException for an ambiguous prefix."""
    if found is None and is_job_id(text):
        return None, "job ids are given again over time: ask for the delivery's id"
    if found is not None and not found.name:
        return None, "damaged: nobody knows which delivery it was"
    wanted = found.name if found and not _begins(found, text) else checked_prefix(text)
    try:
        with app.ledger() as ledger:
            entries, note = {entry.delivery: entry for entry in ledger.find(wanted)}, ledger.absent
    except SettingsError as error:
        return None, str(error)
    names = {*entries, *([found.name] if found else [])}
    if len(names) > 1 and wanted not in names:
        raise ambiguous(text, list(names))
    return entries.get(found.name if found else next(iter(names), "")), note


def _begins(found: Found, text: str) -> bool:
    """Whether it was found by its delivery's id, or the beginning of that; else by its job's, or its task's name."""
    return not is_job_id(text) and found.name.startswith(text.strip().lower())


def _document(found: Found | None, entry: Entry | None, note: str) -> dict[str, Any]:
    """Stable keys; what is not known is null."""
    delivery = found.delivery if found else None
    return {
        "delivery": _delivery(delivery) if delivery else None,
        "job": {**asdict(found.stats), "bytes": len(found.job.body), "damage": found.damage} if found else None,
        "in_queue": found is not None,
        "ledger": _recorded_fields(entry) if entry else None,
        "ledger_note": note,
    }


def _recorded_fields(entry: Entry) -> dict[str, Any]:
    fields = {**asdict(entry), "result": masked_text(entry.result), "reason": reason(entry.reason)}
    return {name: value for name, value in fields.items() if name not in ("body", "labels")}


def _delivery(delivery: Delivery) -> dict[str, Any]:
    fields: dict[str, Any] = {
        name: getattr(delivery, name) for name in delivery.__struct_fields__ if name not in ("body", "evidence")
    }
    evidence = [msgspec.structs.asdict(each) for each in delivery.evidence]
    for each in evidence:
        each["message"] = masked_text(each["message"])
        each["traceback"] = masked_text(each["traceback"])
        each["detail"] = masked_body(json.dumps(each["detail"]).encode())
    fields["buried"] = reason(fields["buried"])
    fields["labels"] = _labels(delivery)
    return {**fields, "age": round(delivery.age()), "evidence": evidence, "body": masked_body(delivery.body)}


def _print(out: Console, found: Found | None, entry: Entry | None, note: str) -> None:
    delivery = found.delivery if found else None
    if found is None and entry is not None:
        out.print(
            f"The queue does not hold it: {line(fate(entry))}.", style=None if entry.state not in OPEN else "yellow"
        )
    if delivery is not None:
        _section(out, f"delivery {delivery.id}", _header(delivery, found))
    if found is not None:
        _section(out, f"job {found.job.id}", _job(found))
    if delivery is not None:
        for evidence in delivery.evidence:
            _print_evidence(out, evidence)
        out.print("\nbody", style="bold")
        body = masked_body(delivery.body)
        out.print(escape(body if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False)))
    if entry is not None:
        _section(out, f"ledger: {line(entry.delivery)}", _entry(entry))
    else:
        out.print(f"\nledger: {line(note) or 'nothing recorded'}", style="dim")


def _section(out: Console, title: str, rows: list[tuple[str, object]]) -> None:
    out.print(f"\n{line(title)}", style="bold")
    out.print(facts(rows))


def _header(delivery: Delivery, found: Found | None) -> list[tuple[str, object]]:
    labels = " ".join(f"{name}={value}" for name, value in _labels(delivery).items())
    rows: list[tuple[str, object]] = [
        ("source", delivery.source),
        ("received", f"{moment(delivery.received)} ({span(delivery.age())} ago)"),
        ("labels", labels or "none"),
        ("attempt", _attempt(delivery, kicked=bool(found and found.stats.kicks))),
    ]
    return [*rows, ("waits", delivery.waits)] if delivery.waits else rows


def _attempt(delivery: Delivery, *, kicked: bool) -> str:
    """Where it stands. One that was buried is numbered as it was then until a consumer has it again."""
    number, lost = delivery.attempt, f"{delivery.lost} lost"
    if not delivery.buried:
        return f"{number} ({delivery.failures} of its budget spent, {lost})"
    if kicked:
        return f"{number + 1} (kicked: its budget is fresh)"
    if delivery.evidence and delivery.evidence[-1].error == "operator":
        return f"put aside before attempt {number} ({lost})"
    return f"given up after {_attempts(number)}" + (f" ({lost})" if delivery.lost else "")


def _attempts(number: int) -> str:
    return "1 attempt" if number == 1 else f"{number} attempts"


def _labels(delivery: Delivery) -> dict[str, str]:
    # a task's URL and headers are among them
    return {name: masked_text(value) for name, value in delivery.labels.items()}


def _job(found: Found) -> list[tuple[str, object]]:
    stats = found.stats
    timed = {"delayed": "ready in", "reserved": "lease ends in"}.get(stats.state)
    counters = ("reserves", "timeouts", "releases", "buries", "kicks")
    rows: list[tuple[str, object]] = [
        ("state", f"{stats.state}, {timed} {span(max(0, stats.time_left))}" if timed else stats.state),
        ("tube", stats.tube),
        ("age", span(stats.age)),
        ("counters", ", ".join(f"{getattr(stats, name)} {name}" for name in counters)),
        ("on disk", f"binlog file {stats.file}" if stats.file else "NO: in memory only"),
    ]
    if found.damage:
        rows.append(("damaged", found.damage))
    elif stats.state == "buried":
        rows.append(("reason", found.reason))
    return rows


def _print_evidence(out: Console, evidence: Evidence) -> None:
    ended = f"signal {evidence.signal}" if evidence.signal else evidence.error
    rows: list[tuple[str, object]] = [
        ("at", f"{moment(evidence.at)} on {evidence.host}, after {span(evidence.duration)}"),
        ("error", ended),
        ("message", masked_text(evidence.message)),
    ]
    rows += [(name, _told(value)) for name, value in evidence.detail.items() if value != ""]
    _section(out, f"attempt {evidence.attempt}: {evidence.outcome}", rows)
    if evidence.traceback:
        out.print(indent(escape(masked_text(evidence.traceback.rstrip())), "  | "), style="dim")


def _told(value: object) -> str:
    """What a handler told beside its reason, as text; headers a line each."""
    if isinstance(value, dict):
        return masked_text("\n".join(f"{name}: {each}" for name, each in value.items()))
    return masked_text(str(value))


def _entry(entry: Entry) -> list[tuple[str, object]]:
    rows = [
        ("state", f"{entry.state} at {moment(entry.updated)}, after {_attempts(entry.attempts)}"),
        ("took", span(entry.duration) if entry.duration else ""),
        ("result", masked_text(entry.result)),
        ("file" if entry.state == "archived" else "reason", reason(entry.reason)),
        ("replayed as", entry.replayed),
    ]
    return [(name, value) for name, value in rows if value]
