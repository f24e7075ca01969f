"""Which job an operator means, and which jobs fit a filter.

A job's reference is direct. A delivery's id is looked up in the ledger, which knows the delivery's latest job; but
references are given again after a restart, so the job itself must say which delivery it holds. What the ledger cannot
answer, a search of the queue can.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from glassq.causes import reason
from glassq.delivery import Delivery, decode
from glassq.errors import (
    Ambiguous,
    DamagedDelivery,
    InvalidRequest,
    JobNotFound,
    LedgerError,
    NotFound,
    NotInOurTubes,
    SearchIncomplete,
    SettingsError,
    Unseen,
    Unsupported,
)
from glassq.mask import masked_text
from glassq.operations.hints import argument
from glassq.operations.words import moment
from glassq.push.request import tube_of
from glassq.queues.base import ALL_STATES, WAITING_STATES
from glassq.queues.key import is_delivery_id
from glassq.settings import parking_tube, pool_prefixes
from glassq.values import Tube

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from glassq.causes import Cause
    from glassq.ledger import Entry
    from glassq.operations import Operations
    from glassq.operations.filters import Filter
    from glassq.operations.progress import Progress
    from glassq.queues.base import Inspector, Job, State
    from glassq.settings import Route

BURIED: frozenset[State] = frozenset({"buried"})
WAITING: frozenset[State] = frozenset(WAITING_STATES)
# The states of the ledger's entries whose deliveries the queue still holds.
OPEN = ("buried", "retrying")
# A shorter prefix is a slip of the finger: eight digits of our ids are a minute.
MIN_PREFIX = 8
# After so many jobs it is asked whether a search is to go on.
LOOKS = 100
# So many candidates of an ambiguous prefix are named.
MAX_CANDIDATES = 10


@dataclass(frozen=True, slots=True)
class Found:
    """One job and the delivery in it; `damage` says why there is none. `routes` are those of the settings."""

    job: Job
    delivery: Delivery | None
    damage: str = ""
    routes: tuple[Route, ...] = ()

    @property
    def ref(self) -> str:
        """The job's reference."""
        return self.job.ref

    @property
    def tube(self) -> str:
        """The tube that the job is in."""
        return self.job.tube

    @property
    def is_buried(self) -> bool:
        """Whether it waits for an operator."""
        return self.job.state == "buried"

    @property
    def name(self) -> str:
        """The delivery's id; "" where the job is damaged."""
        return self.delivery.id if self.delivery else ""

    @property
    def age(self) -> float:
        """Seconds since the ping was taken; of a damaged job, since it was put."""
        return self.delivery.age() if self.delivery else self.job.age

    @property
    def source(self) -> str:
        """Who sent the ping; "" where the job is damaged."""
        return self.delivery.source if self.delivery else ""

    @property
    def labels(self) -> Mapping[str, str]:
        """The delivery's labels, as they are."""
        return self.delivery.labels if self.delivery else {}

    @property
    def result(self) -> str:
        """What its handler returned: nothing, as it is not over."""
        return ""

    @property
    def reason(self) -> str:
        """Why it is buried, or failed last, as far as it says so itself; masked."""
        if self.delivery is None:
            return self.damage
        if self.delivery.buried or not self.delivery.evidence:
            return reason(self.delivery.buried) or "not by glassq: it says no reason"
        return masked_text(self.delivery.evidence[-1].message)

    @property
    def error(self) -> str:
        """The type of the last error; "" where there was none."""
        return self.delivery.evidence[-1].error if self.delivery and self.delivery.evidence else ""

    @property
    def failed_at(self) -> datetime | None:
        """When it failed last; where it has no evidence, when it was received."""
        if self.delivery is None:
            return None
        return self.delivery.evidence[-1].at if self.delivery.evidence else self.delivery.received

    @property
    def buried_at(self) -> datetime | None:
        """When it was buried, as far as it says so itself."""
        marked = self.delivery is not None and bool(self.delivery.buried and self.delivery.evidence)
        return self.failed_at if marked and self.is_buried else None

    @property
    def route(self) -> Route | None:
        """The route that works it in a pool with these settings; None where no route matches."""
        return next((route for route in self.routes if route.wants(self.source, self.labels)), None)

    @property
    def handler(self) -> str:
        """The handler of that route, as the settings name it; "" where no route matches."""
        return self.route.work if self.route else ""

    @property
    def cause(self) -> Cause:
        """Why it failed last."""
        # its many patterns take a while to compile
        from glassq.causes import cause_of

        return cause_of(self.delivery, self.damage)


