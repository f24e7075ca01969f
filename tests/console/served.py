"""A console as a real process, on a socket of its own, and a browser that has signed in there."""

from __future__ import annotations

import grp
import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tests.conftest import Process, wait_for
from tests.intake.wire import Answer, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

GROUP = grp.getgrgid(os.getgid()).gr_name
NOWHERE = '[queue]\nurl = "beanstalk://127.0.0.1:1"\n'


class Served:
    """A console on a socket in a directory that everybody may enter."""

    def __init__(self, directory: Path, queue: str = NOWHERE, ledger: str = "") -> None:
        """`queue` is that section of its settings; `ledger` is that database, else a file in the directory."""
        directory.chmod(0o755)
        self.socket = directory / "console.sock"
        self.file = directory / "glassq.toml"
        self.file.write_text(
            f'{queue}[ledger]\nurl = "{ledger or f"sqlite:///{directory}/ledger.db"}"\n'
            f'[console]\nbind = "unix:{self.socket}"\noperators = ["{GROUP}"]\nviewers = []\n'
            f'state = "{directory}/console"\n'
        )
        self.process = Process(["--config", str(self.file)], directory / "log", forks="glassq-console")
        wait_for(lambda: not self.process.running() or self.answers(), "the console to answer")
        assert self.process.running(), self.process.output()
        self.cookie = ""

    def answers(self) -> bool:
        try:
            return self.ask("GET /healthz").status == 200
        except (OSError, EOFError):
            return False

    def ask(self, line: str, *headers: str, body: bytes = b"", length: int | None = None) -> Answer:
        lines = [f"{line} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body) if length is None else length}"]
        data = "\r\n".join([*lines, *headers]).encode("latin-1") + b"\r\n\r\n" + body
        with Wire(str(self.socket)) as wire:
            return wire.ask(data)

    def post(self, path: str, body: bytes = b"", *headers: str) -> Answer:
        form = "Content-Type: application/x-www-form-urlencoded"
        return self.ask(f"POST {path}", form, "Sec-Fetch-Site: same-origin", *headers, body=body)

    # -- with a session ---------------------------------------------------------------------------------------------

    def sign_in(self) -> None:
        """From now on `get`, `json` and `send` are a signed-in operator's."""
        answer = self.post("/login")
        assert answer.status == 303, answer
        self.cookie = f"Cookie: {answer.headers['set-cookie'].partition(';')[0]}"

    def get(self, path: str) -> Answer:
        return self._patiently(lambda: self.ask(f"GET {path}", self.cookie, "Accept: text/html"))

    def json(self, path: str) -> Any:
        answer = self.get(path)
        assert answer.status == 200, (path, answer)
        return json.loads(answer.body)

    def send(self, path: str, form: Mapping[str, str]) -> str:
        """Sends a form; the path that the answer leads to."""
        answer = self._patiently(lambda: self.post(path, urlencode(form).encode(), self.cookie))
        assert answer.status == 303, (path, answer)
        return answer.headers["location"]

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        """The answer to what a session that asks for very much may have to ask again."""
        found: list[Answer] = []

        def answered() -> bool:
            found.append(ask())
            return found[-1].status != 429

        wait_for(answered, "an answer")
        return found[-1]

    def end(self) -> None:
        """Ends it, as systemd does; nothing went wrong in it meanwhile."""
        assert self.process.end() == 0, self.process.output()
        assert "Traceback" not in self.process.output(), self.process.output()
