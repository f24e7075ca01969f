"""New forms of jobs, for operators: all are put, one proof covers them, and only then the old forms are deleted.

beanstalkd cannot change a job's body or tube, so its next form is a new job. Until the old job is deleted, the new one
is delayed (longer than a proof takes, even if a shorter delay is wanted) or buried: no consumer works it. Nobody
reserves the old job, so a crash leaves it as it was.

- If a consumer takes the old job meanwhile, our delete does not find it, and the new form is withdrawn.
- Without a proof no old job is deleted, and the new forms are withdrawn.
- If the connection breaks, the new form is withdrawn on another one, but not after the delete of the old job was sent:
  that may still happen. The delivery is then worked twice rather than not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glassq.errors import JobNotFound, QueueError, QueueRefused, QueueUnavailable
from glassq.queues.base import NewForm
from glassq.queues.beanstalk import commands
from glassq.queues.beanstalk.connection import whole_seconds
from glassq.queues.beanstalk.packet import Unanswered
from glassq.queues.beanstalk.proof import prove
from glassq.queues.beanstalk.protocol import JobBody, JobStats
from glassq.queues.beanstalk.receiver import BURY_DELAY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from glassq.queues.base import Change
    from glassq.queues.beanstalk.commands import Command
    from glassq.queues.beanstalk.connection import BeanstalkConnection
    from glassq.queues.beanstalk.prover import Prover

# How long a proof may take, in seconds: less than BURY_DELAY, after which new forms may be worked.
PROOF_WITHIN = 5.0
NOT_KICKED = "beanstalkd does not kick jobs that lie there: its disk may be full"
# The shortest delay of a form that takes the place of an old job, in whole seconds: until the old one is deleted.
SHORTEST_DELAY = 10
ANOTHER_DELIVERY = "this job id now belongs to another delivery"


@dataclass(slots=True, eq=False)
class FormItem:
    """A job that gets `form`. `old` is the id of the job that has its delivery now (0: none does), and `seen` its body.

    In the end there is an `error`, or `new` is the id of the job that has the form. `in_place`: that is the old one.
    `is_so`: it has the form already. `doubtful`: the old job may be gone, so the new one must stay.
    """

    form: NewForm
    old: int = 0
    seen: bytes = b""
    in_place: bool = False
    is_so: bool = False
    new: int = 0
    error: QueueError | None = None
    doubtful: bool = False

    @classmethod
    def of(cls, change: Change, old: int) -> FormItem:
        """The change of the job with the id `old`; 0: its reference is none."""
        job, body = change.job, change.job.body if change.body is None else change.body
        form = NewForm(body, change.tube or job.tube, change.state, change.delay)
        in_place = (body, form.tube) == (job.body, job.tube) and form.state != "delayed"
        error = None if old else JobNotFound(f"there is no job {job.ref}")
        return cls(form, old, job.body, in_place, in_place and form.state == job.state == "ready", error=error)

    def put(self, ttr: int) -> Command[int]:
        """The command that puts the form, where no consumer takes it while the old job is there."""
        delay = BURY_DELAY if self.old or self.form.state == "buried" else 0
        if self.form.state == "delayed":
            delay = max(whole_seconds(self.form.delay), SHORTEST_DELAY if self.old else 0)
        return commands.put(self.form.body, tube=self.form.tube, ttr=ttr, delay=delay)


class FormWriter:
    """Writes items in as few packets as there are steps. A step is for the items without an error."""

    def __init__(self, connection: BeanstalkConnection, prover: Prover | None) -> None:
        """Without a prover, beanstalkd itself proves (see `prove`)."""
        self._connection = connection
        self._prover = prover
        self._broken: QueueUnavailable | None = None

    def write(self, items: Sequence[FormItem]) -> list[str | QueueError]:
        """For each item the reference of its job, or why it has none. Never raises QueueError."""
        self._check_seen([item for item in items if item.old])
        self._change_in_place([item for item in items if item.in_place])
        written = [item for item in items if not item.in_place]
        self._put(written)
        self._prove(written)
        self._delete_old([item for item in written if item.old])
        self._withdraw([item for item in written if item.error and item.new and not item.doubtful])
        self._make_ready([item for item in written if item.old and item.form.state == "ready"])
        return [item.error or str(item.new) for item in items]

    def delete(self, items: Sequence[FormItem]) -> list[QueueError | None]:
        """Deletes the old jobs: for each None, or why it is still there. Never raises QueueError."""
        self._check_seen(items)
        self._each(items, lambda item: [commands.delete(item.old)])
        return [item.error for item in items]

    def _check_seen(self, items: Iterable[FormItem]) -> None:
        for item, [job] in self._each(items, lambda item: [commands.peek(item.old)]):
            if job.body != item.seen:
                item.error = JobNotFound(ANOTHER_DELIVERY)

    def _change_in_place(self, items: Sequence[FormItem]) -> None:
        """These have the old job's body, tube and id: nothing is put, so nothing needs a proof."""
        for item in items:
            item.new = item.old
        self._bury(items)
        self._kick([item for item in items if item.form.state == "ready" and not item.is_so])

    def _kick(self, items: Iterable[FormItem]) -> None:
        left = self._left(items)
        self._each(left, lambda item: [commands.kick(item.old)])
        missed = [item for item in left if isinstance(item.error, JobNotFound)]
        looks = self._connection.pipeline([commands.stats_job(item.old) for item in missed]) if missed else ()
        for item, job in zip(missed, looks, strict=True):
            # that is how beanstalkd answers too where it has no room to note the kick (prot.c, kick_buried_job)
            if isinstance(job, JobStats) and job.state in ("buried", "delayed"):
                item.error = QueueRefused(NOT_KICKED)

    def _put(self, items: Sequence[FormItem]) -> None:
        for item, [job_id] in self._each(items, lambda item: [item.put(self._connection.ttr)]):
            item.new = job_id
        self._bury(items)

    def _bury(self, items: Iterable[FormItem]) -> None:
        buried = (item for item in items if item.form.state == "buried")
        self._each(buried, lambda item: [commands.reserve_job(item.new), commands.bury(item.new)])

    def _prove(self, items: Sequence[FormItem]) -> None:
        left = self._left(items)
        try:
            if left:
                prove(self._connection, [item.new for item in left], self._prover, within=PROOF_WITHIN)
        except QueueError as error:
            for item in left:
                item.error = error

    def _delete_old(self, items: Sequence[FormItem]) -> None:
        left = self._left(items)
        self._each(left, lambda item: [commands.delete(item.old)])
        for item in left:
            item.doubtful = isinstance(item.error, Unanswered) and item.error.sent

    def _withdraw(self, items: Sequence[FormItem]) -> None:
        """Deletes forms that are not wanted, as far as that is possible now."""
        if not items:
            return
        looks = [commands.peek(item.new) for item in items]
        there = self._connection.pipeline(looks)
        if any(isinstance(job, Unanswered) for job in there):
            # The connection may have broken with a server that is back by now.
            there = self._connection.pipeline(looks)
        # After a restart an id may be another job's.
        ours = [
            item.new
            for item, job in zip(items, there, strict=True)
            if isinstance(job, JobBody) and job.body == item.form.body
        ]
        self._connection.pipeline([commands.delete(job_id) for job_id in ours])

    def _make_ready(self, items: Iterable[FormItem]) -> None:
        """Ends the delays of new forms. Those whose delay has ended meanwhile may be at work."""
        left = self._left(items)
        self._each(left, lambda item: [commands.reserve_job(item.new), commands.release(item.new)])
        for item in left:
            if isinstance(item.error, JobNotFound):
                item.error = None

    def _left(self, items: Iterable[FormItem]) -> list[FormItem]:
        """Those without an error: none, once the connection broke."""
        left = [item for item in items if item.error is None]
        if self._broken is None:
            return left
        for item in left:
            item.error = self._broken
        return []

    def _each(
        self, items: Iterable[FormItem], build: Callable[[FormItem], Sequence[Command[Any]]]
    ) -> list[tuple[FormItem, list[Any]]]:
        """Sends these commands for each item that is left. Returns those for which all went well, with the replies."""
        packet: list[Command[Any]] = []
        sent: list[tuple[FormItem, int]] = []
        for item in self._left(items):
            try:
                built = build(item)
            except QueueError as error:
                item.error = error
            else:
                packet += built
                sent.append((item, len(built)))
        replies = iter(self._connection.pipeline(packet) if packet else ())
        done = []
        for item, count in sent:
            answers = [next(replies) for _ in range(count)]
            item.error = next((answer for answer in answers if isinstance(answer, QueueError)), None)
            if item.error is None:
                done.append((item, answers))
            elif isinstance(item.error, QueueUnavailable):
                self._broken = item.error
        return done
