"""bin/glassq-web as a real process, on a port and with settings of its own."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from glassq.journal import Journal
from tests.conftest import ROOT, Beanstalkd, Process, free_port, program, wait_for
from tests.intake.wire import HEALTH, MARKER, PATIENCE, TOKEN, Wire
from tests.syncers import queue_section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.intake.wire import Answer

# Without a compiler there is no fast one.
PARSERS = ["python", "fast"] if find_spec("gunicorn_h1c") else ["python"]
_PATH = re.compile(r' path=(?:"[^"]*"|[^" ]*)')
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


class Web:
    """glassq-web with its files in `directory`. `settings` are keys of [intake]."""

    def __init__(
        self,
        directory: Path,
        queue_url: str,
        *,
        tokens: str = TOKEN,
        at: tuple[str, int] | str | None = None,
        parser: str = "auto",
        conf: str = "",
        queue: str = "",
        under: tuple[str, ...] = (),
        budget: float = PATIENCE / 20,
        **settings: Any,
    ) -> None:
        """`at` is where to reach it, when `bind` is among the settings; `parser` is gunicorn's http_parser.

        `conf` is what gunicorn.conf.py has besides, `queue` are more lines of [queue].

        `under` is a command that starts it. `budget` is the time of the queue for a batch, in seconds: by default a
        busy test machine would use the journal now and then.
        """
        directory.mkdir(exist_ok=True)
        ours = (ROOT / "conf" / "gunicorn.conf.py").read_text()
        budgets = f"from glassq.intake import durable_store, watcher\ndurable_store.BUDGET = {budget}\n"
        budgets += f"watcher.PROBE_BUDGET = {budget}\n"
        (directory / "gunicorn.conf.py").write_text(f'{ours}\nhttp_parser = "{parser}"\n{budgets}{conf}\n')
        self.dir = directory
        self.tokens = directory / "tokens"
        self.tokens.write_text(tokens + "\n")
        self.address = at or ("127.0.0.1", free_port())
        self.file = directory / "glassq.toml"
        self.spool = directory / "spool"
        keys = {
            "bind": f"127.0.0.1:{self.address[1]}",
            "workers": 1,
            "threads": 4,
            "journal": str(self.spool),
        } | settings
        self.file.write_text(toml(queue_url, keys, self.tokens, queue))
        arguments = ["--config", str(self.file)]
        if under:
            arguments = [*under, *program("glassq-web"), *arguments]
        self.process = Process(arguments, directory / "web.log", forks="" if under else "glassq-web")

    def wait_ready(self) -> None:
        wait_for(lambda: not self.process.running() or self.healthy(), "glassq-web to answer")
        assert self.process.running(), self.log()

    def healthy(self) -> bool:
        try:
            with self.wire() as wire:
                return wire.ask(HEALTH).status == 200
        except (OSError, EOFError):
            return False

    def wire(self) -> Wire:
        return Wire(self.address)

    def ask(self, data: bytes) -> Answer:
        """The answer to one request on a connection of its own."""
        with self.wire() as wire:
            return wire.ask(data)

    def log(self) -> str:
        return self.process.output()

    def journaled(self) -> int:
        """How many pings lie in its journal."""
        return Journal(self.spool, max_size=1 << 30, min_free=0).look().count

    def workers(self) -> list[int]:
        """The process ids of gunicorn's workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def stop(self) -> None:
        self.process.end()
        assert_clean(self.log())


def toml(queue_url: str, intake: dict[str, Any], tokens: Path, queue: str) -> str:
    keys = "".join(
        f'{name} = "{value}"\n' if isinstance(value, str) else f"{name} = {str(value).lower()}\n"
        for name, value in intake.items()
    )
    mirror = f'[sources.mirror]\nverify_tokens_file = "{tokens}"\n'
    if "[bodies]" not in queue:
        # else that of this machine, for whoever may write there
        mirror += f'[bodies]\nurl = "file://{tokens.parent}/bodies"\n'
    # debug: a line for each ping that is taken, too
    return f'{queue_section(queue_url)}{queue}\n[intake]\n{keys}{mirror}[log]\nlevel = "debug"\n'


def assert_clean(log: str) -> None:
    """Nothing a client does makes a traceback, forges a line, or brings what it sent into the log."""
    assert "Traceback" not in log
    assert not _CONTROL.search(log)
    # but the path of a request for what is not here, escaped, and masked where it may be a secret
    assert MARKER not in _PATH.sub("", log)
    assert TOKEN not in log


def empty(server: Beanstalkd) -> list[bytes]:
    """Takes all jobs out of the queue; their bodies."""
    queue = server.queue()
    bodies = []
    try:
        while job := queue.reserve(0):
            queue.delete(job.id)
            bodies.append(job.body)
    finally:
        queue.close()
    return bodies


@pytest.fixture(scope="session")
def shared_beanstalkd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beanstalkd]:
    """One for all tests that only put jobs; each takes its own out again."""
    server = Beanstalkd(tmp_path_factory.mktemp("beanstalkd"))
    yield server
    server.stop()


@pytest.fixture(scope="session", params=PARSERS)
def shared_web(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared_beanstalkd: Beanstalkd
) -> Iterator[Web]:
    """One for all tests that a server must survive unharmed; once with each of gunicorn's parsers."""
    server = Web(tmp_path_factory.mktemp("web"), shared_beanstalkd.url, parser=request.param)
    server.wait_ready()
    yield server
    server.stop()


@pytest.fixture
def web(shared_web: Web, shared_beanstalkd: Beanstalkd) -> Web:
    """The shared server, its queue empty."""
    empty(shared_beanstalkd)
    return shared_web


@pytest.fixture
def jobs(shared_beanstalkd: Beanstalkd) -> Callable[[], list[bytes]]:
    """Takes the jobs out of the shared server's queue."""
    return lambda: empty(shared_beanstalkd)


@pytest.fixture
def start_web(tmp_path: Path) -> Iterator[Callable[..., Web]]:
    """Starts servers of one's own: start_web(queue_url, **settings)."""
    started: list[Web] = []

    def start(queue_url: str, **settings: Any) -> Web:
        server = Web(tmp_path / f"web{len(started)}", queue_url, **settings)
        started.append(server)
        server.wait_ready()
        return server

    yield start
    for server in started:
        server.stop()