def found_in(operations: Operations, job: Job) -> Found:
    """The job with what can be read in it."""
    # what most views do not ask
    from glassq.routes import all_routes

    routes = all_routes(operations.settings)
    try:
        return Found(job, decode(job.body), "", routes)
    except DamagedDelivery as error:
        return Found(job, None, str(error), routes)


def look(operations: Operations, queue: Inspector, ref: str) -> Found:
    """The job of a reference. Raises JobNotFound."""
    try:
        return found_in(operations, queue.get(ref))
    except JobNotFound:
        raise JobNotFound(f"there is no job {ref}") from None


def require_lists(queue: Inspector, states: Iterable[State]) -> None:
    """Raises Unsupported where the engine cannot show jobs of one of these states: it says what works."""
    for state in sorted(frozenset(states) - queue.capabilities.lists):
        raise Unsupported(queue.capabilities.unseen or f"{queue.engine} cannot show a delivery that {_STATES[state]}")


_STATES = {"ready": "waits", "delayed": "waits for its time", "reserved": "is being worked", "buried": "is buried"}


def sees_all(queue: Inspector) -> bool:
    """Whether the engine can show every job."""
    return queue.capabilities.lists >= ALL_STATES


# -- tubes -------------------------------------------------------------------------------------------------------------


def checked_tube(name: str, text: str) -> str:
    """The name of a tube, whether it exists or not. Raises InvalidRequest, which names the option or field."""
    try:
        return Tube(text)
    except ValueError as error:
        raise InvalidRequest(f"{name} {text}: {error}") from None


def is_ours(main: str, tube: str) -> bool:
    """Whether it is the `main` tube, that of a push queue, a queue or a route, or one in which theirs are parked."""
    if tube == main or tube.startswith((tube_of(main, ""), *pool_prefixes(main))):
        return True
    return parking_tube(main, tube) is not None


def _forms(main: str) -> str:
    return f"{main}, {main}.queue.NAME, {main}.route.NAME or {main}.push.QUEUE"


def our_tubes(operations: Operations, queue: Inspector) -> list[str]:
    """The main tube, and those of other queues that exist now."""
    main = operations.tube
    return [main, *sorted(tube for tube in queue.tubes() if tube != main and is_ours(main, tube))]


def tubes_of(operations: Operations, queue: Inspector, filter_: Filter) -> list[str]:
    """The tubes that the filter allows. Raises InvalidRequest for one that is not ours."""
    if filter_.tube is None:
        return our_tubes(operations, queue)
    main = operations.tube
    if not is_ours(main, filter_.tube):
        raise InvalidRequest(f"tube {filter_.tube} is not ours: expected {_forms(main)}")
    return [filter_.tube]


def unworked(operations: Operations, tube: str) -> str:
    """Why no pool with these settings works a tube, in words; "" where one does."""
    main = operations.tube
    if not is_ours(main, tube):
        return (
            f"no pool with these settings works tube {tube}: expected {_forms(main)}. Show, kick and archive do not "
            f"look there; `glassq move --from {shlex.quote(tube)} --to {main}` brings back what is in it"
        )
    if parked := parking_tube(main, tube):
        return unworked(operations, parked.origin)
    # the pool also works queues and routes that its settings do not have any more
    if tube == main or tube.startswith(pool_prefixes(main)):
        return ""
    push = operations.settings.push
    if push is None:
        return f"no pool with these settings works tube {tube}: there is no section [push]"
    # queue.yaml takes a while to load
    from glassq.push.queue_yaml import load

    name = tube.removeprefix(tube_of(main, ""))
    try:
        planned = load(push.queue_yaml, push.targets)
    except SettingsError:
        # then nobody knows its queues
        return ""
    return "" if name in planned else f"no pool with these settings works tube {tube}: queue.yaml has no queue {name}"


# -- many jobs ---------------------------------------------------------------------------------------------------------


