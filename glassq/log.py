"""Log lines: one per event, on standard error, that no sender can forge.

Whoever logs writes the event in words and passes values through `kv`:

    log.warning("ping refused %s", kv(status=400, reason=error.title))
"""

from __future__ import annotations

import logging
import re
import sys
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


def kv(**fields: object) -> str:
    """`key=value` pairs; values with spaces or quotes are quoted."""
    return " ".join(f"{key}={_value(value)}" for key, value in fields.items())


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value).replace("\n", "\\n").replace("\t", "\\t")
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.replace('"', "'") + '"'


class Formatter(logging.Formatter):
    """`2026-01-31T12:00:00+0000 warning glassq.intake[4711]: words key=value`; tracebacks keep their lines."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelword)s %(name)s[%(process)d]: %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        self._second = (0, "")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - as logging calls it
        # a busy process writes many lines a second, and the time of day is half of the work of each
        second = int(record.created)
        if second != self._second[0]:
            self._second = (second, super().formatTime(record, datefmt))
        return self._second[1]

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name logging calls
        record.levelword = record.levelname.lower()
        record.message = escape(record.message.replace("\n", "\\n").replace("\t", "\\t"))
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802 - the name logging calls
        return _set_off(super().formatException(ei))  # type: ignore[arg-type]

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - the name logging calls
        return _set_off(super().formatStack(stack_info))


def setup(level: str = "info", stream: TextIO | None = None) -> None:
    """Sends every logger's lines to `stream` (standard error) in our form. Called once, at the root."""
    # nothing here prints threads, tasks or source lines (see "Optimization" in the Logging HOWTO)
    for name in ("logThreads", "logMultiprocessing", "logAsyncioTasks", "_srcfile"):
        setattr(logging, name, None)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Formatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Google's and HTTP libraries' own lines name URLs with users' ids; their warnings are enough.
    for name in ("google", "httplib2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # what a server refused or garbled is in the reason of the attempt; their warnings would quote URL and answer
    for name in ("googleapiclient", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
