"""How a command that changes something runs: whoever looks later finds who did it, from where, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar

from glassq.cli.progress import Terminal
from glassq.errors import GlassqError, Stopped
from glassq.operations.activity import Activities, CameTo

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.operations import Operations
    from glassq.operations.result import Report

R = TypeVar("R", bound="Report")


class Acting(Terminal):
    """The Terminal of an operation that is carried out, and stopped by Ctrl-C. It begins an activity, and ends it.

    Without any delivery that is chosen nothing changes, and there is no activity.
    """

    def __init__(
        self, operations: Operations, adapt: Callable[[str], str], did: str, *, chosen: int, filter_: str, command: str
    ) -> None:
        """`adapt` is as for Terminal."""
        super().__init__(adapt, stoppable=True)
        self._operations = operations
        self._did = did
        self._chosen = chosen
        self._about = {"filter_": filter_, "command": command}
        self._came_to: CameTo | None = None
        self._activity = ""

    def __enter__(self) -> Self:
        super().__enter__()
        if self._chosen:
            self._log = Activities(self._operations, self)
            self._activity = self._log.begin(self._did, chosen=self._chosen, **self._about)
        return self

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        error = raised[1] if len(raised) > 1 else None
        if self._activity:
            ended = _ended_by(error) if isinstance(error, BaseException) else self._came_to
            self._log.end(self._activity, ended or CameTo())

    def came_to(self, report: R) -> R:
        """What came of it."""
        self._came_to = CameTo.of_report(report, self._chosen)
        return report

    def counted(self, *, done: int, left: int = 0, note: str = "") -> None:
        """The same of an operation without a report."""
        self._came_to = CameTo(done=done, left=left, note=note)


def _ended_by(error: BaseException) -> CameTo:
    if isinstance(error, Stopped | KeyboardInterrupt):
        return CameTo("stopped", note="interrupted")
    return CameTo("failed", note=str(error) if isinstance(error, GlassqError) else type(error).__name__)
