"""How many calls of each kind an account may make (SWF's developer guide, Quotas)."""

from __future__ import annotations

# A bucket holds so many calls, and gets so many a second.
_BUCKETS = {
    **dict.fromkeys(("StartWorkflowExecution", "PollForActivityTask", "PollForDecisionTask"), (2000, 200)),
    **dict.fromkeys(("RespondActivityTaskCompleted", "RespondActivityTaskFailed"), (2000, 200)),
    **dict.fromkeys(("RespondActivityTaskCanceled", "RespondDecisionTaskCompleted"), (2000, 200)),
    "RecordActivityTaskHeartbeat": (2000, 160),
    "TerminateWorkflowExecution": (2000, 60),
    "RequestCancelWorkflowExecution": (2000, 30),
    "SignalWorkflowExecution": (2000, 30),
    "GetWorkflowExecutionHistory": (2000, 60),
    "ListOpenWorkflowExecutions": (200, 48),
    **dict.fromkeys(("DescribeWorkflowExecution", "CountPendingActivityTasks"), (200, 6)),
    **dict.fromkeys(("CountPendingDecisionTasks", "CountOpenWorkflowExecutions"), (200, 6)),
    **dict.fromkeys(("CountClosedWorkflowExecutions", "ListClosedWorkflowExecutions"), (200, 6)),
}


class Rates:
    """One for an account."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}

    def allow(self, action: str, now: float, part: float) -> bool:
        """Whether one more call may be made; `part` of the real rates is allowed, 0: there are none."""
        if not part or action not in _BUCKETS:
            return True
        size, refill = (part * each for each in _BUCKETS[action])
        left, since = self._left.get(action, (size, now))
        left = min(size, left + (now - since) * refill)
        allowed = left >= 1
        self._left[action] = (left - allowed, now)
        return allowed
