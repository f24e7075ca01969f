"""gunicorn's log lines in glassq's form."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gunicorn.glogging import Logger

if TYPE_CHECKING:
    import logging


class GunicornLog(Logger):  # type: ignore[misc]
    """The logger class named in conf/gunicorn.conf.py: its lines go where ours go."""

    def setup(self, cfg: Any) -> None:
        """gunicorn calls it before it logs anything."""
        super().setup(cfg)
        for logger in (self.error_log, self.access_log):
            logger.handlers.clear()
            logger.propagate = True
            logger.addFilter(_without_own_pid)


def _without_own_pid(record: logging.LogRecord) -> bool:
    """Removes the process id from gunicorn's message: each of our lines names the process that writes it."""
    pid = os.getpid()
    # a record whose arguments do not fit its message is logged as it is
    with suppress(TypeError, ValueError):
        words = re.sub(rf"(?: with pid: {pid}| \((?:pid: ?)?{pid}\))$", "", record.getMessage())
        record.msg, record.args = words, ()
    return True
