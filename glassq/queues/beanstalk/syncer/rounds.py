"""Rounds: each answers all who asked before it began. They begin when somebody has asked; two may overlap."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.queues.beanstalk.syncer.errors import RoundFailed, SyncFailed
from glassq.queues.beanstalk.syncer.probe import ProbeConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.queues.beanstalk.syncer.client import Asker
    from glassq.queues.beanstalk.syncer.files import BinlogFiles
    from glassq.queues.beanstalk.syncer.probe import Answer, Stats
    from glassq.queues.beanstalk.syncer.refusal import RefusalFile

# How many rounds may overlap: while one syncs, the next one gathers.
OVERLAP = 2
# How often the directory is looked at, in seconds.
LOOK = 0.05
# While nobody asks, a round of our own removes second names that are no longer needed, so often; in seconds.
_SPARE = 1.0


class Rounds:
    """Runs rounds in threads of their own, and looks at the directory."""

    def __init__(
        self,
        address: str | tuple[str, int],
        files: BinlogFiles,
        refusal: RefusalFile,
        say: Callable[[str, str], None],
    ) -> None:
        """`address` is beanstalkd's; `files` are for OVERLAP rounds; `say(level, text)` tells people."""
        self.address = address
        self.files = files
        #: held from a put of a probe until its id stands in `probes`: a new connection deletes all others
        self.probing = threading.Lock()
        #: the probes of the rounds that may overlap
        self.probes = [b""] * OVERLAP
        self.counts = {"rounds": 0, "failed": 0, "asked": 0, "proven": 0}
        self.seconds, self.slowest = 0.0, 0.0
        #: why the last round proved nothing; "" if it did
        self.trouble = ""
        self._refusal = refusal
        self._say = say
        self._listening = threading.Lock()
        self._state = threading.Lock()
        # who waits for a round to begin, and up to which of its questions; and whether we want one ourselves
        self._waiting: dict[Asker, int] = {}
        self._wanted = False
        # those that run no round
        self._free = [_Rounder(self, number) for number in range(OVERLAP)]
        self._answering = threading.Lock()
        self._pid = 0

    def start(self, listen: Callable[[float], dict[Asker, int]]) -> None:
        """Starts the threads. They end with the process. `listen(timeout)` says who asks (Server.listen)."""
        for _ in range(OVERLAP + 1):
            threading.Thread(target=self._work, args=(listen,), daemon=True).start()

    def forget(self, client: Asker) -> None:
        """Closes a client. Not while a round answers it: its descriptor may be another client's next."""
        with self._state:
            self._waiting.pop(client, None)
        with self._answering:
            client.close()

    def entered(self, stats: Stats) -> None:
        """A connection to beanstalkd was made. Raises RoundFailed if it writes elsewhere, or OSError."""
        holder = self.files.holder()
        if holder not in (0, stats.pid):
            raise RoundFailed(f"beanstalkd does not write into {self.files.directory}")
        self._pid = stats.pid
        if self._refusal.server not in ("", stats.server):
            self._refusal.forget()
            self._say("info", "beanstalkd was restarted: proofs are given again")
        try:
            self.files.enter(stats.server)
        except SyncFailed as error:
            self._refuse(stats.server, error)
            raise

    def judge(self, answer: Answer, number: int) -> None:
        """Returns if all that beanstalkd had answered before the probe is on disk. Raises RoundFailed."""
        self.check_refusal(answer.after.server)
        if answer.trouble:
            raise RoundFailed(f"beanstalkd does not take the probe ({answer.trouble}): its disk may be full")
        try:
            if not answer.log_is_on:
                raise SyncFailed("beanstalkd does not write to its disk any more: restart it", [])
            self.files.sync(self.files.sights[number], answer.after.oldest, answer.after.current)
        except SyncFailed as error:
            self._refuse(answer.after.server, error)
            raise

    def check_refusal(self, server: str) -> None:
        """Raises SyncFailed if nothing of this run of beanstalkd is proven any more."""
        if server == self._refusal.server:
            raise SyncFailed(self._refusal.reason, [])

    def answer(self, asked: dict[Asker, int], line: str, began: float, trouble: str = "") -> None:
        """Answers all who asked."""
        data = line.encode("ascii", "backslashreplace").replace(b"\n", b" ") + b"\n"
        with self._answering:
            count = sum(client.answer(upto, data) for client, upto in asked.items())
            seconds = time.monotonic() - began
            self.counts["rounds"] += 1
            self.counts["asked"] += count
            self.counts["failed" if trouble else "proven"] += 1 if trouble else count
            self.seconds += seconds
            self.slowest = max(self.slowest, seconds)
            before, self.trouble = self.trouble, trouble
        if trouble != before:
            self._say("error" if trouble else "info", f"no proof: {trouble}" if trouble else "proofs are given")

    def tidy(self, answer: Answer) -> None:
        """After a round that has proven: removes the second names that are not needed any more."""
        try:
            if self._refusal.server != answer.after.server:
                self.files.remove_spare(answer.before.oldest)
        except SyncFailed as error:
            self._refuse(answer.after.server, error)
        except OSError as error:
            self._say("error", f"{error.filename}: {error.strerror}")

    def status(self) -> dict[str, object]:
        """What people and metrics want to know."""
        return {
            "server": self.files.server,
            **self.counts,
            "seconds": round(self.seconds, 6),
            "slowest": round(self.slowest, 6),
            "waiting": len(self._waiting),
            "kept": self.files.kept,
            "spare": self.files.spare,
            "gaps": self.files.troubles,
            "trouble": self.trouble,
            "refusing": bool(self._refusal.server) and self.files.server in ("", self._refusal.server),
            "reason": self._refusal.reason,
        }

    def _refuse(self, server: str, error: SyncFailed) -> None:
        """Nothing of this run of beanstalkd is proven any more."""
        if self._refusal.server == server:
            return
        try:
            # first of all: a syncer that is killed now would not know it
            self._refusal.refuse(server, self._pid, str(error), error.files)
        except OSError as failed:
            self._say("error", f"what follows could not be written down, restart beanstalkd: {failed.strerror}")
        self._say("error", f"{error}: nothing is proven until beanstalkd has been restarted")

    def _work(self, listen: Callable[[float], dict[Asker, int]]) -> None:
        """One of the threads: one listens at a time, and runs the round itself when somebody asks.

        No question is handed from one thread to another, unless all rounds that may overlap are running.
        """
        while True:
            rounder, asked = self._take_turn(listen)
            while asked is not None:
                rounder.run(asked)
                asked = self._next(rounder)

    def _take_turn(self, listen: Callable[[float], dict[Asker, int]]) -> tuple[_Rounder, dict[Asker, int] | None]:
        with self._listening:
            while True:
                asking = listen(_SPARE)
                with self._state:
                    self._waiting.update(asking)
                    if self._free and (self._waiting or self._wanted):
                        return self._free.pop(), self._take()

    def _next(self, rounder: _Rounder) -> dict[Asker, int] | None:
        """The clients that asked while all rounds were running. None if there are none: the rounder is free then."""
        with self._state:
            if self._waiting:
                return self._take()
            self._free.append(rounder)
            return None

    def _take(self) -> dict[Asker, int]:
        asked, self._waiting, self._wanted = self._waiting, {}, False
        return asked

    def watch(self) -> None:
        """Looks at the directory, for ever, and has a round where second names could go."""
        last = ""
        while True:
            time.sleep(LOOK)
            why = ""
            try:
                self.files.look()
                self._refusal.retry()
            except SyncFailed as error:
                self._refuse(self.files.server, error)
            except OSError as error:
                why = f"{error.filename or self.files.directory}: {error.strerror}"
            if why and why != last:
                self._say("error", why)
            last = why
            self._wanted = self.files.spare > 0


