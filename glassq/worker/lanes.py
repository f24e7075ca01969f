"""A lane child: it works many jobs at once, those of handlers that wait in the event loop or for a socket.

Each lane is a thread with a queue connection, a slot on the scoreboard and a Consumer of its own: leases, losses,
limits and settlement are those of a plain child. Lanes start as they are needed, a few more than are busy, and end when
they have been idle for a while. The main thread tends to them: signals, heartbeat, deadlines. One keeper thread extends
all leases, because a queue that hangs must not delay the deadlines.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq import descriptors
from glassq.heaps import limit_heaps
from glassq.log import fields, logger
from glassq.worker import child
from glassq.worker.layout import State
from glassq.worker.lease import BEAT, ends_its_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.event_loop import EventLoop
    from glassq.ledger import Ledger
    from glassq.queues import Receiver
    from glassq.worker.consumer import Consumer
    from glassq.worker.lane_lease import LaneLease
    from glassq.worker.slots import Slot

log = logger("glassq.worker")

# While n lanes are busy, n / SPARE more wait for a job, and one in any case.
SPARE = 8
# A lane that has had no job for this long ends, unless it is one of those that wait; in seconds.
IDLE_END = 10.0
# The stack of a lane's thread, in bytes: what it does is known, and handlers that are coroutines do not run in it.
STACK = 512 << 10
# The heaps that the threads share.
HEAPS = 2
# Descriptors of a lane: queue, syncer, and the socket of a target; and of the rest of the process.
_FILES, _MORE_FILES = 3, 256


@dataclass(slots=True)
class Lane:
    """One lane. `thread` is None before it starts."""

    slot: Slot
    receiver: Receiver
    lease: LaneLease
    consumer: Consumer
    thread: threading.Thread | None = None

    @property
    def ended(self) -> bool:
        """Whether its thread is over."""
        return self.thread is not None and not self.thread.is_alive()


# Makes a lane in this slot. Its lease tells the second argument when the lane becomes busy (1), and idle (-1).
MakeLane = Callable[["Slot", Callable[[int], None]], Lane]


class Lanes:
    """The lanes of one child. Made in its main thread, after the fork."""

    def __init__(self, slot: Slot, make: MakeLane, most: int) -> None:
        """At most `most` lanes at once, and as many as the pool has made room for."""
        if most > len(slot.lanes):
            known = fields(wanted=most, room=len(slot.lanes))
            log.warning("there is no room for all lanes of this child until the pool is restarted %s", known)
        self._slot = slot
        self._make = make
        self._most = min(most, len(slot.lanes))
        self._free = list(slot.lanes)
        self._lanes: list[Lane] = []
        self._counting = threading.Lock()
        self._busy = 0
        self._ending = 0
        self._worked = 0
        self._draining = False
        #: set when there may be too few lanes
        self.short = threading.Event()

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._lanes))

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def worked(self) -> int:
        """How many jobs have been worked."""
        return self._worked + sum(lane.consumer.worked for lane in self._lanes)

    def grow(self) -> None:
        """Starts the lanes that are missing."""
        wanted = min(self._most, self._busy + self._spare())
        while len(self._lanes) < wanted and not self._draining:
            slot = self._free.pop()
            try:
                self._start(slot)
            except RuntimeError as error:
                # no memory or no process left for a thread: those that there are go on
                slot.clear()
                self._free.append(slot)
                log.error("cannot start a lane %s", fields(error=error, lanes=len(self._lanes)))
                return

    def reap(self) -> None:
        """Takes away those that have ended."""
        for lane in [lane for lane in self._lanes if lane.ended]:
            self._lanes.remove(lane)
            self._worked += lane.consumer.worked
            with self._counting:
                self._ending = max(0, self._ending - 1)
            lane.slot.clear()
            self._free.append(lane.slot)

    def close_inherited(self) -> None:
        """In a process that a handler has forked: closes the connections of all lanes."""
        for lane in self._lanes:
            lane.receiver.close_inherited()

    def drain(self) -> None:
        """No lane takes another job."""
        self._draining = True
        for lane in self._lanes:
            lane.receiver.interrupt()

    def _spare(self) -> int:
        return max(1, self._busy // SPARE)

    def _start(self, slot: Slot) -> None:
        slot.reset()
        lane = self._make(slot, self._changed)
        lane.thread = threading.Thread(target=self._run, args=[lane], name=f"lane {slot.index}", daemon=True)
        usual = threading.stack_size(STACK)
        try:
            lane.thread.start()
        finally:
            threading.stack_size(usual)
        self._lanes.append(lane)

    def _changed(self, by: int) -> None:
        with self._counting:
            self._busy += by
            if by > 0 and len(self._lanes) < min(self._most, self._busy + 1):
                self.short.set()

    def _run(self, lane: Lane) -> None:
        lane.slot.state(State.CONNECTING)
        try:
            lane.consumer.run(lambda: self._stopping(lane))
        except BaseException:
            descriptors.check()
            log.exception("lane failed")
        finally:
            # the process lives on, and so would the lane's claims
            lane.consumer.close()

    def _stopping(self, lane: Lane) -> bool:
        if self._draining:
            return True
        if time.monotonic() - lane.lease.idle_since < IDLE_END:
            return False
        with self._counting:
            idle = len(self._lanes) - self._ending - self._busy
            if idle <= self._spare():
                return False
            self._ending += 1
            return True


def run(lanes: Lanes, loop: EventLoop, ledger: Ledger, slot: Slot, *, max_jobs: int, max_rss: int) -> int:
    """Works until a stop, `max_jobs` jobs, or more than `max_rss` bytes of memory; returns exit code 0."""
    # a signal ends no wait: the next beat sees its flag
    stop, over = child.Stop(lambda: None), threading.Event()
    child.begin(slot, lanes.close_inherited)
    _make_room(len(slot.lanes))
    limit = child.job_limit(max_jobs)
    threading.Thread(target=_keep, args=(lanes, over), name="keeper", daemon=True).start()
    try:
        while len(lanes) or not stop.draining:
            stop.listen()
            if os.getppid() != slot.parent or lanes.worked >= limit or (lanes.worked and child.resident() > max_rss):
                stop.draining = True
            _beat(lanes, loop, slot, stop)
            lanes.short.wait(BEAT)
            lanes.short.clear()
    finally:
        slot.state(State.STOPPING)
        over.set()
        ledger.close()
    log.debug("lane child ends %s", fields(worked=lanes.worked, rss=child.resident()))
    return 0


def _beat(lanes: Lanes, loop: EventLoop, slot: Slot, stop: child.Stop) -> None:
    """What the main thread does again and again."""
    slot.beat()
    descriptors.check()
    lanes.reap()
    if stop.draining:
        lanes.drain()
    else:
        lanes.grow()
    now = time.monotonic()
    for lane in lanes:
        lane.lease.check(now, cold=stop.cold)
    connected = any(lane.slot.doing in (State.WAITING, State.WORKING) for lane in lanes)
    slot.state(State.WAITING if connected else State.CONNECTING)
    slot.worked(lanes.worked)
    problem = str(loop.blocked(now) or "")
    if not connected:
        problem = next((lane.slot.said for lane in lanes if lane.slot.said), "")
    if problem != slot.said:
        slot.problem(problem)


@ends_its_process
def _keep(lanes: Lanes, over: threading.Event) -> None:
    """The keeper: extends the leases of all lanes."""
    while not over.wait(BEAT):
        for lane in lanes:
            lane.lease.extend(time.monotonic())


def _make_room(lanes: int) -> None:
    """Raises the limits of this process for so many lanes, as far as that goes."""
    limit_heaps(HEAPS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = lanes * _FILES + _MORE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
