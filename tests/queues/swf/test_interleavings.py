"""Whatever happens to a delivery, in any order, it ends as a small model says: none is lost, none is there twice.

The decider is driven against the history machine of the tests' own SWF (stage.py), in one process and without waiting.
Decisions may be lost, late, or refused as too many came; workers fail, die, stop, and take what an operator has changed
a moment ago; operators change what they saw before it became something else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

import hypothesis
import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from glassq.queues.swf.decider import ACTIVITY, DECISION, OLD, decide, settings_of
from glassq.queues.swf.forms import SwfForm, read_form, written
from glassq.queues.swf.history import DeliveryRun, Phase, read_history
from glassq.queues.swf.names import TYPE, decision_list, list_of, tags_of
from glassq.queues.swf.versions import NEWEST
from tests.queues.swf.faults import Faults
from tests.queues.swf.stage import Stage
from tests.thorough import examples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.queues.base import WaitingState
    from tests.queues.swf.run import Run
    from tests.queues.swf.tasks import ActivityTask, DecisionTask

KEY = "a delivery"
TUBES = ("pings", "slow")
# In seconds.
LEASE, DELAY = 60, 1000
DECISIONS = decision_list(NEWEST)["name"]

tubes = st.sampled_from(TUBES)
waits: st.SearchStrategy[WaitingState] = st.sampled_from(("ready", "delayed", "buried"))
ends = st.sampled_from(("complete", "retry", "delay", "bury", "bury as it is", "release", "died"))


@dataclass
class Expected:
    """The delivery as it must be. `due` is when its delay is over, by the stage's clock."""

    text: str
    tube: str
    state: str = "ready"
    losses: int = 0
    kicked: bool = False
    due: float = 0.0


