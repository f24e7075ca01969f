"""Real servers for tests, each with its own port and directory. They are ended by pid."""

from __future__ import annotations

import compileall
import gc
import inspect
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import msgspec
import pytest

from glassq import log
from glassq.queues.beanstalk.syncer.prepare import prepare
from glassq.settings import QueueSettings
from glassq.values import Duration, QueueUrl, SyncerAddress
from tests import left_running
from tests.forked import Forked
from tests.ports import free_port, give_back
from tests.queues.conformance.summary import write_conformance
from tests.queues.raw import open_queue
from tests.seconds import write_seconds
from tests.syncers import Syncer, end_all
from tests.thorough import EVERYDAY, THOROUGH

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from tests.postgres import PostgresServer
    from tests.push.targets import Target
    from tests.queues.raw import Queue
    from tests.sources.certificates import Authority

__all__ = ["free_port"]

ROOT = Path(__file__).parent.parent
BIN = ROOT / "bin"

# A job in the background of a script ignores SIGINT, and all its children inherit that. Ours must receive it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The tests start some thousand processes. Without bytecode files these would spend most of their time compiling. So the
# package is compiled once (pytest_configure), and so are the tests, whatever the environment says. The processes write
# no bytecode: a handler that is rewritten within a second at the same length would be taken for the old one.
sys.dont_write_bytecode = False
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

# All servers of the tests are on this machine: the tests' clients must not use a proxy.
for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[variable]

