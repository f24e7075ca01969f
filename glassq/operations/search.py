"""Finds deliveries by whatever an operator knows: an id or its beginning, a job, a task's name, a user, words.

Without words it lists what is of a state, source or tube. It looks where it is quick first, and stops at a stated time.
It always says what it looked at. Words are looked for in what people may see: a secret that is masked is not found by
its letters.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from glassq.causes import reason
from glassq.errors import JobNotFound, LedgerError, QueueError, SearchIncomplete, SettingsError
from glassq.mask import MAX_LINE, masked_body, masked_texts
from glassq.operations.filters import has_words
from glassq.operations.find import MIN_PREFIX, found_in, is_ours, our_tubes, sees_all
from glassq.operations.follow import said
from glassq.operations.words import deliveries, span
from glassq.queues.base import ALL_STATES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.ledger.entry import Entry
    from glassq.ledger.figures import Content
    from glassq.operations import Operations
    from glassq.operations.census_view import CensusView
    from glassq.operations.find import Found
    from glassq.operations.groups import Group
    from glassq.operations.progress import Progress
    from glassq.queues.base import Inspector, State

# For how long it looks, in seconds, and for how much longer when somebody goes on; of what time, if none is given.
WITHIN, GO_ON, MAX_WITHIN = 2.0, 5, 50.0
SINCE = timedelta(hours=24)
# So many are shown.
MAX_HITS = 100
# A shorter text is in nearly everything.
MIN_WORDS = 2
# What waits, or is worked: the ledger has another word for it, or none.
_UNTRIED = frozenset({"ready", "delayed", "reserved"})
_ID = re.compile(r"[0-9a-fA-F-]+")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for: `text` ("": all that is narrowed to). `state`, `source` and `tube` narrow it ("": any).

    The times are those of the last outcome.
    """

    text: str
    since: datetime
    until: datetime | None = None
    state: str = ""
    source: str = ""
    tube: str = ""
    within: float = WITHIN

    @property
    def states(self) -> frozenset[State]:
        """The states of jobs in which it may be: none of those that the ledger alone knows, such as "done"."""
        return frozenset(state for state in ALL_STATES if self.state in ("", state))

    @property
    def in_ledger(self) -> bool:
        """Whether the ledger may know it: what waits for its first attempt it does not."""
        return self.state not in _UNTRIED

    def fits(self, state: str, source: str, tube: str) -> bool:
        """Whether a delivery is of the kind that is wanted."""
        own = ((self.state, state), (self.source, source), (self.tube, tube))
        return all(wanted in ("", found) for wanted, found in own)


@dataclass(frozen=True, slots=True)
class Hit:
    """One delivery. `key` is its id, or a job's reference where that is damaged; `where` says in what the words are."""

    key: str
    state: str
    source: str
    tube: str
    at: datetime | None
    where: str
    excerpt: str


@dataclass(slots=True)
class Findings:
    """What was found. `looked` says at what it was looked, a line each; `more`: a longer search may find more."""

    hits: list[Hit] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)
    more: bool = False

    @property
    def only(self) -> str:
        """The one hit's key, if it was found by its name; else ""."""
        named = [hit.key for hit in self.hits if hit.where in ("id", "job")]
        return named[0] if len(named) == len(self.hits) == 1 and not self.more else ""

    @property
    def full(self) -> bool:
        """Whether no more can be shown."""
        return len(self.hits) >= MAX_HITS

    def add(self, hit: Hit) -> None:
        """One more, unless it is there already."""
        if not self.full and all(hit.key != other.key for other in self.hits):
            self.hits.append(hit)

    def document(self) -> dict[str, object]:
        """The findings for JSON."""
        hits = [{name: getattr(hit, name) for name in Hit.__slots__} for hit in self.hits]
        groups = [group.document() for group in self.groups]
        return {"hits": hits, "groups": groups, "looked": self.looked, "more": self.more}


