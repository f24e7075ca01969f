"""Log lines on standard error, one per event, that no sender can forge.

A module of glassq makes its own logger, writes the event in words, and passes values through `fields`:

    log = logger("glassq.intake")
    log.warning("ping refused %s", fields(status=400, reason=error.title))

After `setup`, such a logger depends on nothing in Python's `logging` that others can change: not on levels, handlers,
filters or factories, nor on being disabled. Handlers run in glassq's processes and may change all of these.
Before `setup`, in a program that only imports glassq, its lines go where the program sends any library's lines.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from glassq import descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator

# Characters that could end a line, move a cursor or hide text in a terminal.
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_LEVELS = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}
_PLAIN = re.compile(r"[\w.,:;/@%+*()\[\]<>#~^!?&|-]+")


def escape(text: str) -> str:
    """The text with every control character written out, so that it stays on its line."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _indented(text: str) -> str:
    """Escapes and indents several lines, so that none can pass for a log line: they may hold any text."""
    return escape("\n".join(f"  | {line}" for line in text.split("\n")))


class Pairs(str):
    """`key=value` pairs as one text; `fields` holds the values themselves, for lines in JSON."""

    __slots__ = ("fields",)

    fields: dict[str, object]


def fields(**values: object) -> Pairs:
    """`key=value` pairs; values with spaces or quotes are quoted."""
    pairs = Pairs(" ".join([f"{key}={_value(value)}" for key, value in values.items()]))
    pairs.fields = values
    return pairs


_NO_FIELDS = fields()
# The bound context of this thread: fields for lines that do not have them.
_context: ContextVar[dict[str, object] | None] = ContextVar("context", default=None)


def bind_context(**values: object) -> None:
    """Adds these fields to every later log line of this thread, from any logger. Without arguments, removes them."""
    # as text only in the lines that need it: most have these fields themselves
    _context.set(values or None)


def _line_fields(record: logging.LogRecord) -> list[Pairs]:
    """The fields that the line has itself."""
    return [pairs for pairs in record.args if isinstance(pairs, Pairs)] if isinstance(record.args, tuple) else []


def _context_fields(record: logging.LogRecord) -> Pairs:
    """The bound context, without the fields that the line has itself."""
    left = _context.get() or {}
    for own in _line_fields(record) if left else ():
        # the lines of every delivery have them all
        if left.keys() <= own.fields.keys():
            return _NO_FIELDS
        left = {key: value for key, value in left.items() if key not in own.fields}
    return fields(**left) if left else _NO_FIELDS


def _level(record: logging.LogRecord) -> str:
    """The name of the record's level; a handler may have renamed the standard ones (logging.addLevelName)."""
    return _LEVELS.get(record.levelno) or record.levelname.lower()


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    if isinstance(value, int):
        return text
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\n", "\\n").replace("\t", "\\t").replace('"', "'") + '"'


class _Output:
    """The output of glassq's own lines. Before `setup` it is empty, and they go to Python's `logging`."""

    handler: logging.Handler | None = None
    # the stream's copy, if `release` must close it
    copy: _Copy | None = None


_output = _Output()


class _Record(logging.LogRecord):
    """What our formatters read. LogRecord itself finds out more, which takes as long as the rest of a line."""

    def __init__(self, name: str, level: int, message: object, arguments: Any) -> None:
        # not LogRecord's own
        self.name, self.levelno, self.levelname = name, level, logging.getLevelName(level)
        self.msg, self.args = message, arguments
        self.created, self.process = time.time(), os.getpid()
        self.exc_info = self.exc_text = self.stack_info = None


class _Logger(logging.Logger):
    """A logger of glassq. After `setup` it ignores everything that a handler can change from outside."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name logging calls
        if _output.handler is None:
            return super().isEnabledFor(level)
        return level >= _output.handler.level

    def _log(self, level: int, msg: object, args: Any, exc_info: Any = None, *rest: Any, **more: Any) -> None:
        if _output.handler is None or exc_info:
            super()._log(level, msg, args, exc_info, *rest, **more)
        else:
            _output.handler.handle(_Record(self.name, level, msg, args))

    def makeRecord(  # noqa: N802 - the name logging calls
        self, name: str, level: int, fn: str, lno: int, msg: object, args: Any, exc_info: Any, *rest: Any, **more: Any
    ) -> logging.LogRecord:
        if _output.handler is None:
            return super().makeRecord(name, level, fn, lno, msg, args, exc_info, *rest, **more)
        return logging.LogRecord(name, level, fn, lno, msg, args, exc_info)

    def handle(self, record: logging.LogRecord) -> None:
        if _output.handler is None:
            super().handle(record)
        else:
            _output.handler.handle(record)


def logger(name: str) -> logging.Logger:
    """The logger of this name, which no change to Python's `logging` can silence from now on."""
    made = logging.getLogger(name)
    # a program may have created it before, to set its level
    made.__class__ = _Logger
    return made


