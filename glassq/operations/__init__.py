"""What an operator sees and does on a running system, as values. The terminal and the console are two faces of it.

Nothing here parses options, asks, prints, draws or handles signals. An operation is a module with a few functions:

1. The face makes an `Operations` for the settings and the actor, and reads its options or form into a Selection (ids,
   a Filter, or everything). A request that cannot be right raises InvalidRequest there and then.
2. A view is one function: `rows(operations, queue, ...)` looks and returns frozen values, masked. `document()` of such
   a value is what `--json` prints and what a page's JSON is.
3. A change is two functions, so that a face can ask in between:
   `plan(operations, queue, selection, progress) -> Plan` looks and changes nothing. The plan is a fixed list.
   `carry_out(operations, queue, plan, progress) -> Report` looks at each job again and acts on those that are still as
   they were planned. It returns its report whatever ends it: `Report.error` says what did.
   A dry run is `plan.preview()`, a report of what would be done.
4. Whatever takes long tells a Progress how far it is, and waits by `Progress.wait`. Steps that must not be torn apart
   stand in `with progress.defer_signals()`. Every call of a Progress may raise Stopped.
5. Errors are those of errors.py: InvalidRequest, NotFound, Ambiguous, Conflict, Unsupported, beside QueueError,
   LedgerError and SettingsError. A command of ours stands in any text as `glassq ...`, in backquotes; the face
   adapts it.
6. Before it acts, an operation asks the engine's capabilities (see `find.require_lists`).

`queue` is an Inspector, from `with operations.queue() as queue`. References of jobs are opaque strings.
"""

from __future__ import annotations

from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from glassq.errors import BodyError, LedgerError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from glassq.bodies import BodyStore
    from glassq.delivery import Delivery
    from glassq.ledger import Entry
    from glassq.ledger.reader import LedgerReader
    from glassq.operations.activity import Activities
    from glassq.operations.corrector import Corrector
    from glassq.operations.progress import Progress
    from glassq.queues.base import Inspector, Producer
    from glassq.settings import LedgerSettings, Settings


# So many entries of an operation wait for the ledger at most, and so long it waits for them, in seconds.
MAX_BEHIND, LEDGER_PATIENCE = 1_000, 30.0


def _connect(settings: Settings) -> Inspector:
    from glassq.queues import open_inspector

    return open_inspector(settings)


def _produce(settings: Settings) -> Producer:
    from glassq.queues import open_producer

    return open_producer(settings)


def _open_ledger(settings: LedgerSettings) -> LedgerReader:
    # the reader is not needed by every command
    from glassq.ledger.reader import LedgerReader

    return LedgerReader(settings)


class Operations:
    """One installation, as its operators reach it. Everything is opened when it is needed."""

    def __init__(
        self,
        settings: Settings,
        *,
        actor: str,
        via: str = "cli",
        confined: bool = False,
        connect: Callable[[Settings], Inspector] = _connect,
        produce: Callable[[Settings], Producer] = _produce,
        open_ledger: Callable[[LedgerSettings], LedgerReader] = _open_ledger,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        known_buried: Callable[[str], Mapping[str, str]] = lambda _: {},
    ) -> None:
        """`actor` is the operator's name, for evidence and ledger, and `via` the face ("cli", "console").

        `confined`: this process sees neither secrets nor the network, so nothing that needs them is looked at. `clock`
        tells the time in UTC. `known_buried` has the ids of buried deliveries that begin so, with the references of
        their jobs, some of them where they are many: for who keeps a census.
        """
        self.settings = settings
        self.actor = actor
        self.via = via
        self.confined = confined
        self.clock = clock
        self.known_buried = known_buried
        self._connect = connect
        self._produce = produce
        self._open_ledger = open_ledger

    @property
    def tube(self) -> str:
        """The tube of pings. Those of push queues begin with its name."""
        return self.settings.queue.tube

    def queue(self) -> closing[Inspector]:
        """`with operations.queue() as queue:`; it connects at its first call."""
        return closing(self._connect(self.settings))

    def looking(self) -> closing[Inspector]:
        """The same for who changes nothing: a server that takes no writes may answer, where no other is there."""
        inspector = self._connect(self.settings)
        inspector.only_looks()
        return closing(inspector)

    @cached_property
    def metered(self) -> bool:
        """Whether the engine counts each look at the queue (`Capabilities.metered`)."""
        try:
            with self.queue() as queue:
                return queue.capabilities.metered
        except SettingsError:
            # whoever looks is told
            return False

    def producer(self) -> closing[Producer]:
        """`with operations.producer() as producer:` puts new deliveries; it connects at its first call."""
        return closing(self._produce(self.settings))

    @cached_property
    def bodies(self) -> BodyStore:
        """The store of large bodies. Its calls raise BodyError."""
        from glassq.bodies import open_bodies

        return open_bodies(self.settings)

    def delete_body(self, delivery: Delivery | str | None) -> None:
        """The delivery is gone for good, and what it has stored as well. What cannot be removed is swept in time."""
        keys = [delivery] if isinstance(delivery, str) else delivery.stored_keys if delivery is not None else []
        for key in keys:
            with suppress(BodyError):
                self.bodies.delete(key)

    def ledger(self) -> LedgerReader:
        """`with operations.ledger() as ledger:`. Raises LedgerError and SettingsError where it cannot be read."""
        return self._open_ledger(self.settings.ledger)

    def activities(self, progress: Progress) -> Activities:
        """What records who did what. See there."""
        from glassq.operations.activity import Activities

        return Activities(self, progress)

    @contextmanager
    def corrector(self, progress: Progress) -> Iterator[Corrector]:
        """What notes in the ledger that jobs moved or went; a ledger that is not there gets no notes."""
        from glassq.ledger.corrections import Corrections
        from glassq.operations.corrector import Corrector

        try:
            with self.ledger() as ledger:
                absent = ledger.absent
        except (LedgerError, SettingsError):
            # the first note says why
            absent = ""
        if absent:
            yield Corrector(None, progress)
            return
        with Corrections(self.settings.ledger) as corrections:
            corrector = Corrector(corrections, progress)
            try:
                yield corrector
            finally:
                corrector.write()

    @contextmanager
    def recorder(self, progress: Progress) -> Iterator[Callable[[Entry], None]]:
        """What records an entry in the ledger. Where that cannot be written, it warns once and records nothing.

        A ledger that is not there is not made: it would be the operator's, and the pool could not write it.
        """
        from glassq.database.engine import write_problem
        from glassq.ledger import open_ledger
        from glassq.ledger.schema import NEEDS

        try:
            problem = str(write_problem(self.settings.ledger.url, "[ledger] url", NEEDS) or "")
        except SettingsError as error:
            problem = str(error)
        if problem:
            progress.warn(f"`glassq show` will not know of this: {problem}")
            yield lambda _: None
            return
        ledger = open_ledger(self.settings.ledger)

        def record(entry: Entry) -> None:
            # The ledger forgets what it cannot write in time, as the pool must go on; an operator can wait.
            ledger.catch_up(MAX_BEHIND, within=LEDGER_PATIENCE)
            ledger.record(entry)

        try:
            yield record
            ledger.catch_up(0, within=LEDGER_PATIENCE)
        finally:
            ledger.close()