def search(
    operations: Operations, queue: Inspector, census: CensusView, wanted: Wanted, progress: Progress
) -> Findings:
    """Looks for it, for `wanted.within` seconds at most. Raises Stopped; what cannot be looked at is told."""
    findings, deadline = Findings(), time.monotonic() + wanted.within
    text = wanted.text.strip()
    if text:
        _by_name(operations, queue, census, text, findings)
        if findings.only or len(text) < MIN_WORDS:
            return findings
        findings.groups = [group for group in census.groups if has_words(group.words, text)]
        if census.groups:
            findings.looked.append(f"causes of what is buried: all {len(census.groups)}")
    # what is done is in the ledger alone; what has never been tried in the queue alone
    if wanted.in_ledger:
        _in_ledger(operations, wanted, text, findings, deadline - wanted.within / 2, progress)
    if wanted.states:
        _in_queue(operations, queue, wanted, text, findings, deadline, progress)
    return findings


# -- by name -----------------------------------------------------------------------------------------------------------


def _by_name(operations: Operations, queue: Inspector, census: CensusView, text: str, findings: Findings) -> None:
    """A job's reference, a delivery's id, or its beginning."""
    if queue.is_ref(text):
        try:
            found = found_in(operations, queue.get(text))
            if is_ours(operations.tube, found.tube):
                findings.add(_hit(found, "job", found.reason if found.is_buried else ""))
        except JobNotFound:
            findings.looked.append(f"the queue has no job {text}")
        except QueueError as error:
            findings.looked.append(f"the queue cannot be looked at: {error}")
    if not (prefix := _prefix(text)):
        return
    try:
        with operations.ledger() as ledger:
            entries = ledger.find(prefix, MAX_HITS)
    except (LedgerError, SettingsError):
        # it is told by the search for words
        entries = []
    for entry in entries:
        findings.add(_recorded(entry))
    for buried in census.beginning(prefix, MAX_HITS):
        words = buried.cause.words
        findings.add(Hit(buried.delivery, "buried", buried.source, buried.tube, buried.failed_at, "id", words))
    findings.looked.append(f"ids that begin with {prefix}: all of the ledger and of what is buried")


def _prefix(text: str) -> str:
    """The text as the beginning of an id; "" where it can be none."""
    prefix = text.lower()
    return prefix if len(prefix) >= MIN_PREFIX and _ID.fullmatch(prefix) else ""


def _recorded(entry: Entry) -> Hit:
    return Hit(entry.delivery, entry.state, entry.source, entry.tube, entry.updated, "id", said(entry)[:MAX_LINE])


# -- by words ----------------------------------------------------------------------------------------------------------


def _in_ledger(
    operations: Operations, wanted: Wanted, text: str, findings: Findings, deadline: float, progress: Progress
) -> None:
    looked, last = 0, None
    try:
        with operations.ledger() as ledger:
            if ledger.absent:
                findings.looked.append(ledger.absent)
                return
            for looked, content in enumerate(ledger.contents(wanted.since, wanted.until), 1):
                last = content.updated
                if looked % 500 == 0:
                    progress.advance(looked, 0, "looking at the ledger")
                    if time.monotonic() > deadline or findings.full:
                        findings.more = True
                        break
                if not wanted.fits(content.state, content.source, content.tube):
                    continue
                if (place := _words_in_content(content, text)) is not None:
                    state, source, tube, at = content.state, content.source, content.tube, content.updated
                    findings.add(Hit(content.delivery, state, source, tube, at, *place))
    except (LedgerError, SettingsError) as error:
        findings.looked.append(f"the ledger cannot be read: {error}")
        return
    back = span((operations.clock() - (last if findings.more and last else wanted.since)).total_seconds())
    whole = "" if findings.more else ", whole"
    findings.looked.append(f"ledger: the last {back}{whole} ({deliveries(looked)}, with bodies that it keeps)")


