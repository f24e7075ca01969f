"""`glassq show ID`: one delivery's whole story."""

from __future__ import annotations

import json
from textwrap import indent
from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.completion import buried_ids
from glassq.cli.output import console, line, print_facts, print_json
from glassq.log import escape
from glassq.operations import story as operation
from glassq.operations.find import OPEN, ledger_state
from glassq.operations.story import attempt_words, detail_words, route_words
from glassq.operations.words import attempts, moment, span

if TYPE_CHECKING:
    from rich.console import Console

    from glassq.delivery import Evidence
    from glassq.ledger import Entry
    from glassq.operations.find import Found
    from glassq.operations.story import Story

Rows = list[tuple[str, object]]


@click.command()
@click.argument("id_", metavar="ID", shell_complete=buried_ids)
@as_json
@pass_app
def show(app: App, id_: str, as_json: bool) -> None:
    """One delivery's whole story.

    ID is a delivery id, the first 8 characters of one or more, a job id, or the name of a task that is in the queue.
    """
    with app.operations.looking() as queue, app.progress() as progress:
        told = operation.tell(app.operations, queue, id_, progress)
    if as_json:
        print_json(told.document())
    else:
        _print(app, console(), told)


def _print(app: App, out: Console, told: Story) -> None:
    found, entry = told.found, told.entry
    if found is None and entry is not None:
        state = line(app.adapt(ledger_state(entry)))
        out.print(f"The queue does not hold it: {state}.", style=None if entry.state not in OPEN else "yellow")
    if found is not None:
        _print_found(out, told, found)
    elif entry is not None:
        _section(out, f"delivery {line(entry.delivery)}", _left(told, entry))
        for evidence in told.evidence:
            _print_evidence(out, evidence)
        if told.stored is not None:
            _print_body(out, told.body)
    if entry is not None:
        _section(out, f"ledger: {line(entry.delivery)}", _entry(entry))
    else:
        out.print(f"\nledger: {line(told.note) or 'nothing recorded'}", style="dim")
    if told.history:
        _section(out, "history in the queue", [(moment(each.at), line(each.words)) for each in told.history])


def _print_found(out: Console, told: Story, found: Found) -> None:
    delivery = found.delivery
    if delivery is not None:
        _section(out, f"delivery {delivery.id}", _header(told, found))
    _section(out, f"job {found.ref}", _job(found))
    if delivery is None:
        return
    for evidence in told.evidence:
        _print_evidence(out, evidence)
    _print_body(out, told.body)


def _print_body(out: Console, body: object) -> None:
    out.print("\nbody", style="bold")
    # to be copied: never broken into lines
    out.print(escape(body if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False)), soft_wrap=True)


def _section(out: Console, title: str, rows: Rows) -> None:
    out.print(f"\n{line(title)}", style="bold")
    print_facts(out, rows)


def _header(told: Story, found: Found) -> Rows:
    delivery = found.delivery
    if delivery is None:
        return []
    rows: Rows = [
        ("source", delivery.source),
        ("received", f"{moment(delivery.received)} ({span(delivery.age())} ago)"),
        ("labels", _labels(told)),
        *_request(told),
        ("handler", route_words(found)),
        ("attempt", attempt_words(found)),
    ]
    rows += _steps(told)
    return [*rows, ("waits", delivery.waits)] if delivery.waits else rows


def _left(told: Story, entry: Entry) -> Rows:
    """Of a delivery that is not in the queue, what the ledger kept."""
    rows: Rows = [("source", entry.source), ("received", moment(entry.received))]
    if told.stored is None:
        return [*rows, ("body", "not kept, nor its labels")]
    return [*rows, ("labels", _labels(told)), *_request(told), *_steps(told)]


def _steps(told: Story) -> Rows:
    """What its steps have given."""
    return [("step done", f"{step.step}: {step.result or 'nothing'}") for step in told.steps]


def _request(told: Story) -> Rows:
    """What it kept of its request beside the body, where it kept something."""
    headers = ", ".join(f"{name}: {value}" for name, value in (told.headers or {}).items())
    return [(name, value) for name, value in (("type", told.content_type), ("headers", headers)) if value]


def _labels(told: Story) -> str:
    return " ".join(f"{name}={value}" for name, value in (told.labels or {}).items()) or "none"


def _job(found: Found) -> Rows:
    job = found.job
    timed = {"delayed": "ready in", "reserved": "lease ends in"}.get(job.state)
    rows: Rows = [
        ("state", f"{job.state}, {timed} {span(max(0, job.time_left))}" if timed else job.state),
        ("tube", job.tube),
        ("age", span(job.age)),
        ("counters", ", ".join(f"{name} {value}" for name, value in job.counters.items())),
        ("on disk", "yes" if job.durable else "NO: in memory only"),
    ]
    if found.damage:
        rows.append(("damaged", found.damage))
    elif found.is_buried:
        rows.append(("reason", found.reason))
        cause = found.cause
        rows.append(("cause", f"{cause.id} ({cause.words})"))
    return rows


def _print_evidence(out: Console, evidence: Evidence) -> None:
    rows: Rows = [
        ("at", f"{moment(evidence.at)} on {evidence.host}, after {span(evidence.duration)}"),
        *([("step", evidence.step)] if evidence.step else []),
        ("error", f"signal {evidence.signal}" if evidence.signal else evidence.error),
        ("message", evidence.message),
    ]
    rows += [(name, detail_words(value)) for name, value in evidence.detail.items() if value != ""]
    _section(out, f"attempt {evidence.attempt}: {evidence.outcome}", rows)
    if evidence.traceback:
        out.print(indent(escape(evidence.traceback.rstrip()), "  | "), style="dim", soft_wrap=True)


def _entry(entry: Entry) -> Rows:
    rows = [
        ("state", f"{entry.state} at {moment(entry.updated)}, after {attempts(entry.attempts)}"),
        ("took", span(entry.duration) if entry.duration else ""),
        ("result", entry.result),
        ("file" if entry.state == "archived" else "reason", entry.reason),
        ("replayed as", entry.replayed),
    ]
    return [(name, value) for name, value in rows if value]
