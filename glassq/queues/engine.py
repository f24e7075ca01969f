"""What an engine's package has beside the three roles: how it is opened, its parts on this machine, its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from glassq.errors import QueueError
    from glassq.queues.base import Fact, Inspector, Producer, Receiver
    from glassq.settings import Settings
    from glassq.values import QueueUrl


class Opening(Protocol):
    """What an engine's module `opening` has. Nothing is connected before it is used.

    `NAME` is the engine's name, for people.
    """

    @property
    def NAME(self) -> str: ...  # noqa: N802 - a constant of a module

    def open_producer(self, settings: Settings) -> Producer:
        """A producer for all threads of a process."""

    def open_receiver(self, settings: Settings) -> Receiver:
        """A receiver: one connection for one thread."""

    def open_inspector(self, settings: Settings) -> Inspector:
        """An inspector: one connection for one thread."""

    def local_engine(self, settings: Settings) -> LocalEngine:
        """The parts of the engine on this machine."""

    def open_tables(self, settings: Settings, url: QueueUrl, tubes: Sequence[str] = ()) -> EngineTables | None:
        """The tables at `url`, a database of this engine; None where it needs none.

        `tubes` are used beside those that the settings name.
        """

    def open_mover(self, settings: Settings) -> Mover | None:
        """What moves on what the engine cannot keep so itself; None where it keeps all."""

    def advice(self, settings: Settings, error: QueueError) -> str:
        """What to do about this error, where the engine knows more than its kind tells; "" else."""

    def remarks(self, settings: Settings) -> Iterator[str]:
        """What these settings ask of the engine that it cannot do, or what it will cost, a sentence each."""


class Mover(Protocol):
    """Moves on what an engine cannot move on itself: what is due in a long time, or what must be decided.

    Any number of hosts may do so. `title` is what its process is called.
    """

    @property
    def title(self) -> str: ...

    def step(self) -> float:
        """Moves what is due soon; returns in how many seconds to look again. Raises QueueError."""


class LocalEngine(Protocol):
    """The parts of an engine on this machine, whether its server answers or not.

    `packages` are the Python packages that the engine needs. `units` are our systemd units of its server, in the order
    of their start. `other_unit` is a unit of the same server that is not ours ("": there is none). `socket` is the unix
    socket at which it listens (None: it listens elsewhere).
    """

    @property
    def packages(self) -> tuple[str, ...]: ...
    @property
    def units(self) -> tuple[str, ...]: ...
    @property
    def other_unit(self) -> str: ...
    @property
    def socket(self) -> Path | None: ...

    def directories(self) -> Iterator[tuple[str, Path]]:
        """The directories of the server's files, each after the name of its content; none if it runs elsewhere."""

    def other_server(self, active: str, boots: str) -> Iterator[Fact]:
        """Facts about `other_unit`, which has this ActiveState (`active`) and UnitFileState (`boots`)."""


class EngineTables(Protocol):
    """The tables of an engine that keeps jobs in a database, or what takes their place.

    Every call may raise QueueError.
    `known` is the version that this code makes. `noun` is what they are called: "tables". Unless `grants`, the rights
    are given elsewhere.
    """

    @property
    def noun(self) -> str: ...
    @property
    def grants(self) -> bool: ...

    @property
    def engine(self) -> str:
        """The engine's name, for people."""

    @property
    def known(self) -> int: ...

    def version(self) -> int:
        """The version of the tables that are there; 0: there are none."""

    def check(self) -> None:
        """Raises WrongTables if they are missing, or not for this code."""

    def upgrade(self) -> int:
        """Makes the tables, or brings them to `known`; returns the version that was there. Several at once do no harm.

        Raises WrongTables if a newer glassq has made them.
        """

    def parts(self) -> dict[str, int]:
        """The versions of all tables of ours at this place, by what lives in them: "queue", and what is beside it.

        Where there are no tables, by the names of what takes their place.
        """

    def check_role(self, role: str) -> None:
        """Raises InvalidRequest if there is no such role, or if this engine can give it nothing."""

    def rights(self, role: str) -> list[str]:
        """The statements that give a role what programs need that put, work and look at jobs."""

    def grant(self, role: str) -> None:
        """Gives the role these rights."""

    def close(self) -> None:
        """Closes the connection."""
