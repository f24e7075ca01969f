"""What Amazon SWF takes of an account or a domain, and what it asks for it.

https://docs.aws.amazon.com/amazonswf/latest/developerguide/swf-dg-limits.html and https://aws.amazon.com/swf/pricing/;
where somebody asks, Amazon grants more of some of it.
"""

from __future__ import annotations

# Executions of a domain that are open at once: what is ready, delayed, at work and buried together.
MAX_OPEN = 100_000
# Calls of each of these kinds that an account may make a second for long, all its domains together: starts, polls and
# answers to tasks; heartbeats; signals, which operators send.
RATE, HEARTBEATS, SIGNALS = 200, 160, 30
# A delivery that succeeds at once takes so many tasks: two for decisions, one for the work. So many deliveries a second
# are the most, therefore. A further attempt takes two for decisions, one for the work, and a timer, which costs as much.
TASKS, DELIVERIES, TASKS_AGAIN = 3, RATE // 2, 4
# In dollars, where it is cheapest: a start; a task, a timer or a signal; a day that an execution is open or kept.
PRICE_START, PRICE_TASK, PRICE_DAY = 0.0001, 0.000025, 0.000005


def price(deliveries: int, *, days: float) -> float:
    """What so many deliveries that succeed at once cost, in dollars, each open or kept for so many days."""
    return deliveries * (PRICE_START + TASKS * PRICE_TASK + days * PRICE_DAY)


def price_again(attempts: int) -> float:
    """What so many further attempts cost, in dollars."""
    return attempts * TASKS_AGAIN * PRICE_TASK
