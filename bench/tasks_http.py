"""Tasks a second by glassq-tasks beside pings a second by glassq-web: one process each, in turn, 32 connections."""

from __future__ import annotations

import base64
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import load
from servers import ROOT, TOKEN, free_port, process, queue, settings, wait_for_port

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECTIONS, SECONDS, ROUNDS = 32, 3.0, 5
QUEUE = "/v2/projects/p/locations/l/queues/default"
TASKS = """
[push]
names = "sqlite:///{directory}/names.db"
[push.targets]
default = "http://127.0.0.1:9"
[tasks]
bind = "127.0.0.1:{port}"
token_file = "{directory}/tokens"
"""


def requests(port: int) -> Mapping[str, bytes]:
    """A request of each kind, with a payload as large as the ping's."""
    payload = load.request(port).partition(b"\r\n\r\n")[2]
    task = {"httpRequest": {"url": "http://127.0.0.1:9/work", "body": base64.b64encode(payload).decode()}}
    return {
        "tasks, as Cloud Tasks": _post(f"{QUEUE}/tasks", json.dumps({"task": task}).encode()),
        "tasks, in short": _post("/tasks/default/work", payload),
    }


def _post(path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def main() -> None:
    with tempfile.TemporaryDirectory() as place, queue(Path(place)) as found:
        directory, web, port = Path(place), free_port(), free_port()
        push = TASKS.format(directory=directory, port=port)
        file = settings(directory, found, web, handler="handlers:noop", processes=1, push=push)
        # one process each
        file.write_text(file.read_text().replace("workers = 2", "workers = 1"))
        commands = {
            name: [sys.executable, str(ROOT / "bin" / name), "--config", str(file)]
            for name in ("glassq-web", "glassq-tasks")
        }
        kinds = {"pings": (web, load.request(web))} | {name: (port, data) for name, data in requests(port).items()}
        rates: dict[str, list[float]] = {name: [] for name in kinds}
        with (
            process(commands["glassq-web"], directory / "web.log"),
            process(commands["glassq-tasks"], directory / "tasks.log"),
        ):
            wait_for_port(web)
            wait_for_port(port)
            for _ in range(ROUNDS):
                for name, (where, data) in kinds.items():
                    done = load.full_speed(where, connections=CONNECTIONS, seconds=SECONDS, data=data)
                    if done.failed:
                        sys.exit(f"bench: {done.failed} of {len(done.times)} {name} were refused")
                    rates[name].append(done.rate)
        for name, found_rates in rates.items():
            print(f"{name:24}{statistics.median(found_rates):8.0f} a second, of {sorted(map(round, found_rates))}")


if __name__ == "__main__":
    main()
