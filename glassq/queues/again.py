"""For engines: a Producer's put, once more for what a broken connection left without an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from glassq.errors import QueueUnavailable
from glassq.queues.base import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.queues.base import NewJob, Receipt


def put_again(
    attempt: Callable[[Sequence[NewJob]], list[Receipt | Refusal]],
    jobs: Sequence[NewJob],
    *,
    again: bool,
    reconnect: Callable[[], None],
) -> list[Receipt | Refusal]:
    """The answer for each job after one attempt; with `again` after two, for those that the first has not put.

    `reconnect` is called before the second one: most likely the other idle connections broke, too.
    """
    answers = attempt(jobs)
    broken = [index for index, answer in enumerate(answers) if _is_broken(answer)]
    if again and broken:
        reconnect()
        for index, answer in zip(broken, attempt([jobs[index] for index in broken]), strict=True):
            answers[index] = _both(answers[index], answer)
    return answers


def _is_broken(answer: Receipt | Refusal) -> bool:
    return isinstance(answer, Refusal) and isinstance(answer.error, QueueUnavailable)


def _both(first: Receipt | Refusal, second: Receipt | Refusal) -> Receipt | Refusal:
    """The answer for a job after two attempts: if the first may have put it, it stays in doubt."""
    if isinstance(second, Refusal) and isinstance(first, Refusal) and first.in_doubt:
        return replace(second, in_doubt=True)
    return second