def walk(
    operations: Operations,
    queue: Inspector,
    states: frozenset[State],
    tubes: Sequence[str],
    progress: Progress,
    *,
    hints: Sequence[str] = (),
    wanted: Callable[[str], bool] | None = None,
) -> Iterator[Found]:
    """Every job of these tubes in these states, newest first; `hints` are references of jobs that may be such.

    Deliveries whose ids `wanted` refuses may be left out. Raises Unsupported before it looks, Stopped while it does,
    and SearchIncomplete at the end where not all could be found.
    """
    require_lists(queue, states)

    def advance(looked: int, total: int) -> None:
        progress.advance(looked, total, "looking at jobs")

    for job in queue.find(states, tubes, hints=hints, wanted=wanted, progress=advance):
        yield found_in(operations, job)


def walk_all(
    operations: Operations,
    queue: Inspector,
    tubes: Sequence[str],
    progress: Progress,
    *,
    wanted: Callable[[str], bool] | None = None,
) -> Iterator[Found]:
    """Every job of these tubes, newest first, in whatever state; `wanted` is as in `walk`. Raises as `walk`.

    Where the engine can show some of them alone, these; and Unseen at the end, if there are more.
    """
    shown = 0
    for found in walk(operations, queue, ALL_STATES & queue.capabilities.lists, tubes, progress, wanted=wanted):
        shown += 1
        yield found
    if not sees_all(queue):
        hidden = sum(counts.jobs for counts in queue.counts(tubes)) - shown
        if hidden > 0:
            why = queue.capabilities.unseen or f"{queue.engine} cannot show a delivery that {_STATES['ready']}"
            raise Unseen(why, hidden)


def buried_matching(operations: Operations, queue: Inspector, filter_: Filter, progress: Progress) -> Iterator[Found]:
    """The buried jobs of our tubes that fit, newest first; raises what `walk` and `tubes_of` raise.

    The ledger says where most of them are. Those that it does not know are searched for.
    """
    tubes = tubes_of(operations, queue, filter_)
    hints, wanted = buried_by_ledger(operations), filter_.by_id()
    return filter(filter_.fits, walk(operations, queue, BURIED, tubes, progress, hints=hints, wanted=wanted))


def waiting_matching(
    operations: Operations, queue: Inspector, filter_: Filter, tube: str, progress: Progress
) -> Iterator[Found]:
    """The jobs of this tube that fit and that nobody works now, newest first. The tube need not be ours."""
    # Without hints: they would come first, and be out of order.
    return filter(filter_.fits, walk(operations, queue, WAITING, [tube], progress, wanted=filter_.by_id()))


@dataclass(slots=True)
class Search:
    """The first `limit` jobs of a search, as they are found.

    Once it is over, `short` says why these may not be all ("": they are).
    """

    found: Iterable[Found]
    limit: int | None = None
    short: str = field(default="", init=False)

    def __iter__(self) -> Iterator[Found]:
        try:
            yield from islice(self.found, self.limit)
        except SearchIncomplete as error:
            self.short = str(error)


def buried_by_ledger(operations: Operations) -> list[str]:
    """The jobs that hold buried deliveries by the ledger; none where it cannot be read."""
    try:
        with operations.ledger() as ledger:
            return ledger.jobs("buried")
    except (LedgerError, SettingsError):
        return []


