"""What a push delivery's labels say of its request."""

from __future__ import annotations

import pytest

from glassq.push.request import TaskRequest, from_labels
from glassq.push.rule import RetryParameters

PLAIN = {"queue": "q", "task": "t", "url": "/"}


def test_what_the_labels_keep_is_what_was_asked_for() -> None:
    options = RetryParameters(task_retry_limit=3)
    request = TaskRequest(queue="q", name="t", url="/?a", target="b", headers={"A": "\xe9"}, eta=1.5, retry=options)
    assert from_labels(request.labels()) == request


@pytest.mark.parametrize(
    "labels",
    [
        {"queue": "q"},
        {**PLAIN, "headers": "["},
        {**PLAIN, "headers": "[" * 50_000},
        {**PLAIN, "headers": "[]"},
        {**PLAIN, "retry": '{"max_doublings": "many"}'},
        {**PLAIN, "eta": "soon"},
    ],
    ids=range(6),
)
def test_labels_that_are_no_request_are_a_value_error(labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        from_labels(labels)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({"retry": '{"min_backoff_seconds": -5}'}, "min_backoff_seconds"),
        ({"retry": '{"task_retry_limit": -1}'}, "task_retry_limit"),
        ({"retry": '{"max_doublings": -1}'}, "max_doublings"),
        ({"eta": "nan"}, "eta"),
        ({"eta": "inf"}, "eta"),
    ],
)
def test_numbers_that_no_task_can_have_are_refused(labels: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        from_labels({"queue": "default", "task": "t", "url": "/", **labels})