def _words_in_content(content: Content, text: str) -> tuple[str, str] | None:
    """Where the words are, and the masked text around them; None where they are not.

    Without words: what is said of it.
    """
    if not text:
        return "", reason(content.reason or content.result)[:MAX_LINE]
    labels = json.loads(content.labels) if content.labels else {}
    return _words_in(text, content.reason, content.result, labels, content.body)


def _words_in(text: str, why: str, result: str, labels: dict[str, str], body: bytes) -> tuple[str, str] | None:
    # Never the plain text first: who asks could tell by the time that words are there, and so guess what is masked.
    for where, plain in (("reason", why), ("result", result)):
        if plain and has_words(masked := reason(plain), text):
            return where, _around(masked, text)
    for name, masked in masked_texts(labels).items() if labels else ():
        if has_words(masked, text):
            return f"label {name}", _around(masked, text)
    if body and has_words(masked := _flat(masked_body(body)), text):
        return "body", _around(masked, text)
    return None


def _in_queue(
    operations: Operations,
    queue: Inspector,
    wanted: Wanted,
    text: str,
    findings: Findings,
    deadline: float,
    progress: Progress,
) -> None:
    """Jobs of ours, newest first: with the ids and the bodies that the ledger has not yet."""
    looked, total, over = 0, 0, False
    prefix = _prefix(text)
    try:
        tubes = [wanted.tube] if wanted.tube and is_ours(operations.tube, wanted.tube) else our_tubes(operations, queue)
        total = sum(getattr(counts, state) for counts in queue.counts(tubes) for state in wanted.states)
        for found in _jobs(operations, queue, wanted.states, tubes, deadline, progress):
            looked += 1
            over = time.monotonic() > deadline or findings.full
            if over:
                break
            if wanted.fits(found.job.state, found.source, found.tube) and found.delivery is not None:
                place = _words_in_job(found, text)
                if prefix and found.name.startswith(prefix):
                    place = "id", found.reason if found.is_buried else ""
                if place is not None:
                    findings.add(_hit(found, *place))
    except TimeoutError:
        over = True
    except SearchIncomplete as error:
        findings.looked.append(str(error))
    except QueueError as error:
        findings.looked.append(f"the queue cannot be looked at: {error}")
        return
    findings.more = findings.more or (over and looked < total)
    seen = f"{looked:,} of {total:,} jobs in {wanted.within:g} s" if over else f"all {looked:,} jobs that it shows"
    unseen = "" if sees_all(queue) else f"; {queue.capabilities.unseen}"
    findings.looked.append(f"queue: {seen}{unseen}")


def _words_in_job(found: Found, text: str) -> tuple[str, str] | None:
    """The same of a job."""
    if not text:
        return "", found.reason
    body = found.delivery.body if found.delivery else b""
    return _words_in(text, found.reason, "", dict(found.labels), body)


def _jobs(
    operations: Operations,
    queue: Inspector,
    states: frozenset[State],
    tubes: list[str],
    deadline: float,
    progress: Progress,
) -> Iterator[Found]:
    """The jobs of these tubes. Raises TimeoutError between two of them, as a search may look at many others."""

    def advance(looked: int, total: int) -> None:
        progress.advance(looked, total, "looking at jobs")
        if time.monotonic() > deadline:
            raise TimeoutError

    for job in queue.find(states & queue.capabilities.lists, tubes, progress=advance):
        yield found_in(operations, job)


def _hit(found: Found, where: str, excerpt: str) -> Hit:
    at = found.failed_at
    return Hit(found.name or found.ref, found.job.state, found.source, found.tube, at, where, excerpt[:MAX_LINE])


def _flat(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _around(text: str, words: str) -> str:
    """The part of the text with the first of the words."""
    at = max(0, text.casefold().find(words.casefold().split()[0]) - MAX_LINE // 3)
    return f"{'… ' if at else ''}{' '.join(text[at : at + MAX_LINE].split())}"
