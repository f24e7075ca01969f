"""Summarises the outcomes of a crowd's pings: looks for each on disk, among the buried deliveries, in the ledger."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import msgspec

from glassq import delivery as envelope
from glassq.errors import DamagedDelivery, LedgerError, SettingsError, StackError
from glassq.glass import names
from glassq.ledger.reader import LedgerReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from glassq.dev.simulator.crowd import Planned
    from glassq.queues import Inspector
    from glassq.settings import Settings

# The outcome of a ping. "duplicate": it repeats an earlier ping, and was handled too; "unanswered": not acknowledged.
Fate = Literal["stored", "duplicate", "dropped", "buried", "refused", "unanswered", "lost"]


@dataclass(slots=True)
class Summary:
    """The number of pings `sent`, and the number of pings by outcome (`fates`). Times are in seconds.

    `lost` has a text for each lost ping.
    """

    sent: int = 0
    fates: Counter[Fate] = field(default_factory=Counter)
    ack_times: list[float] = field(default_factory=list)
    stored_files: int = 0
    stored_bytes: int = 0
    retried: int = 0
    lost: list[str] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """A quantile of the acknowledgement times, such as 0.99."""
        times = sorted(self.ack_times)
        return times[min(len(times) - 1, int(share * len(times)))] if times else 0.0


@dataclass(slots=True)
class RecordedOutcomes:
    """The outcomes in queue and ledger: `buried` items, final `states` by item, the number of `retried` deliveries."""

    buried: set[str] = field(default_factory=set)
    states: dict[str, list[str]] = field(default_factory=dict)
    retried: int = 0


def summarise(planned: Iterable[Planned], settings: Settings, queue: Inspector) -> Summary:
    """The summary of the planned pings. Raises StackError if the ledger cannot be read."""
    found, record, photos = Summary(), _read(settings, queue), settings.storage.url.directory
    assert photos is not None, "a demo stores in a directory"
    found.retried = record.retried
    for ping in planned:
        if not ping.results:
            continue
        found.sent += 1
        fate, why = _fate(ping, record, photos)
        found.fates[fate] += 1
        if ping.acknowledged:
            found.ack_times.append(ping.results[-1].seconds)
        if why:
            found.lost.append(why)
        if fate == "stored":
            found.stored_files += len(ping.files)
            found.stored_bytes += sum(len(file.data) for file in ping.files)
    return found


def item_of(body: bytes) -> str:
    """The id of the item that a ping names; "" if it names none."""
    try:
        return str(msgspec.json.decode(body)["itemId"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return ""


def _fate(ping: Planned, record: RecordedOutcomes, photos: Path) -> tuple[Fate, str]:
    """The outcome of a ping that was sent, and the reason if it is lost."""
    assert ping.item is not None
    if not ping.acknowledged:
        refused = 400 <= ping.results[-1].statuses[-1] < 500
        return ("refused" if refused else "unanswered"), ""
    item = ping.item.id
    states = record.states.get(item, [])
    if item in record.buried:
        return "buried", ""
    if ping.is_repeat:
        # the ledger has one entry for each of the two
        return ("duplicate", "") if len(states) > 1 else ("lost", f"item {item}: its second ping has no outcome")
    if ping.expected == "stored":
        missing = ", ".join(_missing(ping, photos))
        return ("lost", missing) if missing else ("stored", "")
    if ping.expected == "dropped" and "dropped" in states:
        return "dropped", ""
    return "lost", f"item {item} is not {ping.expected}"


def _missing(ping: Planned, photos: Path) -> Iterator[str]:
    """The differences between a shared item's files and those on disk."""
    assert ping.item is not None
    for number, file in enumerate(ping.files):
        name = names.object_name(ping.user, ping.item.id, file.id if number else None, file.content_type)
        try:
            if (photos / name).read_bytes() != file.data:
                yield f"{name} differs from what was shared"
        except OSError:
            yield f"{name} is not stored"


def _read(settings: Settings, queue: Inspector) -> RecordedOutcomes:
    record = RecordedOutcomes()
    for job in queue.find(frozenset({"buried"}), [settings.queue.tube]):
        with suppress(DamagedDelivery):
            record.buried.add(item_of(envelope.decode(job.body).body))
    try:
        with LedgerReader(settings.ledger) as reader:
            for entry in reader.recent(1_000_000):
                record.retried += entry.attempts > 1
                content = reader.recorded_ping(entry.delivery)
                if content is not None:
                    record.states.setdefault(item_of(content.body), []).append(entry.state)
    except (LedgerError, SettingsError) as error:
        raise StackError(f"the ledger cannot be read: {error}") from error
    return record
