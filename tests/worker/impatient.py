"""glassq-worker with another limit for silent children.

While there is a file `hold-births` beside the settings, a new child waits before it does anything.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from glassq import log
from glassq.programs.worker import plan as plan_of
from glassq.settings import load
from glassq.systemd import Notifier
from glassq.worker.pool import Pool


def main() -> int:
    """Arguments: the settings file, and after how many seconds of silence a child is killed."""
    config, silence = sys.argv[1:]
    settings = load(config, {})
    log.setup()
    notify = Notifier(os.environ.pop("NOTIFY_SOCKET", None))
    plan = replace(plan_of(settings), silence=float(silence))

    def hold_birth() -> None:
        while Path(config).with_name("hold-births").exists():
            time.sleep(0.02)

    os.register_at_fork(after_in_child=hold_birth)
    return Pool(lambda: plan, notify, watchdog=1).run()
