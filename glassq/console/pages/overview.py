"""The overview, and the queues: what waits, how fast it is worked, and when it is done. Nothing here asks the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from glassq.console import charts
from glassq.console.filtering import one_of
from glassq.console.pages.activity import latest
from glassq.console.request import Page
from glassq.errors import NotFound
from glassq.operations.hints import adapt_hints
from glassq.operations.overview import overview as view_of
from glassq.operations.overview import whole_minutes

if TYPE_CHECKING:
    from glassq.console.console import Console
    from glassq.console.request import Answer, PageRequest
    from glassq.operations.overview import Overview
    from glassq.operations.sampler import Samples

# Of how many hours charts are.
HOURS = (1, 6, 24)
# So many of the latest activities stand on the overview.
LATEST = 3


def overview(console: Console, request: PageRequest) -> Answer:
    """All tubes of ours together. The twin is the document of `glassq status`."""
    samples, hours = console.sampler.view(), hours_of(request)
    found = view_of(samples, request.now, hours)
    status = samples.status
    checks = console.doctor.view().checks
    groups = console.census.snapshot().groups
    values = {
        "view": found,
        "samples": samples,
        "sparks": _sparks(samples, request),
        "latest": latest(console, LATEST),
        "groups": groups,
        "new": sum(group.new for group in groups),
        # what lies buried has a number on the page, and what is paused a banner
        "hints": [hint for hint in status.hints if not hint.about] if status else [],
        "sums": {level: sum(check.ok is ok for check in checks) for level, ok in _LEVELS},
        "command": console.command("status"),
        **_charts(found, request, hours),
    }

    def document() -> object:
        return adapt_hints(status.document(), console.adapt) if status else {"note": samples.trouble}

    return Page("overview.html", "Overview", document, values)


_LEVELS = (("wrong", False), ("note", None), ("ok", True))


def hours_of(request: PageRequest) -> int:
    """How many hours the charts of this request have. Raises InvalidRequest."""
    return int(one_of(request.params, "hours", tuple(map(str, HOURS))))


def _charts(found: Overview, request: PageRequest, hours: int) -> dict[str, Any]:
    end = request.now.timestamp()
    begin = end - hours * 3_600
    whole = found.minutes or whole_minutes((), end, hours)
    return {
        "hours": hours,
        "all_hours": HOURS,
        "backlog": charts.lines("Backlog", found.backlog, begin, end),
        "outcomes": charts.bars("Done and failed", whole, begin, end),
    }


def _sparks(samples: Samples, request: PageRequest) -> dict[str, tuple[str, str]]:
    """The small line of each tube, and what it shows in words."""
    begin = request.now.timestamp() - 3_600
    curves = {name: charts.thinned(curve.since(begin), 60) for name, curve in samples.curves.items()}
    backlogs = {name: [each.backlog for each in curve] for name, curve in curves.items()}
    return {name: (charts.spark(values), charts.spark_words(values)) for name, values in backlogs.items()}


def queues(console: Console, request: PageRequest) -> Answer:
    """The queues of [worker.queues] and the push queues. The twin is the document of `glassq queues`."""
    samples = console.sampler.view()
    found = view_of(samples, request.now)
    values = {
        "samples": samples,
        "view": samples.queues,
        "lines": {line.counts.name: line for line in found.tubes},
        "sparks": _sparks(samples, request),
        "command": console.command("queues"),
    }
    return Page("queues.html", "Queues", lambda: _queues_document(console, samples), values)


def _queues_document(console: Console, samples: Samples) -> dict[str, Any]:
    view = samples.queues
    pushed = view.pushed.document() if view and view.pushed else {"queues": [], "note": "", "hints": []}
    own = [row.document() for row in view.own] if view else []
    return adapt_hints({**pushed, "worker_queues": own}, console.adapt)


def queue(console: Console, request: PageRequest) -> Answer:
    """One tube, with its charts. Raises NotFound."""
    name, hours = request.path["name"], hours_of(request)
    samples = console.sampler.view()
    found = view_of(samples, request.now, hours)
    line = next((line for line in found.tubes if name in (line.counts.name, line.label)), None)
    if line is None:
        raise NotFound(f"there is no queue {name} now; `glassq queues` lists them")
    end = request.now.timestamp()
    curve = samples.curves.get(line.counts.name)
    points = curve.since(end - hours * 3_600) if curve else []
    values = {
        "samples": samples,
        "line": line,
        "hours": hours,
        "all_hours": HOURS,
        "backlog": charts.lines("Backlog", points, end - hours * 3_600, end),
        "facts": _facts(samples, line.counts.name),
        "command": console.command("queues"),
    }
    return Page("queue.html", line.label, lambda: _one_document(console, samples, line.counts.name), values)


def _one_document(console: Console, samples: Samples, tube: str) -> dict[str, Any]:
    whole = _queues_document(console, samples)
    rows = [row for row in (*whole["queues"], *whole["worker_queues"]) if row["tube"] == tube]
    return rows[0] if rows else {"tube": tube}


def _facts(samples: Samples, tube: str) -> list[tuple[str, str]]:
    """What the settings say of it."""
    view = samples.queues
    if view is None:
        return []
    facts: list[tuple[str, object]] = []
    for own in view.own:
        if own.tube.name == tube and own.settings is not None:
            facts = [("weight", own.settings.weight), ("children kept", own.settings.children)]
            facts += [("sources", ", ".join(own.sources) or "none"), ("parked", own.parked)]
    for row in view.pushed.rows if view.pushed else ():
        if row.tube.name == tube:
            planned = row.planned
            facts = [("in queue.yaml", {True: "yes", False: "no", None: "not known"}[row.in_queue_yaml])]
            facts += [("rate", f"{planned.rate:g}/s" if planned and planned.rate is not None else "no limit")]
            facts += [("bucket", planned.bucket_size if planned else None), ("at once", row.at_once)]
            facts += [("tried again", row.retrying), ("scheduled", row.scheduled), ("parked", row.parked)]
    return [(name, "-" if value is None else str(value)) for name, value in facts]