class _Rounder:
    """Runs one round at a time, with a connection, a probe and descriptors of its own."""

    def __init__(self, rounds: Rounds, number: int) -> None:
        self._rounds = rounds
        self._number = number
        self._sight = rounds.files.sights[number]
        self._connection: ProbeConnection | None = None

    def run(self, asked: dict[Asker, int]) -> None:
        """A round: answers all who asked before it."""
        rounds, files, began = self._rounds, self._rounds.files, time.monotonic()
        files.begin(self._sight)
        try:
            answer = self._probe()
            rounds.judge(answer, self._number)
        except Exception as error:
            reason = _words(error)
            word = "no" if isinstance(error, SyncFailed) else "later"
            rounds.answer(asked, f"{word} {reason}", began, reason)
        else:
            rounds.answer(asked, f"yes {answer.after.server}", began)
            rounds.tidy(answer)
        finally:
            files.end(self._sight)

    def _probe(self) -> Answer:
        """Asks beanstalkd; on a new connection where the old one broke, as it does when beanstalkd is restarted."""
        if self._connection is not None:
            with suppress(OSError, ValueError):
                return self._ask(self._connection)
            self._close()
        try:
            connection = self._connect()
            self._rounds.files.begin(self._sight)
            return self._ask(connection)
        except BaseException:
            self._close()
            raise

    def _ask(self, connection: ProbeConnection) -> Answer:
        if not connection.probe:
            with self._rounds.probing:
                self._put_probe(connection)
        if not connection.probe:
            self._rounds.check_refusal(self._rounds.files.server)
            raise RoundFailed("beanstalkd takes no probe: its disk is full, or it drains")
        return connection.ask()

    def _connect(self) -> ProbeConnection:
        with self._rounds.probing:
            connection = self._connection = ProbeConnection(self._rounds.address)
            self._rounds.entered(connection.stats())
            self._rounds.probes[self._number] = b""
            connection.delete_probes(but=frozenset(self._rounds.probes))
            self._put_probe(connection)
            return connection

    def _put_probe(self, connection: ProbeConnection) -> None:
        self._rounds.probes[self._number] = connection.put_probe()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _words(error: Exception) -> str:
    if isinstance(error, RoundFailed):
        return str(error)
    if isinstance(error, TimeoutError):
        return "beanstalkd does not answer"
    if isinstance(error, OSError):
        return f"beanstalkd cannot be asked: {error.strerror or error}"
    return f"{type(error).__name__}: {error}"
