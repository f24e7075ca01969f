"""What Amazon SWF takes of an account or a domain, and what it asks for it.

https://docs.aws.amazon.com/amazonswf/latest/developerguide/swf-dg-limits.html: where somebody asks, Amazon grants more
of some of it. https://aws.amazon.com/govcloud-us/pricing/swf/: these prices; other regions are a sixth cheaper.
"""

from __future__ import annotations

# Executions of a domain that are open at once: what is ready, delayed, at work and buried together.
MAX_OPEN = 100_000
# Calls that an account may make a second for long, all its domains together: of starts, of polls and of answers to
# tasks each; and of heartbeats.
RATE, HEARTBEATS = 200, 160
# A delivery that succeeds at once takes so many tasks: two decisions and the work. So many deliveries a second are the
# most, therefore. A further attempt takes two decisions, the work, and a timer, which costs as much as a task.
TASKS, DELIVERIES, TASKS_AGAIN = 3, RATE // 2, 4
# In dollars: a start; a task, a timer or a signal; a day that an execution is open, or its history kept.
PRICE_START, PRICE_TASK, PRICE_DAY = 0.00012, 0.00003, 0.000006


def price(deliveries: int, *, days: float) -> float:
    """What so many deliveries that succeed at once cost at most, in dollars; each is open or kept for so many days."""
    return deliveries * (PRICE_START + TASKS * PRICE_TASK + days * PRICE_DAY)


def price_again(attempts: int) -> float:
    """What so many further attempts cost at most, in dollars."""
    return attempts * TASKS_AGAIN * PRICE_TASK
