"""The pool's parent: decides how many children there are, replaces them at a reload, and stops them in order.

It opens no sockets, threads or clients, and calls nothing that could fail or block: handlers run in the children.
glassq/worker/__init__.py lists the signals it obeys and what it kills.
"""

from __future__ import annotations

import faulthandler
import signal
import time
from typing import TYPE_CHECKING

from setproctitle import setproctitle

from glassq.errors import EX_CONFIG
from glassq.in_effect import InEffect
from glassq.log import fields, logger
from glassq.worker.children import EX_NO_LANES, Children
from glassq.worker.gates.report import PausedRoutes
from glassq.worker.layout import State
from glassq.worker.metrics import LOST, WANTED
from glassq.worker.periodic import PeriodicProcess
from glassq.worker.report import StatusReporter
from glassq.worker.room import lacking, room_for_lanes
from glassq.worker.scoreboard import MAX_SLOTS, Scoreboard
from glassq.worker.sidecar import Sidecar
from glassq.worker.signals import Signals
from glassq.worker.templates import Birth, LoadRefusal, Templates
from glassq.worker.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from glassq.systemd import Notifier
    from glassq.worker.children import Child
    from glassq.worker.layout import WorkerStatus
    from glassq.worker.plan import PoolPlan
    from glassq.worker.template import Load

log = logger("glassq.worker")

# The parent looks at the scoreboard at least this often, in seconds; and where all children wait for jobs, so that no
# deadline can pass: the end of a child is a signal.
TICK, IDLE_TICK = 0.5, 1.0
# It looks more often while a child comes up, for so many seconds at most: a start, or a reload, waits for it.
QUICK_TICK, QUICK = 0.05, 5.0
# After a pause of the parent itself, children have this long to show that they live, in seconds.
RESUME_GRACE = 5.0
# The minimum number of tubes that there is room for; memory that nobody uses costs nothing.
MIN_TUBES = 256
# The time from a cold stop to SIGKILL, in seconds.
COLD_STOP_TIMEOUT = 5.0