# -- one job -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Finder:
    """Finds jobs by what an operator typed; it searches the queue once at most.

    Where `progress` raises TimeoutError, what was found by then is all that it knows.
    """

    operations: Operations
    queue: Inspector
    progress: Progress
    _by_name: dict[str, str] | None = field(default=None, init=False)
    # how the ids begin of those that it has looked for
    _indexed: str = field(default="", init=False)
    # why it may be in the queue though the search did not find it
    _hidden: str = field(default="", init=False)
    # the deliveries of each task's name, which is unique within a queue only, and the tubes they are in
    _by_task: dict[str, dict[str, str]] = field(default_factory=dict, init=False)

    def find(self, text: str, *, glance: bool = False) -> Found:
        """The job of a reference, of a delivery's id, or of a prefix that one delivery in the queue has.

        With `glance` the ledger's word is enough that one delivery has a prefix, or that it has left the queue: for
        looking at it, not for deciding on it. Raises NotFound, Ambiguous, and InvalidRequest for what cannot be an id.
        """
        if self.queue.is_ref(text):
            return self._look(text)
        prefix = checked_prefix(text)
        if (glance or is_delivery_id(prefix)) and (found := self._by_ledger(prefix, glance=glance)):
            return found
        if is_delivery_id(prefix) and (found := self._by_key(prefix)):
            return found
        if found := self._by_census(prefix, glance=glance):
            return found
        index = self._index(prefix)
        names = [name for name in index if name.startswith(prefix)]
        if prefix in names:
            names = [prefix]
        if not names:
            raise self._not_found(text, prefix)
        if len(names) > 1:
            raise ambiguous(text, names)
        return self._look(index[names[0]])

    def task(self, name: str) -> Found | None:
        """The job of the task of this name; None where the queue holds none. Raises Ambiguous."""
        if our_tubes(self.operations, self.queue) == [self.operations.tube]:
            # so it is not looked for among all the pings
            return None
        index = self._index()
        tubes = self._by_task.get(name, {})
        if len(tubes) > 1:
            names = [f"{delivery} in tube {tube}" for delivery, tube in sorted(tubes.items())]
            raise Ambiguous(f"{len(tubes)} tasks have the name {name}; name one by its id", names)
        return self._look(index[next(iter(tubes))]) if tubes else None

    def _look(self, ref: str) -> Found:
        try:
            return look(self.operations, self.queue, ref)
        except JobNotFound as error:
            raise NotFound(str(error)) from None

    def _not_found(self, text: str, prefix: str) -> NotFound:
        """The error that says what the ledger knows of it, or that it may be in a tube that is not ours."""
        entries = self._entries(prefix)
        settled = any(entry.state not in OPEN or entry.replayed for entry in entries)
        if settled or self._hidden or not (elsewhere := self._elsewhere()):
            fate = f": {ledger_state(entries[0])}" if len(entries) == 1 else ""
            if self._hidden and not settled:
                fate = f"; {ledger_state(entries[0], self._hidden)}" if len(entries) == 1 else ""
                return NotFound(f"it is not among what can be seen of the queue: {self._hidden}{fate}")
            return NotFound(f"the queue holds no delivery {text}{fate or _cause_hint(prefix)}")
        lost = ""
        if len(entries) == 1:
            lost = f"; if it is in none, `glassq replay {argument(entries[0].delivery)}` puts it again"
        return NotInOurTubes(f"{text} is not in our tubes; {elsewhere}{lost}{_cause_hint(prefix)}")

    def _elsewhere(self) -> str:
        """How many jobs are in tubes of other programs, or were moved there, in words; "" for none."""
        main = self.operations.tube
        tubes = {counts.name: counts.jobs for counts in self.queue.counts() if not is_ours(main, counts.name)}
        names, total = sorted(name for name, jobs in tubes.items() if jobs), sum(tubes.values())
        if not total:
            return ""
        jobs = "1 job is" if total == 1 else f"{total} jobs are"
        named = ", ".join(names[:MAX_CANDIDATES]) + (", ..." if len(names) > MAX_CANDIDATES else "")
        return (
            f"{jobs} in tubes that no pool of these settings works ({named}): "
            f"`glassq move --from {shlex.quote(names[0])} --to {main}` brings back what is in one"
        )

    def _entries(self, prefix: str) -> list[Entry]:
        try:
            with self.operations.ledger() as ledger:
                return ledger.find(prefix)
        except (LedgerError, SettingsError):
            return []

    def _by_ledger(self, prefix: str, *, glance: bool) -> Found | None:
        entries = self._entries(prefix)
        if glance and len(entries) > 1:
            raise ambiguous(prefix, [entry.delivery for entry in entries])
        if len(entries) != 1 or not (glance or entries[0].delivery == prefix):
            return None
        [entry] = entries
        ref = ref_of(entry)
        if ref is None:
            if glance and entry.state not in OPEN:
                raise NotFound(f"the queue holds no delivery {entry.delivery}: {ledger_state(entry)}")
            return None
        with suppress(JobNotFound):
            found = look(self.operations, self.queue, ref)
            return found if found.name == entry.delivery else None
        return None

    def _by_census(self, prefix: str, *, glance: bool) -> Found | None:
        """The same by what a census knows to be buried, where there is one: it needs neither a search nor a ledger."""
        known = self.operations.known_buried(prefix)
        if glance and len(known) > 1:
            raise ambiguous(prefix, list(known))
        ref = next(iter(known.values()), None) if glance else known.get(prefix)
        with suppress(JobNotFound):
            found = look(self.operations, self.queue, ref) if ref is not None else None
            return found if found is not None and found.name in known else None
        return None

    def _by_key(self, key: str) -> Found | None:
        """The job of the delivery with this id, where the engine knows it by that, and it is in a tube of ours."""
        ref = self.queue.ref_of(key) if self.queue.capabilities.by_key else ""
        with suppress(JobNotFound):
            found = look(self.operations, self.queue, ref) if ref else None
            return found if found and found.name == key and is_ours(self.operations.tube, found.tube) else None
        return None

    def _index(self, prefix: str = "") -> dict[str, str]:
        """The newest job of every delivery in the queue, by one search, which finds the tasks' names too.

        Where the engine knows deliveries by their ids, at least of those whose ids begin so.
        """
        if self._by_name is None or not prefix.startswith(self._indexed):
            self._indexed = prefix if self.queue.capabilities.by_key else ""
            self._by_name = {}
            tubes, looked = our_tubes(self.operations, self.queue), 0
            wanted = partial(_begins, self._indexed) if self._indexed else None
            try:
                found_ones = walk_all(self.operations, self.queue, tubes, self.progress, wanted=wanted)
                for looked, found in enumerate(found_ones, 1):
                    self._by_name.setdefault(found.name, found.ref)
                    if task := found.labels.get("task"):
                        self._by_task.setdefault(task, {}).setdefault(found.name, found.tube)
                    if looked % LOOKS == 0:
                        self.progress.advance(looked, 0, "looking at jobs")
            except TimeoutError:
                jobs = sum(counts.jobs for counts in self.queue.counts(tubes))
                self._hidden = f"the newest {looked:,} of {jobs:,} jobs were looked at (`glassq show` looks at all)"
            except Unseen as error:
                self._hidden = str(error)
            except SearchIncomplete as error:
                self.progress.warn(str(error))
            self._by_name.pop("", None)
        return self._by_name