class Formatter(logging.Formatter):
    """`2026-01-31T12:00:00+0000 warning glassq.intake[4711]: words key=value`; tracebacks keep their lines.

    Without `stamped` it is `warning glassq.intake: words key=value`, for readers that add time and pid themselves.
    """

    # common recipes set logging.Formatter.converter for a whole process
    converter = staticmethod(time.localtime)

    def __init__(self, *, stamped: bool = True) -> None:
        super().__init__("%(message)s", "%Y-%m-%dT%H:%M:%S%z")
        self._stamped = stamped
        self._second = (0, "")

    def format(self, record: logging.LogRecord) -> str:
        """The line, with a traceback if the record has one."""
        if record.exc_info or record.exc_text or record.stack_info:
            return super().format(record)
        record.message = record.getMessage()
        return self.formatMessage(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - as logging calls it
        # cached per second: formatting the time is half of the work of a line
        second = int(record.created)
        if second != self._second[0]:
            self._second = (second, super().formatTime(record, datefmt))
        return self._second[1]

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name logging calls
        words = f"{record.message} {_context_fields(record)}".rstrip()
        # nearly all are, and this is sooner known
        if not words.isprintable():
            words = escape(words.replace("\n", "\\n").replace("\t", "\\t"))
        line = f"{_level(record)} {record.name}"
        if not self._stamped:
            return f"{line}: {words}"
        # None if a handler has set logging.logProcesses to False
        return f"{self.formatTime(record, self.datefmt)} {line}[{record.process or os.getpid()}]: {words}"

    def formatException(self, ei: object) -> str:  # noqa: N802 - the name logging calls
        return _indented(super().formatException(ei))  # type: ignore[arg-type]

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - the name logging calls
        return _indented(super().formatStack(stack_info))


class JsonFormatter(logging.Formatter):
    """`{"time":...,"level":...,"logger":...,"pid":...,"event":"words","key":value,...}`, one line per event."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, in ASCII. A field never hides one of the line's own keys: it gets an underscore."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        words = tuple("" if isinstance(each, Pairs) else each for each in arguments)
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": _level(record),
            "logger": record.name,
            "pid": record.process or os.getpid(),
            "event": str(record.msg % words).rstrip() if words else record.getMessage(),
        }
        for each in (*_line_fields(record), _context_fields(record)):
            line |= {f"{key}_" if key in line else key: value for key, value in each.fields.items()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, skipkeys=True)


class _WithPriority(logging.Formatter):
    """Adds a priority to another formatter's lines (sd-daemon(3)); systemd's journal strips it."""

    _PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        number = next(number for level, number in self._PRIORITIES if record.levelno >= level)
        return "\n".join(f"<{number}>{line}" for line in self._form.format(record).split("\n"))


class _Lines(logging.StreamHandler[TextIO]):
    """Writes lines; logs one line if a logger's format string and arguments do not fit together."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name logging calls
        error = sys.exception()
        # if the stream itself fails, nothing can be logged
        with suppress(Exception):
            if not isinstance(error, OSError):
                why = fields(words=record.msg, why=f"{type(error).__name__}: {error}")
                line = (record.name, logging.ERROR, "", 0, "this cannot be logged %s", (why,), None)
                self.stream.write(self.format(logging.LogRecord(*line)) + self.terminator)


class _ForeignLines(_Lines):
    """Writes the lines of handlers and libraries, unless their own logging handler writes to the same stream."""

    def filter(self, record: logging.LogRecord) -> Any:
        return super().filter(record) and not any(map(self._writes_too, _handlers_of(record)))

    def _writes_too(self, other: logging.Handler) -> bool:
        if other is self or not isinstance(other, logging.StreamHandler):
            return False
        return other.stream is self.stream or _identity(other.stream) == _identity(self.stream) != ""


def _handlers_of(record: logging.LogRecord) -> Iterator[logging.Handler]:
    """The logging handlers that get the record."""
    current: logging.Logger | None = logging.getLogger(record.name)
    while current is not None:
        yield from (each for each in current.handlers if record.levelno >= each.level)
        current = current.parent if current.propagate else None


def setup(level: str = "info", stream: TextIO | None = None, *, form: str = "text", journal: str | None = None) -> None:
    """Sends glassq's log lines to `stream` (standard error), and those of other loggers until they are reconfigured.

    Call it at the root, and again after a change of settings. `form` is "text" or "json". `journal` is systemd's
    JOURNAL_STREAM: if `stream` is that stream, lines carry a priority, and text lines leave time and pid to systemd's
    journal. JSON lines always have them, because they may be forwarded.
    """
    # no formatter here uses threads, tasks or source lines (see "Optimization" in the Logging HOWTO)
    for name in ("logThreads", "logMultiprocessing", "logAsyncioTasks", "_srcfile"):
        setattr(logging, name, None)
    others = _ForeignLines(stream or sys.stderr)
    own = _duplicate(others.stream)
    ours = _OwnLines(own, others.stream) if own else _Lines(others.stream)
    in_journal = bool(journal) and journal == _identity(others.stream)
    formatter = JsonFormatter() if form == "json" else Formatter(stamped=not in_journal)
    for handler in (others, ours):
        handler.setFormatter(_WithPriority(formatter) if in_journal else formatter)
    ours.setLevel(level.upper())
    before, _output.handler, _output.copy = _output.copy, ours, own
    if before is not None:
        before.close()
    logging.basicConfig(level=level.upper(), handlers=[others], force=True)
    # Log lines of these contain URLs with users' ids, or where credentials were found; warnings are enough.
    for name in ("google", "httplib2", "botocore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Their warnings quote URL and response; the reason of the attempt already has the cause.
    for name in ("googleapiclient", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)


def release() -> None:
    """Undoes `setup` for glassq's lines: they go where the program sends any library's lines."""
    before, _output.handler, _output.copy = _output.copy, None, None
    if before is not None:
        before.close()


class _Copy:
    """The file of a stream, under a descriptor of its own: glassq's lines survive a closed or replaced stream."""

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor = descriptor
        self._identity = descriptors.identity_of(descriptor)
        # Never closed by Python itself: who closes a descriptor that a handler has closed closes another file.
        self.stream = open(  # noqa: SIM115
            descriptor, "w", buffering=1, encoding=encoding, errors="backslashreplace", closefd=False
        )
        descriptors.own(self, "the log")

    def fileno(self) -> int:
        """Its descriptor; -1 once it is closed."""
        return self._descriptor

    def whole(self) -> bool:
        """Whether the descriptor still leads to the file that was opened."""
        try:
            return descriptors.identity_of(self._descriptor) == self._identity
        except OSError:
            return False

    def is_same(self, stream: TextIO) -> bool:
        """Whether this stream leads to the same file."""
        with suppress(AttributeError, OSError, ValueError):
            return descriptors.identity_of(stream.fileno()) == self._identity
        return False

    def close(self) -> None:
        """Closes it, if it is still ours."""
        descriptor, whole = self._descriptor, self.whole()
        self._descriptor = -1
        with suppress(OSError):
            self.stream.close()
        if whole:
            os.close(descriptor)


class _OwnLines(_Lines):
    """Writes glassq's own lines to a copy of the log's descriptor; see `descriptors`."""

    def __init__(self, copy: _Copy, other: TextIO) -> None:
        """`other` gets the lines once a handler has closed the copy, if it still leads to the same file."""
        super().__init__(copy.stream)
        self._copy = copy
        self._other = other

    def emit(self, record: logging.LogRecord) -> None:
        if self.stream is self._copy.stream and not self._copy.whole():
            if not self._copy.is_same(self._other):
                return
            self.stream = self._other
        super().emit(record)

    def flush(self) -> None:
        # the copy writes each line at once
        if self.stream is not self._copy.stream:
            super().flush()


def _duplicate(stream: TextIO) -> _Copy | None:
    """A copy of the stream's descriptor; None if the stream is not a file."""
    try:
        return _Copy(descriptors.aside(os.dup(stream.fileno())), stream.encoding)
    except (AttributeError, OSError, ValueError):
        return None


def _identity(stream: TextIO) -> str:
    """Device and inode of a stream, in the form of JOURNAL_STREAM (systemd.exec(5)); "" if it is not a file."""
    try:
        found = os.fstat(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return ""
    return f"{found.st_dev}:{found.st_ino}"
