"""A source under way: pings at a steady rate, however long each takes. A program, run in the machine's network.

    python -m tests.system.sender URL TOKEN NAME RATE

It ends with its input, and prints a JSON list with one entry a ping: item, the status of each try, and the seconds from
when it was due to when it was acknowledged.
"""

from __future__ import annotations

import json
import select
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count

from glassq.dev.simulator.ping import send_ping

# As many pings may be on their way at the same time: a sender does not wait for the answer to another one.
WAYS = 600
# How often a ping is sent at the most, and how long an answer may take, in seconds. Mirror is less patient; but what a
# crowded machine takes longer for is not what is looked for here, and the slowest answer is told.
TRIES, TIMEOUT = 10, 60.0


def main(url: str, token: str, name: str, rate: float) -> None:
    began, never = time.monotonic(), threading.Event()
    sent: list[Future[tuple[str, tuple[int, ...], float]]] = []

    def send(item: str, due: float) -> tuple[str, tuple[int, ...], float]:
        ping = {
            "collection": "locations",
            "itemId": item,
            "operation": "UPDATE",
            "userToken": "u",
            "verifyToken": token,
        }
        result = send_ping(url, ping, never, tries=TRIES, timeout=TIMEOUT)
        return item, result.statuses, time.monotonic() - due

    with ThreadPoolExecutor(WAYS) as ways:
        for number in count():
            due = began + number / rate
            if select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
                break
            sent.append(ways.submit(send, f"{name}-{number}", due))
    print(json.dumps([each.result() for each in sent]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
