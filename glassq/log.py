"""Log lines: one per event, on standard error, that no sender can forge.

Whoever logs writes the event in words and passes values through `kv`:

    log.warning("ping refused %s", kv(status=400, reason=error.title))
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

# Anything that could end a line, move a cursor or hide text in a terminal.
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_PLAIN = re.compile(r"[\w.,:;/@%+*()\[\]<>#~^!?&|-]+")


def escape(text: str) -> str:
    """The text with every control character written out, so that it stays on its line."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _set_off(text: str) -> str:
    """Several lines, none of which can pass for one of ours: a message inside may hold anything."""
    return escape("\n".join(f"  | {line}" for line in text.split("\n")))


class Pairs(str):
    """`key=value` pairs as one text; `fields` are the values themselves, for lines in JSON."""

    __slots__ = ("fields",)

    fields: dict[str, object]


def kv(**fields: object) -> Pairs:
    """`key=value` pairs; values with spaces or quotes are quoted."""
    pairs = Pairs(" ".join(f"{key}={_value(value)}" for key, value in fields.items()))
    pairs.fields = fields
    return pairs


# What lines are about, where they do not say it themselves.
_subject: ContextVar[Pairs | None] = ContextVar("subject", default=None)


def about(**fields: object) -> None:
    """Every line of this thread from now on says these fields too, whoever logs it; without any, no longer."""
    _subject.set(kv(**fields) if fields else None)


def _said(record: logging.LogRecord) -> list[Pairs]:
    return [each for each in record.args if isinstance(each, Pairs)] if isinstance(record.args, tuple) else []


def _unsaid(record: logging.LogRecord) -> Pairs:
    """What the line is about, as far as it does not say so itself."""
    subject = _subject.get()
    if subject is None:
        return kv()
    said = {key for each in _said(record) for key in each.fields}
    return kv(**{key: value for key, value in subject.fields.items() if key not in said})


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value).replace("\n", "\\n").replace("\t", "\\t")
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.replace('"', "'") + '"'


class Formatter(logging.Formatter):
    """`2026-01-31T12:00:00+0000 warning glassq.intake[4711]: words key=value`; tracebacks keep their lines.

    Without `stamped` it is `warning glassq.intake: words key=value`, for readers that note time and pid by themselves.
    """

    def __init__(self, *, stamped: bool = True) -> None:
        form = "%(asctime)s %(levelword)s %(name)s[%(process)d]: %(message)s"
        super().__init__(form if stamped else "%(levelword)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        self._second = (0, "")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - as logging calls it
        # a busy process writes many lines a second, and the time of day is half of the work of each
        second = int(record.created)
        if second != self._second[0]:
            self._second = (second, super().formatTime(record, datefmt))
        return self._second[1]

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name logging calls
        record.levelword = record.levelname.lower()
        words = record.message.replace("\n", "\\n").replace("\t", "\\t")
        record.message = escape(f"{words} {_unsaid(record)}".rstrip())
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802 - the name logging calls
        return _set_off(super().formatException(ei))  # type: ignore[arg-type]

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - the name logging calls
        return _set_off(super().formatStack(stack_info))


class JsonFormatter(logging.Formatter):
    """`{"time":...,"level":...,"logger":...,"pid":...,"event":"words","key":value,...}`, one line an event."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, in ASCII. What a field is called never hides what the line itself says."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        words = tuple("" if isinstance(each, Pairs) else each for each in arguments)
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "event": str(record.msg % words).rstrip() if words else record.getMessage(),
        }
        for each in (*_said(record), _unsaid(record)):
            line |= {f"{key}_" if key in line else key: value for key, value in each.fields.items()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, skipkeys=True)


class _Journal(logging.Formatter):
    """Another form's lines with their priority in front, as sd-daemon(3) has it; the journal takes it off again."""

    _PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        number = next(number for level, number in self._PRIORITIES if record.levelno >= level)
        return "\n".join(f"<{number}>{line}" for line in self._form.format(record).split("\n"))


class _Lines(logging.StreamHandler[TextIO]):
    """A call to a logger whose words and values do not fit together is told in one line, as everything is."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name logging calls
        error = sys.exception()
        # where the stream itself fails, there is nobody to tell
        with suppress(Exception):
            if not isinstance(error, OSError):
                why = kv(words=record.msg, why=f"{type(error).__name__}: {error}")
                line = (record.name, logging.ERROR, "", 0, "this cannot be logged %s", (why,), None)
                self.stream.write(self.format(logging.LogRecord(*line)) + self.terminator)


def setup(level: str = "info", stream: TextIO | None = None, *, form: str = "text", journal: str | None = None) -> None:
    """Sends every logger's lines to `stream` (standard error). Called once, at the root.

    `form` is "text" or "json". `journal` is systemd's JOURNAL_STREAM: where the stream is that one, lines bear their
    priority, and a text leaves time and pid to the journal. An object has them everywhere: it may travel on alone.
    """
    # nothing here prints threads, tasks or source lines (see "Optimization" in the Logging HOWTO)
    for name in ("logThreads", "logMultiprocessing", "logAsyncioTasks", "_srcfile"):
        setattr(logging, name, None)
    handler = _Lines(stream or sys.stderr)
    in_journal = bool(journal) and journal == _identity(handler.stream)
    formatter = JsonFormatter() if form == "json" else Formatter(stamped=not in_journal)
    handler.setFormatter(_Journal(formatter) if in_journal else formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Google's and HTTP libraries' own lines name URLs with users' ids; their warnings are enough.
    for name in ("google", "httplib2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # what a server refused or garbled is in the reason of the attempt; their warnings would quote URL and answer
    for name in ("googleapiclient", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _identity(stream: TextIO) -> str:
    """Device and inode of a stream, as JOURNAL_STREAM has them (systemd.exec(5)); "" where it is no file."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return ""
    return f"{found.st_dev}:{found.st_ino}"