# On a busy machine an example takes as long as it takes: no duration fails a test. `make test` tries as many as find
# what is often wrong, others each time; `make thorough` tries more. A test that needs another number says it.
for name, examples in (("quick", EVERYDAY), ("thorough", THOROUGH)):
    hypothesis.settings.register_profile(
        name, deadline=None, max_examples=examples, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
hypothesis.settings.load_profile("quick")

# How long a test waits for an event that must come, in seconds. Only a hang takes this long.
PATIENCE = 60.0
# The longest pause between two looks whether it has come, in seconds.
LONGEST_PAUSE = 0.2
# The files with the longest tests. They begin first, so that nothing waits for them in the end.
FIRST_FILES = (
    *("test_nodes.py", "test_torture.py", "test_powercut.py", "test_handlers.py"),
    *("test_dev.py", "test_demo.py", "test_plain_install.py", "test_two_pools.py"),
)

#: the processes that a test has started itself, not its fixtures; whether it passed
STARTED = pytest.StashKey[set[left_running.Started]]()
PASSED = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    # thousands of tests are collected and stay: to look for garbage among them takes longer than many of them
    gc.disable()
    # once, not in each process that runs tests
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(ROOT / "glassq", quiet=2)
        shared = os.environ["GLASSQ_TESTS_SHARED"] = tempfile.mkdtemp(prefix="glassq-tests-")
        # PostgreSQL is no root
        Path(shared).chmod(0o755)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop("GLASSQ_TESTS_SHARED"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in FIRST_FILES)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the engines' conformance, where the seconds went, and how many tests `make test` had to run twice."""
    write_conformance(terminalreporter)
    if config.getoption("durations"):
        write_seconds(terminalreporter)
    stats = terminalreporter.stats
    second = config.getoption("lf", default=False)
    if not second and (not config.getoption("durations") or stats.get("failed") or stats.get("error")):
        return
    kinds = ("passed", "skipped", "failed", "error") if second else ()
    ended = {report.nodeid: kind for kind in kinds for report in stats.get(kind, ())}
    terminalreporter.write_line(f"run a second time: {len(ended)}")
    for test, kind in ended.items():
        terminalreporter.write_line(f"  {test}: {kind} then")


def pytest_sessionfinish() -> None:
    give_back()
    end_all()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    before = left_running.running()
    item.stash[PASSED] = False
    try:
        yield
        item.stash[PASSED] = True
    finally:
        item.stash[STARTED] = left_running.running() - before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """A test that fails half-way leaves nothing running, and one that passes ends what it has started itself."""
    try:
        yield
    finally:
        left = item.stash.get(STARTED, set()) & left_running.running()
        left_running.end(left)
    if left and item.stash[PASSED]:
        pytest.fail(f"it has left running: {left}")


@pytest.fixture(autouse=True)
def _logs_are_released() -> Iterator[None]:
    """Log lines go to pytest again after a test that called log.setup, or ran a command in this process."""
    yield
    log.release()


def wait_for(condition: Callable[[], object], what: str, deadline: float = PATIENCE) -> None:
    """Returns as soon as `condition()` is true; fails the test after `deadline` seconds."""
    asked = time.monotonic()
    end = asked + deadline
    shortest = 0.001
    while not condition():
        answered = time.monotonic()
        if answered > end:
            pytest.fail(f"waited {deadline:g} s in vain: {what}")
        # asking takes at most an eighth of the time, so that it does not slow down what it waits for; but who asks for
        # long need not wait for longer still
        time.sleep(max(shortest, min(LONGEST_PAUSE, 7 * (answered - asked))))
        shortest = min(0.01, 2 * shortest)
        asked = time.monotonic()


class Process:
    """A process of ours or of another server, with its output in a file."""

    def __init__(
        self,
        arguments: list[str],
        log: Path,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        *,
        forks: str = "",
        owned: bool = False,
    ) -> None:
        """Starts a command; or `forks` this program of bin/ with the arguments, which takes a tenth of the CPU time.

        `owned`: a fixture ends it, even where a test has started it.
        """
        self.log = log
        whole = {**os.environ, **(env or {})}
        self._popen: subprocess.Popen[bytes] | Forked
        with log.open("ab") as output, Path(os.devnull).open() as nothing:
            streams = (nothing, output, output)
            if forks:
                self._popen = Forked(forks, arguments, [each.fileno() for each in streams], whole, cwd)
            else:
                stdin, stdout, stderr = streams
                self._popen = subprocess.Popen(arguments, stdin=stdin, stdout=stdout, stderr=stderr, env=whole, cwd=cwd)
                if not owned:
                    left_running.note(self._popen)
        self.pid = self._popen.pid

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def running(self) -> bool:
        return self._popen.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def wait(self, deadline: float = PATIENCE) -> int:
        """Waits until the process ends by itself; returns its exit code."""
        return self._popen.wait(deadline)

    def end(self, number: signal.Signals = signal.SIGTERM, deadline: float = PATIENCE) -> int:
        """Sends the signal, and SIGKILL if the process does not end in time; returns its exit code."""
        if self.running():
            self._popen.send_signal(number)
        try:
            return self._popen.wait(deadline)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait(10)


class Beanstalkd:
    """A beanstalkd for one test, with its binlog in `directory`, and a syncer beside it."""

    def __init__(
        self, directory: Path, *, unix: bool = False, options: tuple[str, ...] = (), program: str = "beanstalkd"
    ) -> None:
        self.dir = directory / "binlog"
        self.dir.mkdir()
        self._log = directory / "beanstalkd.log"
        self._options = options
        self._program = program
        self.socket = directory / "bs.sock"
        self.port = 0 if unix else free_port()
        self.url = QueueUrl(f"beanstalk://{self.socket}" if unix else f"beanstalk://127.0.0.1:{self.port}")
        self._process: Process | None = None
        self._was_started = False
        self.syncer = Syncer(self.url, self.dir, directory / "syncer.sock")
        self.start()

    @property
    def settings(self) -> QueueSettings:
        """The settings of a client."""
        return QueueSettings(url=self.url, syncer=SyncerAddress(self.syncer.address))

    def start(self, *, durable: bool = True) -> None:
        """Starts it as the unit does; the syncer too, unless it runs."""
        list(prepare(self.dir, None))
        self.syncer.start()
        where = ["-l", "127.0.0.1", "-p", str(self.port)] if self.port else ["-l", f"unix:{self.socket}"]
        binlog = ["-b", str(self.dir), "-f1000", "-s", "1048576"] if durable else []
        program = shutil.which(self._program)
        if program is None:
            if os.environ.get("CI"):
                pytest.fail("beanstalkd is missing")
            pytest.skip("beanstalkd is missing: make setup")
        # many tests share some of these servers, and each may start it again: whoever has started it first ends it
        again, self._was_started = self._was_started, True
        self._process = Process([program, *where, *binlog, *self._options], self._log, owned=again)
        try:
            wait_for(lambda: self.answers() or not self.running(), "beanstalkd to answer")
            assert self.running(), f"beanstalkd has ended: {self._log.read_text(errors='replace')}"
        except BaseException:
            self.stop()
            raise

    def answers(self) -> bool:
        queue = self.queue()
        try:
            return bool(queue.stats())
        except Exception:
            return False
        finally:
            queue.close()

    def running(self) -> bool:
        return self._process is not None and self._process.running()

    def queue(self, *, require_durable: bool = False, timeout: float = 20.0) -> Queue:
        settings = msgspec.structs.replace(self.settings, timeout=Duration(timeout))
        return open_queue(settings, require_durable=require_durable)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send(number)

    def stop(self, number: signal.Signals = signal.SIGTERM, *, syncer: bool = True) -> None:
        """Ends it, and the syncer unless that is to stay."""
        if self._process is not None:
            self._process.send(signal.SIGCONT)
            self._process.end(number)
            self._process = None
        if syncer:
            self.syncer.stop()


@pytest.fixture
def beanstalkd(tmp_path: Path) -> Iterator[Beanstalkd]:
    server = Beanstalkd(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def queue(beanstalkd: Beanstalkd) -> Iterator[Queue]:
    opened = beanstalkd.queue()
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """One server for all tests of a process; each takes a database of its own."""
    # it imports what few tests need
    from tests.postgres import PostgresServer, missing

    if why := missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    yield server
    server.remove()


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Certifies servers of the tests, and who signs pings."""
    # it imports what few tests need
    from tests.sources.certificates import Authority

    return Authority()


@pytest.fixture(scope="session")
def tls(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """What a server on loopback needs, certified by the authority."""
    return authority.server(tmp_path_factory.mktemp("server"))


@pytest.fixture
def https_server(tls: ssl.SSLContext) -> Iterator[Target]:
    """A server over TLS; what it answers, the request says (tests/push/targets.py)."""
    from tests.push.targets import Target

    with Target(tls) as target:
        yield target


def program(name: str) -> list[str]:
    """The command that starts a program of bin/."""
    return [sys.executable, str(BIN / name)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `database_url` itself runs on each kind of database."""
    if "database_url" in inspect.signature(metafunc.function).parameters:
        metafunc.parametrize("database_url", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: an SQLite file that is not there yet, or a fresh one of the PostgreSQL server."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return f"sqlite:///{tmp_path}/state/database.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.url(server.database()).whole
