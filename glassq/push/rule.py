"""App Engine's retry rule: when a failed task is retried, and when it is given up."""

from __future__ import annotations

import math

import msgspec

# Ten years, in seconds: anything longer is a typing mistake. Queues take delays of 32 bits.
MAX_SECONDS = 3650 * 86_400.0
# App Engine's counts are signed 32-bit integers.
MAX_COUNT = 2**31 - 1

_COUNTS = frozenset({"task_retry_limit", "max_doublings"})


class RetryParameters(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """App Engine's retry_parameters. Backoffs and `task_age_limit` are in seconds; None: no such limit."""

    task_retry_limit: int | None = None
    task_age_limit: float | None = None
    min_backoff_seconds: float = 0.1
    max_backoff_seconds: float = 3600.0
    max_doublings: int = 16

    @classmethod
    def of(
        cls,
        *,
        task_retry_limit: int | None = None,
        task_age_limit: float | None = None,
        min_backoff_seconds: float | None = None,
        max_backoff_seconds: float | None = None,
        max_doublings: int | None = None,
    ) -> RetryParameters:
        """The parameters with defaults for those that are None.

        If only one backoff is given and it contradicts the other's default, the other is set to the same value, as in
        App Engine. Raises ValueError for a value out of range, and if both backoffs are given and contradict.
        """
        arguments = {
            "task_retry_limit": task_retry_limit,
            "task_age_limit": task_age_limit,
            "min_backoff_seconds": min_backoff_seconds,
            "max_backoff_seconds": max_backoff_seconds,
            "max_doublings": max_doublings,
        }
        given = {key: value for key, value in arguments.items() if value is not None}
        for key, value in given.items():
            if not fits(key, value):
                raise ValueError(f"{key} = {value}: expected {expected(key)}")
        parameters = msgspec.convert(given, cls)
        least, most = parameters.min_backoff_seconds, parameters.max_backoff_seconds
        if least <= most:
            return parameters
        if min_backoff_seconds is None:
            return msgspec.structs.replace(parameters, min_backoff_seconds=most)
        if max_backoff_seconds is None:
            return msgspec.structs.replace(parameters, max_backoff_seconds=least)
        raise ValueError(f"min_backoff_seconds = {least:g} is more than max_backoff_seconds = {most:g}")

    def after(self, failures: int, age: float) -> float | None:
        """Seconds to wait after so many failed attempts (1 or more); None: give up.

        `age` is the number of seconds since the first attempt began. If both limits are set, both must be exceeded.
        Source of the rule: App Engine's documents on retrying tasks, and the SDK's task queue stub.
        """
        allowed = []
        if self.task_retry_limit is not None:
            allowed.append(failures <= self.task_retry_limit)
        if self.task_age_limit is not None:
            allowed.append(age <= self.task_age_limit)
        if allowed and not any(allowed):
            return None
        return self._backoff(failures)

    def _backoff(self, failures: int) -> float:
        doublings = min(failures - 1, self.max_doublings)
        # after max_doublings, the backoff grows linearly
        steps = failures - doublings
        # 0 stays 0, even if the factor alone would overflow a float
        if not self.min_backoff_seconds:
            return 0.0
        try:
            return min(self.max_backoff_seconds, math.ldexp(self.min_backoff_seconds, doublings) * steps)
        except OverflowError:
            return self.max_backoff_seconds


def fits(key: str, value: float) -> bool:
    """Whether this value (seconds, or a count) is in the range of this key of retry_parameters."""
    if key in _COUNTS:
        return isinstance(value, int) and 0 <= value <= MAX_COUNT
    # false for NaN as well
    return 0 <= value <= MAX_SECONDS and not (key == "task_age_limit" and value == 0)


def expected(key: str) -> str:
    """The range of a key's values, in words."""
    if key in _COUNTS:
        return f"a whole number from 0 to {MAX_COUNT}"
    least = "more than 0" if key == "task_age_limit" else "from 0"
    return f"seconds, {least} up to {MAX_SECONDS:.0f} (ten years)"
