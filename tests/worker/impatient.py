"""glassq-worker with another limit for silent children, or with other constants: what it waits for comes earlier.

While there is a file `hold-births` beside the settings, a new child waits before it does anything.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from glassq import log
from glassq.programs import worker
from glassq.settings import load
from glassq.systemd import Notifier
from glassq.worker.pool import Pool


def main() -> int:
    """Arguments: the settings file; after how many seconds of silence a child is killed, "" as ever; MODULE.NAME=VALUE
    of constants.
    """
    config, silence, *constants = sys.argv[1:]
    for each in constants:
        name, _, value = each.partition("=")
        module, _, name = name.rpartition(".")
        assert hasattr(import_module(module), name), each
        setattr(import_module(module), name, float(value))
    if not silence:
        sys.argv = ["glassq-worker", "--config", config]
        return worker.main()
    settings = load(config, {})
    log.setup()
    notify = Notifier(os.environ.pop("NOTIFY_SOCKET", None))
    plan = replace(worker.plan(settings), silence=float(silence))

    def hold_birth() -> None:
        while Path(config).with_name("hold-births").exists():
            time.sleep(0.02)

    os.register_at_fork(after_in_child=hold_birth)
    return Pool(lambda: plan, notify, watchdog=1).run()
