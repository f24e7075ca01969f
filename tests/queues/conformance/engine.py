"""What the conformance suite asks of an engine: a real server of its own, its three roles, and its troubles.

What a promise needs of a server in trouble (killed, refusing, forgetting) its class brings about as that engine would
have it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from glassq.queues import Inspector, Producer, Receiver
    from glassq.queues.base import Job, Reservation, State

# How long a job is ours where a test says nothing else, in seconds.
LEASE = 60
# How long a call waits for its answer where a test says nothing else, in seconds: only a hang takes so long.
TIMEOUT = 20.0


class Engine(ABC):
    """A server of this kind, with a port and a directory of its own; tests share it, each in tubes of its own.

    The roles go to `port` where one is given: that of a proxy.
    """

    name: str
    # as the engine itself says it
    kind: str
    # the shortest lease that it can give, in seconds
    shortest_lease: int
    # it takes jobs of so many bytes at least
    largest = 60_000
    # so many jobs are many: more than one packet of it holds; and so many times a call is measured
    many, samples = 1000, 150
    # what waits where a reserve must not slow down, at most
    backlog = 100_000
    # so many days of random use are tried
    days = 15

    def __init__(self, directory: Path, *, careless: bool = False) -> None:
        """Starts it. A `careless` one may be quicker than safe, for a test that fills it up."""
        self.directory = directory
        self.careless = careless

    @staticmethod
    def missing() -> str:
        """What is missing on this machine, in words; "" where it can be tried."""
        return ""

    @property
    @abstractmethod
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""

    @abstractmethod
    def start(self) -> None:
        """Starts it again with what it had; returns when it answers."""

    @abstractmethod
    def stop(self) -> None:
        """Ends it as an operator would."""

    @abstractmethod
    def kill(self) -> None:
        """Ends it by SIGKILL."""

    def end(self) -> None:
        """Ends it for good."""
        self.stop()

    @abstractmethod
    def producer(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Producer: ...

    @abstractmethod
    def receiver(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Receiver: ...

    @abstractmethod
    def inspector(self, *, lease: int = LEASE, port: int = 0, timeout: float = TIMEOUT) -> Inspector: ...

    @abstractmethod
    def section(self) -> str:
        """The section [queue] of a program's settings, for this server."""

    def calls(self, *, clear: bool = False) -> Counter[str]:
        """How often each call of a service was made, where the engine is one; with `clear` the count begins anew."""
        return Counter()

    def make(self, tubes: Sequence[str]) -> None:
        """Makes these tubes, where they do not come by themselves."""
        return

    def find(self, inspector: Inspector, states: frozenset[State], tubes: Sequence[str]) -> list[Job]:
        """The jobs of these tubes in these states, newest first, whether an operator could see them or not."""
        return list(inspector.find(states, tubes))

    def job(self, inspector: Inspector, ref: str) -> Job:
        """The job with this reference, which is there, whether an operator could see it or not."""
        return inspector.get(ref)

    def remove(self, inspector: Inspector, job: Job) -> None:
        """Deletes a job, whether an operator could or not."""
        inspector.delete(job)

    def waiting(self, inspector: Inspector, tube: str) -> int:
        """How many consumers wait for a job of this tube."""
        return inspector.counts([tube])[0].waiting

    def let_go(self) -> None:
        """Closes what its roles share: a test is over."""
        return

    @abstractmethod
    def end_lease(self, receiver: Receiver, held: Reservation) -> None:
        """Returns when the lease has ended, by itself where the engine says that it does."""

    @abstractmethod
    def refusing(self) -> AbstractContextManager[None]:
        """Within it the engine takes no jobs, and gives those it has."""

    @abstractmethod
    def forgetting(self) -> AbstractContextManager[None]:
        """Within it the engine takes jobs, and would lose them in a crash."""

    @abstractmethod
    def fill(self, tubes: Sequence[str], jobs: int, body: bytes) -> None:
        """Puts so many jobs in turn into these tubes, by the quickest way there is."""