class Pool:
    """One parent and its children. `run` returns the exit code of the process."""

    def __init__(
        self,
        load: Callable[[], PoolPlan],
        notify: Notifier,
        *,
        watchdog: float | None = None,
        in_effect: InEffect | None = None,
        directory: str | None = None,
    ) -> None:
        """Calls `load()` at the start and on SIGHUP. If it raises on SIGHUP, nothing changes.

        `watchdog` is systemd's WatchdogSec, in seconds. `in_effect` is where the outcome of each reload is written.
        `directory` is the pool's runtime directory, which tells it what the last pool worked (None: nothing does).
        """
        self._load = load
        self._plan = load()
        room = room_for_lanes(self._plan.processes, self._plan.lane_processes, self._plan.lanes)
        self._scoreboard = Scoreboard(directory=directory, **room)
        self._crews = sum(bool(slot.lanes) for slot in self._scoreboard.slots)
        self._sidecar, self._sweeper = Sidecar("metrics"), PeriodicProcess()
        self._sharing = Sidecar("limits")
        self._beside = {name: Sidecar(name) for name in self._plan.beside}
        self._reporter = StatusReporter(notify, self._plan.queue, watchdog=watchdog)
        # twice as many, for those that reloads add
        tubes = max(MIN_TUBES, 2 * len(self._plan.all_limits(1)))
        self._throttle = Throttle(self._scoreboard.size, tubes, used=0)
        self._throttle.set(self._plan.all_limits(self._plan.processes))
        self._templates = Templates(self._scoreboard.slots, self._throttle)
        beside: list[Sidecar | PeriodicProcess] = [self._sidecar, self._sweeper, self._sharing, *self._beside.values()]
        self._children = Children(self._scoreboard, self._throttle, self._templates, beside)
        self._target = min(self._plan.processes, MAX_SLOTS)
        #: the number of the plan in force, and that of the latest plan
        self._generation = self._generations = 0
        #: while no child of the plan in force is up: the last plan that had one, and its generation
        self._proven: tuple[PoolPlan, int] | None = None
        self._in_effect = in_effect or InEffect()
        self._unconfirmed = False
        #: generations whose handlers need no lane children after all
        self._laneless: set[int] = set()
        #: by generation, what its children cannot share
        self._not_shared: dict[int, str] = {}
        #: when the stop gets harder, on time.monotonic(); None: the pool does not stop
        self._stop_deadline: float | None = None
        self._cold = False
        self._exit_code = 0
        #: why the start failed, if a child said so
        self._failure = ""
        self._ticked = self._judge_after = 0.0
        self._paused_routes = PausedRoutes(directory)

    def run(self) -> int:
        """Runs until stopped. Returns 0 after an orderly stop, 78 if the configuration is wrong."""
        setproctitle("glassq-worker: pool")
        with Signals() as signals:
            log.info("pool starts %s", fields(processes=self._target))
            if attempts := self._scoreboard.inherited:
                log.warning("the last pool was killed at work %s", fields(attempts=attempts))
                self._scoreboard.counters.count(LOST, by=attempts)
            if self._plan.made_of:
                self._in_effect.start(self._plan.made_of)
            while self._stop_deadline is None or self._children or self._templates:
                pause = self._tick()
                for number in signals.wait(
                    pause, [end for template in self._templates for end in template.descriptors]
                ):
                    self._on_signal(number)
            for process in (self._sidecar, self._sharing, *self._beside.values()):
                process.stop()
            self._sweeper.stop()
        if self._failure:
            self._reporter.failed(self._failure)
        log.info("pool stopped %s", fields(exit=self._exit_code))
        return self._exit_code

    def _tick(self) -> float:
        """Looks at everything once. Returns how long the parent may wait until it looks again, in seconds."""
        now = time.monotonic()
        # After a pause of the parent (a suspended machine, a frozen group) every child looks silent: judge them later.
        if self._ticked and now - self._ticked > self._plan.silence / 2:
            self._judge_after = now + min(RESUME_GRACE, self._plan.silence / 2)
        self._ticked = now
        self._tend_templates(now)
        for child, code in self._children.reap():
            self._on_end(child, code)
        statuses = self._children.statuses()
        if self._stop_deadline is None:
            for lanes in (False, True):
                self._replace_one(statuses, lanes=lanes)
                self._reach_target(now, lanes=lanes)
            self._tell_replaced(statuses)
            self._tend_sidecar(now)
        elif now > self._stop_deadline:
            self._stop_harder(now)
        self._children.reap_orphans()
        self._children.remind()
        if now >= self._judge_after:
            self._children.kill_hung(statuses, now, self._plan.silence, self._plan.drain)
            self._templates.kill_hung(now, self._plan.silence, self._plan.drain)
        self._paused_routes.tend(self._throttle.gates.breakers.open(self._plan.breakers))
        self._report(list(statuses.values()), now)
        return self._pause(statuses.values(), now)

    def _pause(self, statuses: Collection[WorkerStatus], now: float) -> float:
        """How long nothing happens that is no signal, and has to be seen soon."""
        if self._stop_deadline is not None:
            return TICK
        coming = (State.STARTING, State.CONNECTING)
        if any(status.state in coming and now - status.started < QUICK for status in statuses):
            return QUICK_TICK
        idle = self._reporter.ready and all(status.state is State.WAITING for status in statuses)
        return IDLE_TICK if idle else TICK

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop(cold=self._stop_deadline is not None)
        elif number == signal.SIGQUIT:
            self._stop(cold=True)
        elif number == signal.SIGHUP:
            self._reload()
        elif number == signal.SIGTTIN:
            self._aim_at(min(self._target + 1, MAX_SLOTS))
        elif number == signal.SIGTTOU:
            self._aim_at(max(self._target - 1, 1))
        elif number == signal.SIGUSR2:
            faulthandler.dump_traceback(all_threads=True)
            self._children.signal_all(signal.SIGUSR2)
            self._templates.signal_all(signal.SIGUSR2)

    def _aim_at(self, target: int) -> None:
        self._target = target
        self._throttle.set(self._plan.all_limits(target))

    def _wanted(self, *, lanes: bool) -> int:
        """How many lane children, or plain ones, there should be."""
        if not lanes:
            return self._target
        # a reload needs twice as many
        return 0 if self._generation in self._laneless else min(self._plan.lane_processes, self._crews // 2)

    def _staying(self, *, lanes: bool) -> list[Child]:
        return [child for child in self._children if not child.stopping and bool(child.slot.lanes) is lanes]

    def _reach_target(self, now: float, *, lanes: bool) -> None:
        """Forks the children that are missing, and stops the youngest of those that are too many."""
        staying, target = self._staying(lanes=lanes), self._wanted(lanes=lanes)
        asked = [index for index in self._templates.asked() if bool(self._scoreboard.slots[index].lanes) is lanes]
        # while children are replaced there is one more of them
        replacing = any(child.generation != self._generation for child in staying)
        surplus = len(staying) + len(asked) - target - replacing
        for child in sorted(staying, key=lambda child: child.born, reverse=True)[: max(0, surplus)]:
            self._children.stop(child)
        alive = sum(bool(child.slot.lanes) is lanes for child in self._children)
        if surplus < 0 and alive < 2 * target:
            self._children.fork(-surplus, self._generation, self._plan.load, now, lanes=lanes)

    def _tend_templates(self, now: float) -> None:
        for news in self._templates.tend(self._loads(), now):
            if isinstance(news, Birth):
                self._children.add(news)
            elif isinstance(news, LoadRefusal):
                self._on_refusal(news.generation, news.why)
            else:
                found = "; ".join(news.found)
                log.warning("children share no memory: each loads its handlers itself %s", fields(found=found))
                self._not_shared[news.generation] = found
                if not self._unconfirmed:
                    self._in_effect.note(found)

    def _loads(self) -> dict[int, Load]:
        """What templates load, by generation: that of the plan in force, and that of the last one that had a child."""
        if self._stop_deadline is not None or not self._children.adopts:
            return {}
        plans = [(self._plan, self._generation), *([self._proven] if self._proven else [])]
        return {generation: plan.load for plan, generation in plans if plan.preload}

    def _tend_sidecar(self, now: float) -> None:
        self._scoreboard.counters.set(WANTED, self._target + self._wanted(lanes=True))
        main = self._plan.sidecar
        self._sidecar.tend(main and (lambda: main(self._scoreboard, self._throttle.gates)), now)
        sharing = self._plan.sharing
        self._sharing.tend(sharing and (lambda: sharing(self._throttle)), now)
        for name, process in self._beside.items():
            process.tend(self._plan.beside[name], now)
        self._sweeper.tend(self._plan.sweep, now)

    def _on_end(self, child: Child, code: int) -> None:
        if code == EX_NO_LANES and child.slot.lanes:
            self._laneless.add(child.generation)
            return
        problem = self._children.status(child).problem
        if code != EX_CONFIG or not self._on_refusal(child.generation, problem):
            self._children.record_end(child, code)

    def _on_refusal(self, generation: int, why: str) -> bool:
        """Ends a start, or takes back a reload, whose settings or handlers cannot be used; whether it was one."""
        if self._stop_deadline is None and not self._reporter.ready:
            self._exit_code = EX_CONFIG
            self._stop(cold=False)
            self._failure = why
            return True
        if self._proven is None or generation != self._generation:
            return False
        self._take_back_reload(*self._proven, why)
        return True

    # -- reload and stop ----------------------------------------------------------------------------------------

    def _reload(self) -> None:
        try:
            plan = self._load()
            self._throttle.set(plan.all_limits(plan.processes))
        except Exception as error:
            # queue.yaml may have several mistakes, a line each
            for line in str(error).splitlines():
                log.error("not reloaded: %s", line)
            self._in_effect.refuse(str(error))
            return
        self._proven = self._proven or (self._plan, self._generation)
        self._generations += 1
        self._generation = self._generations
        self._unconfirmed = True
        self._use(plan)
        log.info("reloading %s", fields(generation=self._generation, processes=self._target))

    def _use(self, plan: PoolPlan) -> None:
        self._plan = plan
        if lacks := self._lacking():
            log.warning("the pool has no room for all that its settings want: restart it %s", fields(room=lacks))
        self._target = min(plan.processes, MAX_SLOTS)
        self._reporter.queue = plan.queue
        self._sidecar.restart()
        self._sharing.restart()
        for process in self._beside.values():
            process.restart()

    def _lacking(self) -> str:
        """What the plan wants and the memory made at the start has no room for; "" if there is nothing."""
        plan, crews = self._plan, [len(slot.lanes) for slot in self._scoreboard.slots if slot.lanes]
        return lacking(len(crews), min(crews, default=0), lane_processes=plan.lane_processes, wanted=plan.lanes)

    def _take_back_reload(self, plan: PoolPlan, generation: int, why: str) -> None:
        """Returns to this plan, because a new child could not use its settings or handlers; it has said `why`."""
        self._generation, self._proven = generation, None
        self._use(plan)
        self._throttle.set(plan.all_limits(plan.processes))
        self._unconfirmed = False
        log.error("not reloaded: the children that run stay as they are")
        self._in_effect.refuse(why or "new children cannot use what they read")

    def _replace_one(self, statuses: Mapping[int, WorkerStatus], *, lanes: bool) -> None:
        """Stops one child of another generation if a new one is up in its place; one that waits for a job first.

        The new child comes first: if it cannot start, nothing is lost. The old one finishes its attempt. So a long
        handler delays nobody, and there are never more than twice as many processes as wanted.
        """
        if not self._unconfirmed and all(child.generation == self._generation for child in self._children):
            return
        states = {pid: status.state for pid, status in statuses.items()}
        staying = self._staying(lanes=lanes)
        self._confirm(child for child in staying if states[child.pid] is not State.STARTING)
        up = all(states[child.pid] not in (State.STARTING, State.CONNECTING) for child in staying)
        old = [child for child in staying if child.generation != self._generation]
        if old and up and len(staying) > self._wanted(lanes=lanes):
            self._proven = None
            self._children.stop(min(old, key=lambda child: states[child.pid] is State.WORKING))

    def _confirm(self, loaded: Iterable[Child]) -> None:
        """Records the reload as in effect once a new child has loaded it, even if that child is not connected yet."""
        if self._unconfirmed and any(child.generation == self._generation for child in loaded):
            self._unconfirmed = False
            if self._plan.made_of:
                not_shared = self._not_shared.get(self._generation, "")
                self._in_effect.accept(self._plan.made_of, not_shared, self._lacking(), replaced=False)

    def _tell_replaced(self, statuses: Mapping[int, WorkerStatus]) -> None:
        """Records it once no child of before a reload takes jobs: some may still finish the one that they work."""
        if self._unconfirmed:
            return
        working = {pid for pid, status in statuses.items() if status.state is State.WORKING}
        old = [child for child in self._children if child.generation != self._generation]
        if all(child.stopping and child.pid in working for child in old):
            self._in_effect.replace()

    def _stop(self, *, cold: bool) -> None:
        now = time.monotonic()
        patience = COLD_STOP_TIMEOUT if cold else self._plan.drain
        log.info("pool stops %s", fields(how="cold" if cold else "draining", patience=f"{patience:g}s"))
        self._reporter.stopping()
        self._stop_deadline = now + patience
        self._cold = cold
        self._children.stop_all(cold=cold)

    def _stop_harder(self, now: float) -> None:
        if not self._cold:
            self._stop(cold=True)
            return
        log.error("children do not stop: killed %s", fields(pids=",".join(str(child.pid) for child in self._children)))
        self._stop_deadline = now + COLD_STOP_TIMEOUT
        for child in self._children:
            self._children.kill(child)
        for template in self._templates:
            template.kill()

    def _report(self, statuses: Sequence[WorkerStatus], now: float) -> None:
        if self._stop_deadline is not None:
            self._reporter.draining(statuses)
        else:
            well = bool(statuses or self._templates) and not any(child.kill_reason for child in self._children)
            target = self._target + self._wanted(lanes=True)
            self._reporter.tick(statuses, now, target=target, well=well)
