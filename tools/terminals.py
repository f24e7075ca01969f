"""Writes docs/demo.svg, docs/buried.svg and docs/github.svg: what real commands show, as pictures of a terminal.

`python tools/terminals.py [DIRECTORY]`. Each run has other ids and times, so nothing compares them; nothing of this
machine is in them.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
WIDTH = 118
# What the directory of the trial, and the address of its intake, are called in the pictures.
HOME, ADDRESS = "~/glassq", "127.0.0.1:8080"
DEMO = ("glassq", "demo", "--keep")
# How long the demo and each step of the session may take, in seconds.
PATIENCE = 240.0
# rich names fonts of a server elsewhere; a picture in a document shall ask nobody.
_FONTS = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
# A link that signs in to the console, once, is two lines long.
_CODE = re.compile(r"(login\?code=)[\w.-]+(?:\n[\w.-]{20,})?")
_COLORS = re.compile(r"\x1b\[[0-9;]*m")

# The handler of README's first minutes, and the same that finds something to give up.
HANDLER = """\
from glassq import Bury, Delivery, Drop


def handle(delivery: Delivery) -> str:
    if delivery.labels.get("event") != "push":
        raise Drop("not a push")
    return f"{len(delivery.json()['commits'])} commits"
"""
BURIES = HANDLER.replace("    return", '    raise Bury("no board for this repository")\n    return')

# Lines of a picture: a command, or a remark, and what was printed.
Shown = tuple[str, str]


def main(target: Path) -> None:
    """Runs the demo and a new user's session, and writes the pictures."""
    with trial("var/demo/glassq.toml") as demo, demo.running(*DEMO, until="Still running") as log:
        shown = demo.clean(log().partition("\nStill running")[0])
        picture(target / "demo.svg", [("$ glassq demo", shown)], "glassq demo")
        picture(target / "buried.svg", list(questions(demo)), "glassq buried")
    with trial("var/glassq.toml") as dev:
        picture(target / "github.svg", list(github(dev)), "glassq and GitHub")


class Trial:
    """A directory in which commands are called as they are in a clone."""

    def __init__(self, home: Path, config: str) -> None:
        self.home = home
        #: what stands for other words in the pictures
        self.replaced = {str(home): HOME}
        plain = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._environment = {**plain, "COLUMNS": str(WIDTH), "FORCE_COLOR": "1", "GLASSQ_CONFIG": config}

    def ask(self, *command: str) -> Shown:
        """A command as it is typed, and what it prints."""
        return "$ " + shlex.join(command), self.clean(self.said(*command))

    def said(self, *command: str) -> str:
        """What a command prints. Exit code 1 is an answer, too: a request that is not genuine."""
        done = self.start(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output = done.communicate(timeout=PATIENCE)[0].decode()
        if done.returncode not in (0, 1):
            raise SystemExit(f"{shlex.join(command)}: exit code {done.returncode}\n{output}")
        return output

    def start(self, *command: str, **streams: Any) -> subprocess.Popen[bytes]:
        program = f".venv/bin/{command[0]}" if command[0] == "glassq" else command[0]
        return subprocess.Popen([program, *command[1:]], cwd=self.home, env=self._environment, **streams)

    @contextmanager
    def running(self, *command: str, until: str) -> Iterator[Callable[[], str]]:
        """A command that runs until Ctrl-C, once it has said this; yields what tells all that it has printed."""
        file = self.home / "running.log"
        with file.open("wb") as out:
            started = self.start(*command, stdout=out, stderr=subprocess.STDOUT)

        def log() -> str:
            if started.poll() is not None:
                raise SystemExit(f"{shlex.join(command)} has ended:\n{file.read_text('utf-8')}")
            return file.read_text("utf-8")

        try:
            wait(lambda: until in log())
            yield log
        finally:
            started.send_signal(signal.SIGINT)
            started.wait()

    def clean(self, output: str) -> str:
        for text, word in self.replaced.items():
            output = output.replace(text, word)
        return _CODE.sub(r"\1...", output)


@contextmanager
def trial(config: str) -> Iterator[Trial]:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name).resolve()
        (home / ".venv").mkdir()
        (home / ".venv" / "bin").symlink_to(BIN)
        yield Trial(home, config)


def wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit("the session does not go on")
        time.sleep(0.2)


def questions(demo: Trial) -> Iterator[Shown]:
    """What is asked after the demo."""
    yield demo.ask("glassq", "buried", "--limit", "6")
    by_reason = demo.ask("glassq", "buried", "--by", "reason")
    yield by_reason
    yield demo.ask("glassq", "kick", "--group", found(r"--group ([0-9a-f]{12})", by_reason), "--dry-run")
    yield demo.ask("glassq", "sources")


def github(dev: Trial) -> Iterator[Shown]:
    """A new user's first minutes with GitHub, as README tells them."""
    address = f"127.0.0.1:{free_port()}"
    dev.replaced[address] = ADDRESS
    with dev.running("glassq", "dev", "--bind", address, until=" status\n") as log:

        def save(handler: str) -> None:
            before = log().count("handlers.py: in effect")
            (dev.home / "var" / "handlers.py").write_text(handler, "utf-8")
            wait(lambda: log().count("handlers.py: in effect") > before)

        yield "$ glassq dev", dev.clean(log())
        save(HANDLER)
        yield "# in another terminal", ""
        yield dev.ask("grep", "-A", "1", "sources.github", "var/glassq.toml")
        yield "$ cat var/handlers.py", HANDLER
        yield dev.ask("glassq", "ping", "github", "--event", "push")
        wait(lambda: "done" in dev.said("glassq", "tail", "-n", "1", "--once"))
        yield dev.ask("glassq", "tail", "-n", "1", "--once")
        (dev.home / "request.http").write_bytes(saved_request(dev).replace(b"refs/heads/main", b"refs/heads/mine"))
        yield "# a request that a proxy has changed on its way", ""
        yield dev.ask("glassq", "sources", "test", "github", "request.http")
        save(BURIES)
        yield from buried_and_kicked(dev, lambda: save(HANDLER))


def buried_and_kicked(dev: Trial, mend: Callable[[], None]) -> Iterator[Shown]:
    yield '# the handler says now: raise Bury("no board for this repository")', ""
    yield dev.ask("glassq", "ping", "github", "--event", "push")
    wait(lambda: "no board" in dev.said("glassq", "buried"))
    # the table itself is in another picture
    delivery = found(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", dev.ask("glassq", "buried"))
    command, story = dev.ask("glassq", "show", delivery)
    # the body would be half of the picture
    yield command, re.split(r"\n\S*body\b", story)[0] + "\n..."
    mend()
    yield "# the handler is mended", ""
    yield dev.ask("glassq", "kick", "--source", "github", "--yes")
    wait(lambda: "done" in dev.said("glassq", "tail", "-n", "1", "--once"))
    yield dev.ask("glassq", "tail", "-n", "1", "--once")


def found(pattern: str, shown: Shown) -> str:
    match = re.search(pattern, _COLORS.sub("", shown[1]))
    assert match is not None, shown
    return match[1]


def saved_request(dev: Trial) -> bytes:
    """A ping of GitHub's, as whoever listens gets it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        sender = dev.start("glassq", "ping", "github", "--url", url, stdout=subprocess.DEVNULL)
        with server.accept()[0] as sock:
            data = b""
            while not _is_whole(data):
                data += sock.recv(65536)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        sender.wait(PATIENCE)
    return data


def _is_whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return bool(end and length and len(body) >= int(length[1]))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def picture(file: Path, shown: list[Shown], title: str) -> None:
    """Writes commands and what they printed as one picture."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    for number, (command, output) in enumerate(shown):
        console.print(Text(("\n" if number else "") + command, style="bold green" if command[0] == "$" else "dim"))
        if output:
            console.print(Text.from_ansi(output.rstrip()), soft_wrap=False)
    svg = _FONTS.sub("", console.export_svg(title=title, unique_id="terminal"))
    file.write_text(svg, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs")
