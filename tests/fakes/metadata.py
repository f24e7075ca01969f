"""The metadata server of a Google virtual machine, as far as google-auth asks it for an access token."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

_ANSWERS = {
    "/computeMetadata/v1/instance/service-accounts/default/": {
        "email": "vm@example.iam.gserviceaccount.com",
        "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
    },
    "/computeMetadata/v1/instance/service-accounts/default/token": {
        "access_token": "fake",
        "expires_in": 3600,
        "token_type": "Bearer",
    },
    "/computeMetadata/v1/universe/universe-domain": "googleapis.com",
}


class FakeMetadata(ThreadingHTTPServer):
    """Serves on a port of its own as long as the `with` lasts; `failing` maps the end of a path to a status."""

    daemon_threads = True

    def __init__(self, failing: dict[str, int] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.failing = failing or {}
        self.host = f"127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: FakeMetadata

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        found = _ANSWERS.get(path, "")
        status = next((status for end, status in self.server.failing.items() if path.endswith(end)), 200)
        body = (found if isinstance(found, str) else json.dumps(found)).encode() if status == 200 else b""
        self.send_response(status)
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Type", "application/text" if isinstance(found, str) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Nothing."""
