"""App Engine's retry rule, held to an oracle that walks from failure to failure instead of knowing the formula."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glassq.push.rule import MAX_COUNT, MAX_SECONDS, RetryParameters

SECONDS = st.floats(0, MAX_SECONDS) | st.integers(0, 10_000).map(float)
COUNTS = st.integers(0, 20) | st.integers(0, MAX_COUNT)
AGES = st.floats(0, 2 * MAX_SECONDS) | st.integers(0, 10_000).map(float)
PARAMETERS = st.builds(
    RetryParameters,
    task_retry_limit=st.none() | COUNTS,
    task_age_limit=st.none() | st.floats(0, MAX_SECONDS, exclude_min=True),
    min_backoff_seconds=SECONDS,
    max_backoff_seconds=SECONDS,
    max_doublings=COUNTS,
)


def walked(parameters: RetryParameters, failures: int) -> float:
    """The wait after so many failures: each is the one before, doubled while that is allowed, else one step longer."""
    wait = step = Fraction(parameters.min_backoff_seconds)
    doublings = parameters.max_doublings
    for _ in range(failures - 1):
        if doublings:
            wait = step = wait * 2
            doublings -= 1
        else:
            wait += step
    return float(min(Fraction(parameters.max_backoff_seconds), wait))


def given_up(parameters: RetryParameters, failures: int, age: float) -> bool:
    by_count = None if parameters.task_retry_limit is None else failures > parameters.task_retry_limit
    by_age = None if parameters.task_age_limit is None else age > parameters.task_age_limit
    return {by_count, by_age} in ({True}, {True, None})


@settings(deadline=None)
@given(PARAMETERS, st.integers(1, 300), AGES)
def test_wait_and_giving_up_are_app_engines_for_any_parameters(
    parameters: RetryParameters, failures: int, age: float
) -> None:
    wait = parameters.after(failures, age)
    if given_up(parameters, failures, age):
        assert wait is None
    else:
        assert wait == pytest.approx(walked(parameters, failures), rel=1e-12, abs=0)


@settings(deadline=None)
@given(PARAMETERS, st.integers(1) | st.integers(1, 10**400), st.floats(0))
@example(RetryParameters(max_doublings=10_000), 10_001, 0.0)
@example(RetryParameters(max_doublings=0), 10**400, 0.0)
@example(RetryParameters(min_backoff_seconds=0.0, max_doublings=0), 10**400, 0.0)
@example(RetryParameters(min_backoff_seconds=5e-324, max_doublings=MAX_COUNT), 10**9, math.inf)
@example(RetryParameters(task_age_limit=1.0), 10**400, math.inf)
def test_it_answers_whatever_it_is_asked(parameters: RetryParameters, failures: int, age: float) -> None:
    wait = parameters.after(failures, age)
    assert wait is None or 0 <= wait <= parameters.max_backoff_seconds


@settings(deadline=None)
@given(PARAMETERS)
def test_waits_never_become_shorter(parameters: RetryParameters) -> None:
    endless = msgspec.structs.replace(parameters, task_retry_limit=None, task_age_limit=None)
    waits = [endless.after(failures, 0.0) or 0.0 for failures in range(1, 60)]
    assert all(earlier <= later for earlier, later in pairwise(waits))


@pytest.mark.parametrize(
    ("least", "most", "doublings", "waits"),
    [
        (10, 300, 3, [10, 20, 40, 80, 160, 240, 300, 300]),
        (10, 200, 0, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 160, 170, 180, 190, 200, 200]),
        (10, 200, 3, [10, 20, 40, 80, 160, 200, 200]),
        (0, 200, 3, [0, 0, 0, 0, 0, 0]),
        (5, 5, 16, [5, 5, 5]),
    ],
)
def test_the_series_of_app_engines_documents(least: float, most: float, doublings: int, waits: list[float]) -> None:
    parameters = RetryParameters.of(min_backoff_seconds=least, max_backoff_seconds=most, max_doublings=doublings)
    assert [parameters.after(failures, 0.0) for failures in range(1, len(waits) + 1)] == waits


def test_no_wait_stays_no_wait_however_often_it_is_doubled() -> None:
    for doublings in (0, MAX_COUNT):
        parameters = RetryParameters(min_backoff_seconds=0.0, max_doublings=doublings)
        assert parameters.after(10**400, 0.0) == 0.0


def test_a_limit_counts_retries_so_seven_allow_eight_attempts() -> None:
    parameters = RetryParameters(task_retry_limit=7)
    answers = [parameters.after(failures, 1e9) is None for failures in range(1, 10)]
    assert answers == [False] * 7 + [True] * 2


@pytest.mark.parametrize(
    ("limits", "failures", "age", "gives_up"),
    [
        ({}, 10**6, 1e9, False),
        ({"task_retry_limit": 0}, 1, 0.0, True),
        ({"task_age_limit": 60.0}, 10**6, 60.0, False),
        ({"task_age_limit": 60.0}, 1, 60.5, True),
        ({"task_retry_limit": 2, "task_age_limit": 60.0}, 3, 60.0, False),
        ({"task_retry_limit": 2, "task_age_limit": 60.0}, 2, 61.0, False),
        ({"task_retry_limit": 2, "task_age_limit": 60.0}, 3, 61.0, True),
    ],
)
def test_with_both_limits_it_takes_both_to_give_up(
    limits: dict[str, float], failures: int, age: float, gives_up: bool
) -> None:
    assert (msgspec.convert(limits, RetryParameters).after(failures, age) is None) == gives_up


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ({}, 0.1, 3600.0),
        ({"min_backoff_seconds": 7200.0}, 7200.0, 7200.0),
        ({"max_backoff_seconds": 0.05}, 0.05, 0.05),
        ({"max_backoff_seconds": 0.0}, 0.0, 0.0),
        ({"min_backoff_seconds": 60}, 60.0, 3600.0),
        ({"max_backoff_seconds": 60}, 0.1, 60.0),
        ({"min_backoff_seconds": 5, "max_backoff_seconds": 5}, 5.0, 5.0),
    ],
)
def test_a_lone_backoff_pulls_the_others_default_to_it(asked: dict[str, float], least: float, most: float) -> None:
    parameters = RetryParameters.of(**asked)  # type: ignore[arg-type]
    assert (parameters.min_backoff_seconds, parameters.max_backoff_seconds) == (least, most)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            {"min_backoff_seconds": 20.0, "max_backoff_seconds": 10.0},
            "min_backoff_seconds = 20 is more than max_backoff_seconds = 10",
        ),
        ({"min_backoff_seconds": -1.0}, "min_backoff_seconds = -1.0: expected seconds, from 0 up to 315360000"),
        ({"max_backoff_seconds": math.nan}, "max_backoff_seconds = nan: expected seconds"),
        ({"max_backoff_seconds": math.inf}, "max_backoff_seconds = inf: expected seconds"),
        ({"task_age_limit": 0}, "task_age_limit = 0: expected seconds, more than 0"),
        ({"task_retry_limit": -1}, "task_retry_limit = -1: expected a whole number from 0"),
        ({"task_retry_limit": 1.5}, "task_retry_limit = 1.5: expected a whole number"),
        ({"max_doublings": 2**31}, "max_doublings = 2147483648: expected a whole number from 0 to 2147483647"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(asked: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match="^" + says.replace(".", r"\.")):
        RetryParameters.of(**asked)  # type: ignore[arg-type]


@settings(deadline=None)
@given(PARAMETERS)
def test_parameters_survive_the_label_they_travel_in(parameters: RetryParameters) -> None:
    assert msgspec.json.decode(msgspec.json.encode(parameters), type=RetryParameters) == parameters
