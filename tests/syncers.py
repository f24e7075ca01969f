"""A syncer beside each test's beanstalkd, forked where everything is imported: cheap enough for some thousand tests.

`beside` says where the syncer of a queue's URL is, so that settings can name it; a proxy in front of a queue shares it.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.programs.syncer import run
from glassq.queues.beanstalk.prover import SyncerProver

if TYPE_CHECKING:
    from glassq.values import QueueUrl

# A syncer that has not ended after this time, in seconds, hangs.
PATIENCE = 20.0
# by the queue's URL
_SYNCERS: dict[str, Syncer] = {}


class _Forking:
    """The process that forks syncers. It ends, and they do, with this one."""

    def __init__(self) -> None:
        reading, self._lifeline = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(reading)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[reading],
            cwd=Path(__file__).parent.parent,
        )
        os.close(reading)
        self._lock = threading.Lock()

    def start(self, **what: str) -> int:
        """Starts a syncer, and returns its process id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())

    def end(self) -> None:
        """Ends it, and the syncers with it."""
        os.close(self._lifeline)
        with self._process:
            pass


@cache
def _forking(_pid: int) -> _Forking:
    return _Forking()


def end_all() -> None:
    """Call at the end of the tests' process."""
    if _forking.cache_info().currsize:
        _forking(os.getpid()).end()


class Syncer:
    """The syncer of one beanstalkd."""

    def __init__(self, url: QueueUrl, binlog: Path, place: Path) -> None:
        self.address = str(place)
        self._what = {"queue": str(url), "binlog": str(binlog), "listen": f"unix:{place}"}
        self._log = place.with_suffix(".log")
        self.pid = 0
        #: asks it; for tests that make their own clients
        self.prover = SyncerProver(self.address, connect_timeout=PATIENCE)
        _SYNCERS[str(url)] = self

    def start(self) -> None:
        """Starts it, unless it runs, and waits until it listens."""
        if self.running():
            return
        self.pid = _forking(os.getpid()).start(**self._what, log=str(self._log))
        end = time.monotonic() + PATIENCE
        while not self._listens():
            assert self.running(), f"the syncer has not started: {self.log()}"
            assert time.monotonic() < end, f"the syncer does not listen: {self.log()}"
            time.sleep(0.002)

    def _listens(self) -> bool:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self.address)
            return True
        return False

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def running(self) -> bool:
        with suppress(ProcessLookupError):
            if self.pid:
                os.kill(self.pid, 0)
                return True
        return False

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends it. It can be started again."""
        self.prover.close()
        if not self.running():
            return
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
            os.kill(self.pid, number)
        end = time.monotonic() + PATIENCE
        while self.running():
            assert time.monotonic() < end, "the syncer has not ended"
            time.sleep(0.002)
        with suppress(FileNotFoundError):
            Path(self.address).unlink()


def share(url: str, of: str) -> None:
    """The queue at `url` is that at `of`: it has the same syncer."""
    if of in _SYNCERS:
        _SYNCERS[url] = _SYNCERS[of]


def beside(url: str) -> str:
    """The address of the syncer of this queue, for [queue] syncer; "" where the tests have started none."""
    return _SYNCERS[url].address if url in _SYNCERS else ""


def prover_beside(url: str) -> SyncerProver | None:
    """Asks the syncer of this queue, until that is stopped; None where the tests have started none."""
    return _SYNCERS[url].prover if url in _SYNCERS else None


def queue_section(url: str) -> str:
    """The section [queue] of a glassq.toml."""
    syncer = f'syncer = "{beside(url)}"\n' if beside(url) else ""
    # a service of Amazon's that Python serves takes its time on a busy machine
    timeout = 'timeout = "20s"\n' if url.startswith(("sqs:", "swf:")) else ""
    return f'[queue]\nurl = "{url}"\n{timeout}{syncer}'


def _fork_syncers(lifeline: int) -> None:
    """What the forking process does: a line of JSON in, a process id out."""
    # no collection in what it forks copies the pages of all that is imported
    gc.freeze()
    # what it forks ends without being waited for
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                _be_a_syncer(lifeline, **json.loads(line))
            finally:
                os._exit(1)
        print(child, flush=True)


def _be_a_syncer(lifeline: int, queue: str, binlog: str, listen: str, log: str) -> None:
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def end() -> None:
        os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
    run(Path(binlog), queue, listen)


if __name__ == "__main__":
    _fork_syncers(int(sys.argv[1]))
