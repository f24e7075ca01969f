"""Bounded texts of foreign objects: of what a handler raised or returned.

Cut first, then mask and format: a regular expression takes seconds per megabyte, and holds the GIL meanwhile.
These functions catch every exception of the object's own methods, even SystemExit. So call them only where no signal
handler of glassq raises.
"""

from __future__ import annotations

import json
import traceback
from itertools import islice
from traceback import FrameSummary, StackSummary
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

UNPRINTABLE = "(its message cannot be shown)"
# Limits of a traceback: characters of a message and of a line of code, frames and notes of an exception, exceptions in
# total (causes and members of groups).
MAX_MESSAGE, MAX_LINE = 500, 300
MAX_FRAMES, MAX_NOTES, MAX_EXCEPTIONS = 20, 5, 8
_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


def text_of(value: object, limit: int) -> str:
    """The first `limit` characters of `str(value)`; UNPRINTABLE if that fails."""
    try:
        # a subclass of str may override slicing
        return str.__getitem__(str(value), slice(limit))
    except BaseException:
        return UNPRINTABLE


def kind_of(value: object, limit: int = 200) -> str:
    """The name of the value's class."""
    try:
        return text_of(type(value).__name__, limit)
    except BaseException:
        return "object"


def words_of(error: BaseException, limit: int) -> str:
    """`Type: message`, as in the last line of a traceback."""
    message = text_of(error, limit)
    kind = kind_of(error)
    return f"{kind}: {message}"[:limit] if message else kind


def json_of(value: object, limit: int, *, strict: bool) -> str:
    """The value as JSON, truncated: a result longer than `limit` characters is incomplete.

    Unless `strict`, values that are not JSON-serialisable become their `str`, and keys that are not strings are
    left out. Raises ValueError, with the reason, if the value cannot be encoded.
    """
    encoder = json.JSONEncoder(
        default=None if strict else lambda each: text_of(each, limit),
        skipkeys=not strict,
        allow_nan=not strict,
        ensure_ascii=False,
    )
    pieces: list[str] = []
    size = 0
    try:
        # not json.dumps, which would encode all of a value that is too large
        for piece in encoder.iterencode(value):
            pieces.append(piece[: limit + 1])
            size += len(piece)
            if size > limit:
                break
    except BaseException as error:
        raise ValueError(words_of(error, MAX_MESSAGE)) from None
    return "".join(pieces)


def traceback_of(error: BaseException) -> str:
    """The traceback as Python prints it for an uncaught exception, within the limits above; causes come first."""
    try:
        return "".join(_format(error, _Budget(MAX_EXCEPTIONS)))
    except BaseException:
        # the exception's own attributes are broken
        return f"{kind_of(error)}: {UNPRINTABLE}\n"


class _Budget:
    """Counts the exceptions that may still be formatted, and remembers the formatted ones."""

    def __init__(self, left: int) -> None:
        self._left = left
        self._seen: set[int] = set()

    def takes(self, error: BaseException | None) -> bool:
        if error is None or id(error) in self._seen or not self._left:
            return False
        self._seen.add(id(error))
        self._left -= 1
        return True


def _format(error: BaseException, budget: _Budget) -> Iterator[str]:
    """The exception after its causes. The newest ones are kept, because they ended the attempt."""
    chain: list[tuple[BaseException, str]] = []
    current, link = error, ""
    while budget.takes(current):
        chain.append((current, link))
        if current.__cause__ is not None:
            current, link = current.__cause__, _CAUSE
        elif current.__context__ is not None and not current.__suppress_context__:
            current, link = current.__context__, _CONTEXT
        else:
            break
    else:
        if chain:
            yield "(earlier causes are left out)\n"
    for each, following in reversed(chain):
        yield from _format_one(each, budget)
        yield following


def _format_one(error: BaseException, budget: _Budget) -> Iterator[str]:
    if error.__traceback__ is not None:
        yield "Traceback (most recent call last):\n"
        yield from _frames(error)
    module = text_of(type(error).__module__, MAX_LINE)
    prefix = "" if module in ("builtins", "__main__") else f"{module}."
    yield f"{prefix}{words_of(error, MAX_MESSAGE)}\n"
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list | tuple):
        yield from (f"{text_of(note, MAX_MESSAGE)}\n" for note in notes[:MAX_NOTES])
    if isinstance(error, BaseExceptionGroup):
        yield from _members(error, budget)


def _members(group: BaseExceptionGroup[BaseException], budget: _Budget) -> Iterator[str]:
    for number, member in enumerate(group.exceptions, 1):
        text = "".join(_format(member, budget))
        if not text:
            yield f"  and {len(group.exceptions) - number + 1} more exceptions\n"
            return
        yield f"  +-- {number} of {len(group.exceptions)}\n"
        yield "".join(f"  | {line}\n" for line in text.splitlines())


def _frames(error: BaseException) -> Iterator[str]:
    frames = list(islice(traceback.walk_tb(error.__traceback__), 100_000))
    if len(frames) > MAX_FRAMES:
        yield f"  ({len(frames) - MAX_FRAMES} frames are left out)\n"
    stack = StackSummary.extract(iter(frames[-MAX_FRAMES:]))
    yield from StackSummary.from_list([_short(frame) for frame in stack]).format()


def _short(frame: FrameSummary) -> FrameSummary:
    """The frame, shortened if generated code has very long names or lines."""
    texts = (frame.filename, frame.name, frame.line or "")
    if all(len(text) <= MAX_LINE for text in texts):
        return frame
    filename, name, line = (text[:MAX_LINE] for text in texts)
    return FrameSummary(filename, frame.lineno, name, line=line)