def _begins(prefix: str, key: str) -> bool:
    return key.startswith(prefix)


def ref_of(entry: Entry) -> str | None:
    """The job that holds the entry's delivery by the ledger, if any does."""
    return entry.job or None


def _cause_hint(text: str) -> str:
    """Where to look for a text that can be a cause's id, and no delivery's; "" for any other."""
    from glassq.causes import is_cause_id

    return f" (if it is the id of a cause: `glassq buried --group {text}`)" if is_cause_id(text) else ""


def ledger_state(entry: Entry, unseen: str = "") -> str:
    """What became of a delivery that is not in the queue, by the ledger.

    `unseen` says why it may be in the queue all the same, where not all of it can be seen.
    """
    if entry.state == "archived":
        file = masked_text(entry.reason)
        return f"it is archived in {file}, and `glassq restore {shlex.quote(file)}` puts it back"
    if entry.state == "deleted":
        return f"it was deleted at {moment(entry.updated)}, {masked_text(entry.reason)}"
    if entry.state not in OPEN:
        return f"it is {entry.state}"
    if entry.replayed:
        return f"it was replayed as {entry.replayed}"
    if unseen:
        return f"the ledger has it as {entry.state}, since {moment(entry.updated)}"
    return (
        f"the ledger last had it as {entry.state}, at {moment(entry.updated)}; if it still does in a moment, the queue "
        f"has lost it, and `glassq replay {argument(entry.delivery)}` puts it again"
    )


def checked_prefix(text: str) -> str:
    """A delivery's id or prefix in the form that is compared. Raises InvalidRequest."""
    prefix = text.strip().lower()
    if len(prefix) < MIN_PREFIX:
        raise InvalidRequest(
            f"{text!r} is no id: expected a job id (digits), a delivery id, or its first {MIN_PREFIX} "
            "characters or more"
        )
    return prefix


def ambiguous(text: str, names: Sequence[str]) -> Ambiguous:
    """The error where a prefix fits several deliveries."""
    # the ledger is not asked for all of them
    many = f"more than {MAX_CANDIDATES}" if len(names) > MAX_CANDIDATES else len(names)
    return Ambiguous(f"{text} is the beginning of {many} deliveries; type more of it", sorted(names)[:MAX_CANDIDATES])