class Interleavings(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage()
        self.numbers = count(1)
        self.stage.domain.types.update(self._types())
        self.expected = Expected("0", TUBES[0])
        # the task that a worker has; whether it is one that the model knows of; until when it lives
        self.task: ActivityTask | None = None
        self.is_ours = False
        self.lives_until = 0.0
        # a decision that is made and not sent yet
        self.made: tuple[DecisionTask, list[dict[str, Any]]] | None = None
        # what an operator saw: the number of the form
        self.seen = 0
        form = SwfForm(TUBES[0], lease=LEASE, text="0")
        kind = {"name": TYPE, "version": NEWEST}
        self.stage.start({"workflowId": KEY, "workflowType": kind, **settings_of(form)})

    def _types(self) -> Any:
        domain = self.stage.domain
        domain.register("WorkflowType", {"name": TYPE, "version": NEWEST})
        domain.register("ActivityType", ACTIVITY)
        return {}

    # -- deciders ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.made is None)
    @rule()
    def make_a_decision(self) -> None:
        taken = self.stage.take_decision(DECISIONS)
        if taken is not None:
            task, events = taken
            self.made = (task, decide(list(as_botocore(events))))

    @precondition(lambda self: self.made is not None)
    @rule(refused=st.booleans())
    def send_it(self, refused: bool) -> None:
        assert self.made is not None
        self.stage.faults = Faults(refuse_decisions=float(refused))
        self.stage.decide(*self.made)
        self.stage.faults = Faults()
        self.made = None

    @precondition(lambda self: self.made is not None)
    @rule()
    def lose_it(self) -> None:
        self.made = None
        self.skip(DECISION + 1)

    @rule(seconds=st.sampled_from((1, 20, LEASE // 2, LEASE, DELAY)))
    def skip(self, seconds: float) -> None:
        """Time passes: a lease ends, or a delay."""
        was_ours = self._is_held() and self.is_ours
        self.stage.skip(seconds)
        if was_ours and not self._is_held():
            self._lost()
        self._grow_due()

    @rule()
    def half_a_year_passes(self) -> None:
        """Deciders decide, and in time: whatever state it is in, it is renewed before the service ends its run."""
        self._decide_all()
        self.skip(OLD)
        self._decide_all()
        current = self.current()
        # what was delayed by an operator a moment ago, or is worked, is renewed when that is over
        assert current is None or self._is_held() or self.now() - current.started < OLD

    # -- workers ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: not self._is_held())
    @rule(tube=tubes)
    def take(self, tube: str) -> None:
        self.task = self.stage.take_activity(list_of(tube)["name"])
        if self.task is None:
            return
        known = (self.expected.state, self.expected.tube, self.expected.text) == (
            "ready",
            tube,
            form_of(self.task).text,
        )
        # else an operator has changed it, and the decision about that is not made yet
        self.is_ours = known and self._run_of(self.task).phase is Phase.RESERVED
        if self.is_ours:
            assert form_of(self.task).losses == self.expected.losses
            assert form_of(self.task).kicked == self.expected.kicked
            self.expected.state = "reserved"

    @precondition(lambda self: self._is_held())
    @rule(end=ends, tube=tubes)
    def settle(self, end: str, tube: str) -> None:
        assert self.task is not None
        task, self.task = self.task, None
        following = SwfForm(tube, lease=LEASE, text=str(next(self.numbers)))
        if end == "complete":
            assert self.stage.end(task, "Completed", result=None)
            self.expected.state = "gone"
            return
        forms = {
            "retry": following,
            "delay": msgspec.structs.replace(following, state="delayed", delay=DELAY),
            "bury": following,
        }
        reason = {"delay": "retry", "bury as it is": "bury"}.get(end, end)
        details = written(forms[end]) if end in forms else None
        assert self.stage.end(task, "Failed", reason=reason, details=details)
        if self.is_ours:
            self._settled(end, following)

    def _settled(self, end: str, following: SwfForm) -> None:
        if end == "died":
            self._lost()
        elif end in ("release", "bury as it is"):
            self.expected.state = "ready" if end == "release" else "buried"
        else:
            state = {"retry": "ready", "delay": "delayed"}.get(end, "buried")
            self.expected = Expected(following.text, following.tube, state, due=self.now() + DELAY)

    def _lost(self) -> None:
        self.expected.state = "ready"
        self.expected.losses += 1

    # -- operators --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.current() is not None)
    @rule()
    def look(self) -> None:
        self.seen = self.run().number

    @precondition(lambda self: self.current() is not None)
    @rule(state=waits, tube=tubes, kicked=st.booleans(), stale=st.booleans())
    def change(self, state: WaitingState, tube: str, kicked: bool, stale: bool) -> None:
        run = self.run()
        seen = self.seen if stale else run.number
        form = SwfForm(
            tube,
            state,
            DELAY if state == "delayed" else 0.0,
            LEASE,
            kicked=kicked,
            seen=seen,
            text=str(next(self.numbers)),
        )
        current = self.current()
        assert current is not None
        current.signal("change", written(form))
        if run.is_free and seen == run.number:
            self.expected = Expected(form.text, tube, state, kicked=kicked, due=self.now() + DELAY)

    # -- what must hold ---------------------------------------------------------------------------------------------

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        self._grow_due()
        if self.current() is None:
            assert self.expected.state == "gone"
            return
        run, expected = self.run(), self.expected
        if expected.state == "gone":
            assert run.phase is Phase.DONE
            return
        assert (run.form.text, run.form.tube) == (expected.text, expected.tube), run
        assert (run.form.losses, run.form.kicked) == (expected.losses, expected.kicked), run
        # a timer may be late by the second that it is rounded up, and by the decision that starts it
        # a worker may have taken it before an operator's change was decided
        state = run.form.state if run.pending else run.state
        assert state == expected.state or (state, expected.state) == ("delayed", "ready"), run

    def teardown(self) -> None:
        """Everything that may happen does: it is worked, waits for an operator, or is gone."""
        self.stage.faults = Faults()
        if self._is_held() and not self.is_ours:
            # it was changed before its worker took it: that is decided after its attempt
            self.skip(LEASE + 1)
        self._decide_all()
        if self.expected.state == "gone":
            assert self.current() is None
            return
        current = self.current()
        assert current is not None
        assert len(self.stage.domain.open) == 1
        assert list(current.plan.tags) == tags_of(self.expected.tube, buried=self.expected.state == "buried")
        if self.expected.state == "buried":
            assert not current.activities
        if self.expected.state == "reserved":
            return
        self.skip(2 * DELAY)
        # nobody takes it for more than a year
        for _ in range(3):
            self.half_a_year_passes()
            self.it_is_as_the_model_says()
        if self.expected.state == "buried":
            assert self.current() is not None
            return
        task = self.stage.take_activity(list_of(self.expected.tube)["name"])
        assert task is not None
        assert form_of(task).text == self.expected.text

    # -- its parts --------------------------------------------------------------------------------------------------

    def now(self) -> float:
        return self.stage.domain.now()

    def current(self) -> Run | None:
        return self.stage.open(KEY)

    def run(self) -> DeliveryRun:
        current = self.current()
        assert current is not None
        return read_history(list(as_botocore(current.events)))

    def _run_of(self, task: ActivityTask) -> DeliveryRun:
        return read_history(list(as_botocore(task.run.events)))

    def _is_held(self) -> bool:
        task = self.task
        return task is not None and task.run.open and task.run.activities.get(task.scheduled) is task

    def _grow_due(self) -> None:
        if self.expected.state == "delayed" and self.now() >= self.expected.due:
            self.expected.state = "ready"

    def _decide_all(self) -> None:
        if self.made is not None:
            self.send_it(False)
        while (taken := self.stage.take_decision(DECISIONS)) is not None:
            task, events = taken
            assert self.stage.decide(task, decide(list(as_botocore(events))))


def form_of(task: ActivityTask) -> SwfForm:
    return read_form(task.asked["input"], "")


def as_botocore(events: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The events as botocore gives them: times are no numbers."""
    for event in events:
        yield {**event, "eventTimestamp": datetime.fromtimestamp(event["eventTimestamp"], UTC)}


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = hypothesis.settings(
    stateful_step_count=40, deadline=None, max_examples=examples(50), phases=[hypothesis.Phase.generate]
)
