"""Acts as inetd for trials: each connection is a program's standard input and output. In production, systemd does this.

python3 listen.py [--port 8083] ./target.sh
"""

from __future__ import annotations

import argparse
import signal
import socketserver
import subprocess
import sys
from contextlib import suppress
from functools import partial

# Timeout for a connection, in seconds: App Engine's deadline for a task.
PATIENCE = 600.0


class Connection(socketserver.BaseRequestHandler):
    """One request, in its own thread."""

    def __init__(self, *arguments: object, command: list[str]) -> None:
        self._command = command
        super().__init__(*arguments)  # type: ignore[arg-type]

    def handle(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(self._command, stdin=self.request, stdout=self.request, timeout=PATIENCE, check=False)


class Server(socketserver.ThreadingTCPServer):
    """Waits for running requests when it ends."""

    allow_reuse_address = True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8083, help="on 127.0.0.1; 0 takes a free one (default: 8083)")
    parser.add_argument("command", nargs="+", help="the program, and its arguments")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Server(("127.0.0.1", arguments.port), partial(Connection, command=arguments.command)) as server:
        sys.stdout.write(f"listening at http://127.0.0.1:{server.server_address[1]}\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
