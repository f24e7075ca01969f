"""The pool's templates, for its parent: one for each generation whose children share memory (template.py).

A template that dies, hangs or cannot load is replaced with backoff, as a child is. While the template of a reload
cannot load, the old children stay. A template that has found what children cannot share ends, and the children of its
generation load for themselves.
"""

from __future__ import annotations

import itertools
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from glassq import backoff
from glassq.errors import EX_CONFIG
from glassq.log import fields, logger
from glassq.worker import processes
from glassq.worker.fork import OWN_DESCRIPTORS, fork
from glassq.worker.health import STOPPED, Health
from glassq.worker.layout import State, WorkerStatus
from glassq.worker.postmortem import how_it_ended
from glassq.worker.template import REQUEST, Born, Message, NotBorn, TemplateProcess, Unusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from glassq.worker.slots import Slot
    from glassq.worker.template import Load
    from glassq.worker.throttle import Throttle

log = logger("glassq.worker")

# A template that has not loaded, or has forked no child, is replaced with backoff; in seconds.
RESTART, RESTART_CAP = 0.1, 30.0
# A template that is not needed any more ends by itself, or is killed after this time. So long after its end the parent
# waits for births that it may have begun; they hold its pipe open. In seconds.
END_TIMEOUT, BIRTH_TIMEOUT = 5.0, 5.0

_numbers = itertools.count(1)
_message: Callable[[bytes], Message] = msgspec.json.Decoder(Message).decode


