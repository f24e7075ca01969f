"""Short texts out of code that is not ours: what a handler raised or returned, as text of a bounded length.

Cut first, then mask and format: a pattern needs seconds for each megabyte, and holds the interpreter lock meanwhile.
No function here lets an exception of the object's own methods pass, not even SystemExit. So call them only where
nothing of ours is raised by a signal.
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
# Limits of a traceback: characters of one message and of one line of code, frames of one exception, notes of one
# exception, exceptions in all (causes and members of groups).
MAX_MESSAGE, MAX_LINE = 500, 300
MAX_FRAMES, MAX_NOTES, MAX_EXCEPTIONS = 20, 5, 8
_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


def text_of(value: object, limit: int) -> str:
    """The first `limit` characters of `str(value)`; UNPRINTABLE where that fails."""
    try:
        # a subclass of str may slice in its own way
        return str.__getitem__(str(value), slice(limit))
    except BaseException:
        return UNPRINTABLE


def kind_of(value: object, limit: int = 200) -> str:
    """The name of its class."""
    try:
        return text_of(type(value).__name__, limit)
    except BaseException:
        return "object"


def words_of(error: BaseException, limit: int) -> str:
    """`Type: message`, as the last line of a traceback has it."""
    message = text_of(error, limit)
    kind = kind_of(error)
    return f"{kind}: {message}"[:limit] if message else kind


def json_of(value: object, limit: int, *, strict: bool) -> str:
    """The value as JSON, cut: a text that is longer than `limit` characters is not whole.

    Unless it is `strict`, `str` stands for what JSON has no form for, and keys that are no text are left out.
    Raises ValueError, with the reason, where there is no JSON of it.
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
        # not json.dumps: it would write all of a value that is too large
        for piece in encoder.iterencode(value):
            pieces.append(piece[: limit + 1])
            size += len(piece)
            if size > limit:
                break
    except BaseException as error:
        raise ValueError(words_of(error, MAX_MESSAGE)) from None
    return "".join(pieces)


def traceback_of(error: BaseException) -> str:
    """What Python prints of an exception that nobody catches, within the limits above; the cause comes first."""
    try:
        return "".join(_format(error, _Budget(MAX_EXCEPTIONS)))
    except BaseException:
        # fields of the exception itself are broken
        return f"{kind_of(error)}: {UNPRINTABLE}\n"


class _Budget:
    """How many exceptions may still be formatted, and which have been."""

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
    """The exception behind its causes. The newest ones count: those say what ended the attempt."""
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
    """Itself, unless made code has names or lines of any length."""
    texts = (frame.filename, frame.name, frame.line or "")
    if all(len(text) <= MAX_LINE for text in texts):
        return frame
    filename, name, line = (text[:MAX_LINE] for text in texts)
    return FrameSummary(filename, frame.lineno, name, line=line)
