import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from glassq.dev.simulator.glass import SimulatedGlass


class Callback:
    """A Glassware's callback: keeps what it gets, answers `statuses` one after the other, then 200."""

    def __init__(self):
        self.pings, self.statuses, self.first, self.verify_token = [], [], threading.Event(), None
        self._lock = threading.Lock()
        callback = self

        class Handler(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True

            def do_POST(self):
                form = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(callback.status(form))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks/mirror"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def status(self, form):
        with self._lock:
            self.pings.append(form)
            self.first.set()
            if self.verify_token is not None and form.get("verifyToken") != self.verify_token:
                return 403
            return self.statuses.pop(0) if self.statuses else 200

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def glass():
    with SimulatedGlass() as glass:
        yield glass


@pytest.fixture
def callback():
    with Callback() as callback:
        yield callback
