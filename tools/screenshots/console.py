"""glassq-console that remembers a day: as it is, but for the samples of a file.

`python console.py CONFIG PORT PAST NAME`: PAST is JSON, for each tube its samples; NAME is what the host is called.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from glassq.console import console
from glassq.console.server import ConsoleServer
from glassq.operations.curves import CountSample, Curve
from glassq.operations.sampler import Sampler, Samples
from glassq.values import Bind

PAST = Path(sys.argv[3])


class RememberingSampler(Sampler):
    """It has looked since yesterday."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        sums: dict[float, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        for name, samples in json.loads(PAST.read_text()).items():
            curve = self._curves.setdefault(name, Curve())
            for at, *counts in samples:
                curve.add(CountSample(at, *counts))
                sums[at] = [known + more for known, more in zip(sums[at], counts, strict=True)]
        for at, counts in sums.items():
            self._all.add(CountSample(at, *counts))
        self._view = Samples(all=self._all, since=datetime.fromtimestamp(min(sums), UTC))


if __name__ == "__main__":
    config, port, _, name = sys.argv[1:]
    console.Sampler = RememberingSampler  # type: ignore[misc]
    socket.gethostname = lambda: name
    # commands on its pages name no file
    os.environ["GLASSQ_CONFIG"] = config
    ConsoleServer(None, Bind(f"127.0.0.1:{port}")).run()