class Template:
    """One template process, as the parent sees it. Call `start` first. Times are time.monotonic()."""

    def __init__(self) -> None:
        self.pid = 0
        self.loaded = False
        #: whether it has said that it cannot use its settings or handlers
        self.refused = False
        #: the slots of the children that it has been asked for, by the number of the request
        self.asked: dict[int, Slot] = {}
        self.borne = 0
        #: whether it has been asked to end
        self.retired = False
        self._open: set[int] = set()
        self._unread = b""
        self._at_end = False
        #: since when we wait for it: for its loading, the next birth, or its end
        self._waits_since = 0.0
        #: when its process ended; 0.0: not yet
        self._ended = 0.0

    def start(self, load: Load, slots: Sequence[Slot], throttle: Throttle, now: float) -> None:
        """Forks the process. Raises OSError."""
        (requests, self._requests), (self._messages, messages) = os.pipe(), os.pipe()
        self._open = {self._requests, self._messages}
        for end in self._open:
            os.set_blocking(end, False)
            OWN_DESCRIPTORS.add(end)
        try:
            self.pid = fork(lambda: TemplateProcess(slots, throttle, requests, messages).run(load))
        except OSError:
            self.close()
            raise
        finally:
            os.close(requests)
            os.close(messages)
        self._waits_since = self._stopped_since = now
        self._health = Health(self.pid)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What becomes readable when there is something to `read`."""
        return () if self._at_end else (self._messages,)

    def ask(self, slots: Sequence[Slot], now: float) -> None:
        """Asks for a child in each of these slots."""
        if not self.asked:
            self._waits_since = now
        births = {next(_numbers): slot for slot in slots}
        self.asked.update(births)
        # If it has ended, or takes nothing more, these births stay unanswered, and are given up with it.
        with suppress(OSError):
            os.write(self._requests, b"".join(REQUEST.pack(number, slot.index) for number, slot in births.items()))

    def read(self) -> Iterator[Message]:
        """What the template and its newborn children have said since the last call."""
        while not self._at_end:
            try:
                data = os.read(self._messages, 1 << 16)
            except BlockingIOError:
                return
            self._at_end = not data
            *lines, self._unread = (self._unread + data).split(b"\n")
            for line in lines:
                # what a handler's module may have written into a descriptor that is not its own
                with suppress(msgspec.DecodeError):
                    yield _message(line)

    def born(self, number: int, now: float) -> Slot | None:
        """The slot of a child that was born; None if it was given up."""
        slot = self.asked.pop(number, None)
        if slot is not None:
            self.borne += 1
            self._waits_since = now
        return slot

    def reap(self, now: float) -> int | None:
        """How the process ended (as os.waitstatus_to_exitcode has it), once all births have ended that it had begun."""
        if not os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return None
        self._ended = self._ended or now
        # What is about to be born holds the pipe open.
        if not self._at_end and now - self._ended < BIRTH_TIMEOUT:
            return None
        # Before its pid is free: what handlers started when they were imported ends with it.
        self.kill()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def verdict(self, now: float, silence: float, max_silence: float) -> str:
        """Why it must be killed; "" if it may live. While it loads or forks, it is judged as a child that starts."""
        if self._ended:
            return ""
        if self.loaded and not self.asked and not self.retired:
            return STOPPED if self._is_stopped(now, silence) else ""
        since = self._waits_since
        if self.retired:
            return "it does not end" if now - since > END_TIMEOUT else ""
        status = WorkerStatus(State.STARTING, 0, "", since, since, 0.0, 0, "", 0.0, "")
        return self._health.verdict(status, now, silence, max_silence)

    def _is_stopped(self, now: float, silence: float) -> bool:
        """Whether a signal has stopped it for `silence` seconds: it would fork nothing."""
        process = processes.stat(self.pid)
        if process is None or not process.stopped:
            self._stopped_since = now
        return now - self._stopped_since > silence

    def retire(self, now: float) -> None:
        """Has it end, after the births that it has been asked for. While it loads it would not notice: it is killed."""
        if self.retired:
            return
        self.retired, self._waits_since = True, now
        self._close(self._requests)
        if not self.loaded:
            self.kill()

    def signal(self, number: int) -> None:
        """Sends the signal to the process."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, also to what it is about to fork: that is in its process group."""
        for kill in (os.killpg, os.kill):
            # in its first moment it has no group
            with suppress(OSError):
                kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Closes the pipes."""
        self._close(self._requests)
        self._close(self._messages)

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.discard(descriptor)
            OWN_DESCRIPTORS.discard(descriptor)
            os.close(descriptor)


@dataclass(slots=True)
class _Generation:
    """One that shall share memory. `unfit`: it cannot."""

    template: Template | None = None
    unfit: bool = False
    failures: int = 0
    #: not before this time is a template started, or asked
    again_at: float = 0.0

    def back_off(self, now: float) -> None:
        self.again_at = now + backoff.ceiling(self.failures, RESTART, RESTART_CAP)
        self.failures += 1


@dataclass(frozen=True, slots=True)
class Birth:
    """A child that a template has forked. It is a child of this process."""

    generation: int
    pid: int
    slot: Slot


@dataclass(frozen=True, slots=True)
class LoadRefusal:
    """A template cannot use its settings or handlers."""

    generation: int
    why: str


@dataclass(frozen=True, slots=True)
class SharedFinding:
    """The children of a generation load for themselves, because they cannot share this."""

    generation: int
    found: tuple[str, ...]


class Templates:
    """The templates of all generations that share memory. Times are time.monotonic()."""

    def __init__(self, slots: Sequence[Slot], throttle: Throttle) -> None:
        self._slots = slots
        self._throttle = throttle
        self._generations: dict[int, _Generation] = {}

    def __iter__(self) -> Iterator[Template]:
        return (each.template for each in self._generations.values() if each.template)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def serve(self, generation: int) -> bool:
        """Whether this generation's children come from a template, even if they cannot be asked for now."""
        known = self._generations.get(generation)
        return known is not None and not known.unfit

    def ask(self, generation: int, slots: Sequence[Slot], now: float) -> None:
        """Asks for a child in each slot. Does nothing while the template loads, or backs off."""
        known = self._generations[generation]
        if known.template is None or not known.template.loaded or known.template.retired or now < known.again_at:
            return
        for slot in slots:
            slot.reset()
        known.template.ask(slots, now)

    def asked(self) -> set[int]:
        """The indices of the slots whose children are about to be born."""
        return {slot.index for template in self for slot in template.asked.values()}

    def tend(self, wanted: Mapping[int, Load], now: float) -> Iterator[Birth | LoadRefusal | SharedFinding]:
        """Starts a template for each of these generations, by its number; ends all others. Yields what is new."""
        for number in wanted:
            self._generations.setdefault(number, _Generation())
        for number, known in list(self._generations.items()):
            if known.template is None and number not in wanted:
                del self._generations[number]
            elif known.template is not None:
                if number not in wanted:
                    known.template.retire(now)
                yield from self._hear(number, known, known.template, now)
                yield from self._reap(number, known, known.template, now)
            elif not known.unfit and now >= known.again_at:
                self._start(known, wanted[number], now)

    def kill_hung(self, now: float, silence: float, max_silence: float) -> None:
        """Kills the templates that hang while they load, fork or end; see `Health.verdict`."""
        for template in self:
            if reason := template.verdict(now, silence, max_silence):
                log.error("template killed: %s %s", reason, fields(pid=template.pid))
                template.kill()

    def signal_all(self, number: int) -> None:
        """Sends the signal to all templates."""
        for template in self:
            template.signal(number)

    def _start(self, known: _Generation, load: Load, now: float) -> None:
        template = Template()
        try:
            template.start(load, self._slots, self._throttle, now)
        except OSError as error:
            log.error("cannot fork %s", fields(error=error))
            known.back_off(now)
            return
        known.template = template

    def _hear(
        self, number: int, known: _Generation, template: Template, now: float
    ) -> Iterator[Birth | LoadRefusal | SharedFinding]:
        for message in template.read():
            if isinstance(message, Born):
                slot = template.born(message.number, now)
                if slot is None:
                    # It was given up, and may have ended by itself.
                    with suppress(ProcessLookupError):
                        os.kill(message.pid, signal.SIGKILL)
                    continue
                known.failures = 0
                yield Birth(number, message.pid, slot)
            elif isinstance(message, NotBorn):
                if slot := template.asked.pop(message.number, None):
                    slot.clear()
                    log.error("cannot fork %s", fields(error=message.why))
                    known.back_off(now)
            elif isinstance(message, Unusable):
                template.refused = True
                yield LoadRefusal(number, message.why)
            elif message.found:
                known.unfit = True
                yield SharedFinding(number, message.found)
            else:
                template.loaded = True

    def _reap(self, number: int, known: _Generation, template: Template, now: float) -> Iterator[LoadRefusal]:
        """Takes away a template that has ended."""
        code = template.reap(now)
        if code is None:
            return
        known.template = None
        template.close()
        for slot in template.asked.values():
            slot.clear()
        if template.retired or known.unfit:
            return
        if code != EX_CONFIG:
            # else it has logged why
            log.error("template died %s", fields(pid=template.pid, how=how_it_ended(code)))
        elif not template.refused:
            # a handler's module has closed its pipe
            yield LoadRefusal(number, "handlers cannot be used: the log says why")
        if not template.borne:
            known.back_off(now)
