"""Counters by source, over all web processes.

The parent makes a block of memory for each source before it forks, and keeps it over reloads: counts only grow. When
secrets were last used is forgotten at a reload, as the lines may be others then.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from glassq.errors import REASONS
from glassq.intake.report import SourceReport, SourcesReport
from glassq.metrics import Counter, Gauge, SharedCounters, SharedLatest, SharedPeak

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from glassq.metrics import ProcessCounters
    from glassq.metrics.exposition import GaugeValues
    from glassq.sources.base import Proof, Source

#: why a ping is not taken, beside REASONS: what is ours, how a large body does not come, and what nobody has named
OURS = ("unready", "not kept", "bug", "crowded")
_SENDERS = ("slow", "cut off")
OTHER = "other"
# Secrets that are told apart. Those beyond count as the last one.
MAX_SECRETS = 32

_PINGS = Counter("glassq_source_pings_total", "Pings acknowledged.")
_CHALLENGES = Counter("glassq_source_challenges_total", "Challenges answered.")
_REFUSED = Counter(
    "glassq_source_refused_total",
    "Requests to a source refused, by reason.",
    "reason",
    (*REASONS, *OURS, *_SENDERS, OTHER),
)
_UNREAD = Counter("glassq_source_unread_labels_total", "Labels that could not be read from genuine pings.")
_LAST_PING = SharedPeak("last_ping")
_SKEW, _REFUSED_SKEW = SharedLatest("skew"), SharedLatest("refused_skew")
_MAX_SKEW = SharedPeak("max_skew")
_USED = SharedPeak("used", MAX_SECRETS)

_LABELS = ("source", "kind")
_COUNTED = {counter: Gauge(counter.name, counter.help, _LABELS) for counter in (_PINGS, _CHALLENGES, _UNREAD)}
_REFUSALS = Gauge(_REFUSED.name, _REFUSED.help, (*_LABELS, _REFUSED.label))
_AGE = Gauge("glassq_source_last_ping_seconds", "Age of the last ping that was acknowledged.", _LABELS)
_SKEWS = Gauge(
    "glassq_source_clock_skew_seconds", "The sender's signed time minus ours, at the last genuine ping.", _LABELS
)
_IDLE = Gauge(
    "glassq_source_secret_idle_seconds",
    "Age of the last use of a secret since settings and secrets were read, by its place in the file, from 1.",
    (*_LABELS, "line"),
)


class SourceCounters:
    """What one process counts of one source; for all of its threads."""

    def __init__(self, counts: ProcessCounters, uses: ProcessCounters) -> None:
        self._counts = counts
        self._uses = uses

    def proven(self, proof: Proof, now: float) -> None:
        """A ping was found genuine; `now` is Unix time."""
        self._uses.reach(_USED, now, min(proof.secret, MAX_SECRETS - 1))
        if proof.skew is not None:
            self._counts.note(_SKEW, proof.skew, now)
            self._counts.reach(_MAX_SKEW, proof.skew)

    def acknowledged(self, pings: int) -> None:
        """So many pings of it are kept."""
        self._counts.count(_PINGS, by=pings)
        self._counts.reach(_LAST_PING, time.time())

    def challenge(self) -> None:
        """A challenge was answered."""
        self._counts.count(_CHALLENGES)

    def refused(self, reason: str, skew: float | None = None, requests: int = 1) -> None:
        """So many requests were refused; the reason is one of REASONS or OURS. `skew` is why, if it was the time."""
        self._counts.count(_REFUSED, reason if reason in _REFUSED.values else OTHER, requests)
        if skew is not None:
            self._counts.note(_REFUSED_SKEW, skew, time.time())

    def unread(self, labels: int) -> None:
        """So many labels of a genuine ping could not be read."""
        self._counts.count(_UNREAD, by=labels)


class SharedSourceCounters:
    """The counters of all sources, over all processes. The parent renews them, before it forks."""

    def __init__(self, sources: Iterable[Source], rows: int) -> None:
        self._rows = rows
        self._since = time.time()
        self._counts: dict[str, SharedCounters] = {}
        self.renew(sources)

    def renew(self, sources: Iterable[Source]) -> None:
        """Settings and secrets were read anew: these are the sources from now on."""
        self._loaded = time.time()
        self._sources = {source.name: source for source in sources}
        self._uses = {name: SharedCounters((_USED,), self._rows) for name in self._sources}
        for name in self._sources:
            if name not in self._counts:
                instruments = (_PINGS, _CHALLENGES, _REFUSED, _UNREAD, _LAST_PING, _SKEW, _REFUSED_SKEW, _MAX_SKEW)
                self._counts[name] = SharedCounters(instruments, self._rows)

    def row(self, index: int) -> dict[str, SourceCounters]:
        """The counters of one process, by source."""
        return {
            name: SourceCounters(self._counts[name].row(index), self._uses[name].row(index)) for name in self._sources
        }

    def report(self) -> SourcesReport:
        """All of them now."""
        now = time.time()
        found = {name: self._report(source, now) for name, source in self._sources.items()}
        return SourcesReport(since=self._since, loaded=self._loaded, sources=found)

    def _report(self, source: Source, now: float) -> SourceReport:
        counts = self._counts[source.name]
        (pings,), (challenges,), (unread,) = (counts.total(each) for each in (_PINGS, _CHALLENGES, _UNREAD))
        refused = zip(_REFUSED.values, counts.total(_REFUSED), strict=True)
        skew = counts.latest(_SKEW)
        (last_ping,), (max_skew,) = counts.peaks(_LAST_PING), counts.peaks(_MAX_SKEW)
        used = self._uses[source.name].peaks(_USED)[: source.secrets]
        return SourceReport(
            kind=source.kind,
            pings=int(pings),
            challenges=int(challenges),
            refused={reason: int(number) for reason, number in refused if number},
            unread_labels=int(unread),
            last_ping=_age(last_ping, now),
            skew=skew,
            max_skew=None if skew is None else max_skew,
            refused_skew=counts.latest(_REFUSED_SKEW),
            secrets=tuple(_age(at, now) for at in used),
        )

    def gauges(self) -> GaugeValues:
        """The same for Prometheus, with labels that the settings bound: sources, kinds, reasons, lines."""
        found: GaugeValues = {}
        for gauge, labels, number in self._numbers():
            found.setdefault(gauge, {})[labels] = number
        return found

    def _numbers(self) -> Iterator[tuple[Gauge, tuple[str, ...], float]]:
        for name, told in self.report().sources.items():
            labels = (name, told.kind)
            yield _COUNTED[_PINGS], labels, told.pings
            yield _COUNTED[_CHALLENGES], labels, told.challenges
            yield _COUNTED[_UNREAD], labels, told.unread_labels
            for reason, number in told.refused.items():
                yield _REFUSALS, (*labels, reason), number
            if told.last_ping is not None:
                yield _AGE, labels, told.last_ping
            if told.skew is not None:
                yield _SKEWS, labels, told.skew
            for line, age in enumerate(told.secrets, 1):
                if age is not None:
                    yield _IDLE, (*labels, str(line)), age


def _age(at: float, now: float) -> float | None:
    return max(0.0, now - at) if at else None
