"""What the syncer tells of itself, what of it is wrong, and what to do about it: for status, doctor and the metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.errors import QueueError
from glassq.queues.base import EngineGauge, Fact
from glassq.queues.beanstalk.process import WITHOUT_SYNCER, only_sometimes, sync_interval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.queues.beanstalk.connection import BeanstalkConnection
    from glassq.queues.beanstalk.prover import Prover
    from glassq.values import QueueUrl

# The syncer tells its status at once, in seconds.
_WITHIN = 1.0
# Its key in the syncer's status, and what it means. All count since the syncer's start.
_GAUGES = {
    "rounds": "Rounds of the syncer; each answers all who asked before it began.",
    "failed": "Rounds of the syncer that proved nothing.",
    "asked": "Questions that the syncer has answered.",
    "seconds": "The time that all rounds of the syncer took, in seconds.",
    "kept": "Links by which the syncer keeps binlog files until their copies are on disk.",
    "spare": "Links whose file beanstalkd has removed already.",
    "gaps": "Binlog files that came and went unseen, or that are not beanstalkd's.",
    "refusing": "1 if the syncer proves nothing until beanstalkd is restarted, because a write or sync has failed.",
}
_START = "start it (systemctl restart glassq-syncer; journalctl -u glassq-syncer says why it ended)"
_WITHOUT = 'or, where beanstalkd runs with -f0 and without one, [queue] syncer = "none"'
_RESTART = (
    "make room on its disk, or replace it, then restart beanstalkd: what was acknowledged is on disk or in the journal"
)


# The syncer's status, the error by which it does not tell it, or None where there is no syncer.
Told = Mapping[str, object] | QueueError | None


def gauges(status: Told) -> Iterator[EngineGauge]:
    """The syncer's own metrics; none where there is no syncer."""
    if status is None:
        return
    yield EngineGauge("glassq_syncer_up", "1 if the syncer answers.", 0.0 if isinstance(status, QueueError) else 1.0)
    if not isinstance(status, QueueError):
        for key, help_ in _GAUGES.items():
            yield EngineGauge(f"glassq_syncer_{key}", help_, _number(status, key))


def unproven(status: Told) -> str:
    """Why the syncer proves nothing now; "" if it does, or if there is none."""
    if isinstance(status, QueueError):
        return str(status)
    if status and status.get("refusing"):
        return f"{status.get('reason')}: restart beanstalkd"
    return str(status.get("trouble", "")) if status else ""


def facts(connection: BeanstalkConnection, prover: Prover | None, url: QueueUrl, *, thorough: bool) -> Iterator[Fact]:
    """The syncer's troubles; with `thorough` also how it does, or that there is none."""
    interval = sync_interval(connection.stats(), url)
    status = told(connection, prover)
    if status is None:
        yield from _no_syncer(interval, thorough=thorough)
    elif isinstance(status, QueueError):
        said = f"{status}: nothing is proven, pings go to the journal, and the pool gives back what it would put anew"
        yield Fact("syncer", False, said, f"{_START}; {_WITHOUT}")
    elif status.get("refusing"):
        yield Fact(
            "syncer", False, f"it proves nothing until beanstalkd is restarted: {status.get('reason')}", _RESTART
        )
    elif trouble := status.get("trouble"):
        yield Fact("syncer", False, f"it proves nothing now: {trouble}", "look at beanstalkd's log and at its disk")
    elif thorough:
        yield Fact("syncer", True, _how_it_does(status))
        if interval == 0:
            said = "beanstalkd syncs each command by itself (-f0), although the syncer does it for all at once"
            yield Fact("syncer", None, said, "for speed start it with -f1000, as glassq-beanstalkd.service does")


def _no_syncer(interval: int | None, *, thorough: bool) -> Iterator[Fact]:
    if interval:
        yield Fact("syncer", False, only_sometimes(interval), WITHOUT_SYNCER)
    elif thorough:
        said = "there is none: beanstalkd must run with -f0, and cannot see some faults of its disk"
        yield Fact("syncer", None, said, "docs/installing.md says which; on its own machine glassq-syncer sees them")


def _how_it_does(status: Mapping[str, object]) -> str:
    rounds, asked = _number(status, "rounds"), _number(status, "asked")
    said = f"it proves what is on disk: {rounds:.0f} rounds"
    if rounds:
        said += f" of {_number(status, 'seconds') / rounds * 1000:.1f} ms, {asked / rounds:.1f} requests in each"
    kept = _number(status, "kept")
    said += f"; {kept:.0f} file{'' if kept == 1 else 's'} kept by a link"
    if gaps := _number(status, "gaps"):
        said += f"; {gaps:.0f} came and went unseen, or are not beanstalkd's"
    return said


def told(connection: BeanstalkConnection, prover: Prover | None) -> Told:
    """What the syncer tells. The trouble of its last round may be over: it is then asked for a proof first."""
    if prover is None:
        return None
    try:
        status = prover.status(deadline=time.monotonic() + _WITHIN)
        if status.get("trouble") and not status.get("refusing"):
            with suppress(QueueError):
                prover.prove(connection.server_id(), deadline=time.monotonic() + _WITHIN)
            status = prover.status(deadline=time.monotonic() + _WITHIN)
    except QueueError as error:
        return error
    return status


def _number(status: Mapping[str, object], key: str) -> float:
    value = status.get(key)
    return float(value) if isinstance(value, int | float) else 0.0
