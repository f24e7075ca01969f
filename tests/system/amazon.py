"""Amazon's host for SNS as a program, run in the machine's network, where /etc/hosts names this machine for it.

    python -m tests.system.amazon DIRECTORY

server.pem in the directory is the host's certificate with its key, signer.pem what it publishes. The targets of other
requests go to the file visited, a line each. Ends with its input.
"""

from __future__ import annotations

import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def main(directory: Path) -> None:
    class Host(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.endswith(".pem"):
                with (directory / "visited").open("a") as visited:
                    print(self.path, file=visited)
            body = (directory / "signer.pem").read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, *_: object) -> None:
            """Standard error is the tests'."""

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(directory / "server.pem")
    with ThreadingHTTPServer(("127.0.0.1", 443), Host) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        sys.stdin.read()
        server.shutdown()
        thread.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
