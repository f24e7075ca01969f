"""The syncer: proves for everybody at once that what beanstalkd answered is on disk. It stands beside beanstalkd.

It reads no settings: a mistake in glassq.toml must never stop the queue.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

from glassq.errors import PrepareError
from glassq.queues.beanstalk.syncer.files import BinlogFiles
from glassq.queues.beanstalk.syncer.refusal import InUseError, RefusalFile
from glassq.queues.beanstalk.syncer.rounds import OVERLAP, Rounds
from glassq.queues.beanstalk.syncer.server import Server
from glassq.systemd import Notifier
from glassq.values import QueueUrl, SyncerAddress

EX_USAGE = 2
# Each may be silent for ever.
MAX_CLIENTS = 4096
# sd_listen_fds(3): the socket that systemd hands over
_LISTEN_FD = 3
# syslog's numbers, which systemd reads at the start of a line
_PRIORITIES = {"info": 6, "warning": 4, "error": 3}
# What --status prints beside the verdict: its key in the JSON, and what it is.
_SHOWN = {
    "rounds": "rounds since its start; each answers all who asked before it began",
    "failed": "of these proved nothing",
    "asked": "questions answered",
    "seconds": "seconds that all rounds took",
    "slowest": "seconds that the slowest took",
    "clients": "connections",
    "waiting": "of these wait for an answer",
    "kept": "files of beanstalkd with a second name",
    "spare": "of these removed by beanstalkd",
    "gaps": "files that came and went unseen, or are not beanstalkd's",
}
# How long --status waits for an answer, in seconds.
_STATUS_TIMEOUT = 5.0


def main() -> int:
    """Runs the syncer until a stop signal; or what its options say instead."""
    parser = argparse.ArgumentParser(prog="glassq-syncer", description=__doc__)
    parser.add_argument("--binlog", metavar="DIRECTORY", type=Path, help="beanstalkd's option -b")
    parser.add_argument("--queue", metavar="URL", help="beanstalk://HOST:PORT or beanstalk:///PATH")
    parser.add_argument("--listen", metavar="ADDRESS", help="unix:/PATH or HOST:PORT; not needed under systemd")
    parser.add_argument("--prepare", action="store_true", help="before each start of beanstalkd: put kept files back")
    parser.add_argument(
        "--seal", action="store_true", help="after its end: sync its files, for a quick start after a boot"
    )
    parser.add_argument("--boot", metavar="ID", help="with these two: the machine's boot id (systemd's %%b)")
    parser.add_argument("--status", metavar="ADDRESS", help="show how the syncer at this address does")
    parser.add_argument("--json", action="store_true", help="with --status: as one line of JSON")
    given = parser.parse_args()
    try:
        if given.status:
            return _show(given.status, as_json=given.json)
        if not given.binlog:
            return _fail("--binlog is missing: the directory of beanstalkd's option -b", EX_USAGE)
        if given.prepare:
            return _prepare(given.binlog, given.boot)
        if given.seal:
            return _seal(given.binlog, given.boot)
        return run(given.binlog, given.queue, given.listen)
    except ValueError as error:
        return _fail(str(error), EX_USAGE)
    except (InUseError, PrepareError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))


def say(level: str, text: str) -> None:
    """A line of the log, on standard error."""
    prefix = f"<{_PRIORITIES[level]}>" if "JOURNAL_STREAM" in os.environ else f"{level} "
    with suppress(OSError):
        os.write(2, f"{prefix}glassq.syncer: {text}\n".encode(errors="backslashreplace"))


def run(directory: Path, queue: str | None, listen: str | None) -> int:
    """Runs the syncer of this directory. Does not return, unless it cannot start: then the exit code."""
    if not queue:
        return _fail("--queue is missing: beanstalkd's address, beanstalk://HOST:PORT or beanstalk:///PATH", EX_USAGE)
    url = QueueUrl(queue)
    # descriptors of connections, and of a long queue's files until they are proven
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    refusal = RefusalFile(directory)
    files = BinlogFiles(directory, OVERLAP)
    rounds = Rounds(url.address, files, refusal, say)
    with _listener(listen, url) as listener:
        server = Server(listener, rounds, MAX_CLIENTS)
        threading.excepthook = _end_with_thread
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _stop)
        rounds.start(server.listen)
        Notifier(os.environ.get("NOTIFY_SOCKET"))(READY=1)
        if refusal.reason:
            say("error", f"nothing is proven until beanstalkd has been restarted: {refusal.reason}")
        with suppress(SystemExit):
            rounds.watch()
        if "LISTEN_FDS" not in os.environ and isinstance(place := listener.getsockname(), str):
            with suppress(OSError):
                Path(place).unlink()
        # not by way of the interpreter's end: a thread may wait for a disk
        os._exit(0)


def _end_with_thread(error: threading.ExceptHookArgs) -> None:
    """A syncer that lacks a thread is worse than one that is started again."""
    say("error", f"{error.exc_type.__name__}: {error.exc_value}: the syncer ends")
    os._exit(1)


def _stop(*_: object) -> None:
    raise SystemExit


def _prepare(directory: Path, boot: str | None) -> int:
    from glassq.queues.beanstalk.syncer.prepare import prepare

    for line in prepare(directory, boot):
        print(line, flush=True)
    return 0


def _seal(directory: Path, boot: str | None) -> int:
    from glassq.queues.beanstalk.syncer.prepare import seal

    seal(directory, boot)
    return 0


def _listener(listen: str | None, url: QueueUrl) -> socket.socket:
    """The socket that systemd hands over, or a new one."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        return socket.socket(fileno=_LISTEN_FD)
    address = SyncerAddress(listen or "").beside(url)
    if address is None:
        raise ValueError("--listen is missing: unix:/PATH or HOST:PORT")
    if isinstance(address, tuple):
        return socket.create_server(address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    path, queue = Path(address), url.address
    # it may be of a syncer that was killed; RefusalFile makes sure that none runs in this directory
    if path.is_socket():
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(1024)
    with suppress(OSError):
        if isinstance(queue, str):
            # who may ask beanstalkd may ask for proofs
            like = Path(queue).stat()
            os.chown(path, -1, like.st_gid)
            path.chmod(like.st_mode & 0o777)
    return listener


def _show(text: str, *, as_json: bool) -> int:
    address = SyncerAddress(text).beside(QueueUrl("beanstalk://127.0.0.1:1"))
    if address is None:
        raise ValueError('expected "unix:/path/of/a.sock" or "HOST:PORT"')
    try:
        with socket.socket(socket.AF_UNIX) if isinstance(address, str) else socket.socket() as sock:
            sock.settimeout(_STATUS_TIMEOUT)
            sock.connect(address)
            sock.sendall(b"status\n")
            line = sock.makefile().readline()
    except OSError as error:
        return _fail(f"the syncer at {text} does not answer: {error.strerror or error}")
    print(line, end="") if as_json else _print_status(json.loads(line))
    return 0


def _print_status(status: dict[str, object]) -> None:
    if status["refusing"]:
        print(f"It proves nothing until beanstalkd is restarted: {status['reason']}")
    elif status["trouble"]:
        print(f"The last round proved nothing: {status['trouble']}")
    else:
        print("It proves what is on disk." if status["rounds"] else "Nobody has asked it yet.")
    for key, words in _SHOWN.items():
        print(f"{status.get(key, 0):>12} {words}")


def _fail(why: str, code: int = 1) -> int:
    print(f"glassq-syncer: {why}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
