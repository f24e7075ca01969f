"""What this machine has of beanstalkd: its package, its units, and the directory of its binlog."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glassq import host
from glassq.queues.base import Fact
from glassq.queues.beanstalk.process import options_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.values import QueueUrl


class LocalBeanstalkd:
    """See `glassq.queues.engine.LocalEngine`."""

    packages = ("greenstalk",)
    units = ("glassq-beanstalkd.socket", "glassq-beanstalkd.service")
    # The unit of the distribution's package.
    other_unit = "beanstalkd.service"

    def __init__(self, url: QueueUrl) -> None:
        self._address = url.address

    @property
    def socket(self) -> Path | None:
        return Path(self._address) if isinstance(self._address, str) else None

    def directories(self) -> Iterator[tuple[str, Path]]:
        """beanstalkd tells no client where its binlog is, so this looks at the command lines of all processes."""
        if isinstance(self._address, str):
            yield from _binlogs(f"unix:{self._address}")
        elif host.is_loopback(self._address[0]):
            yield from _binlogs(str(self._address[1]))

    def other_server(self, active: str, boots: str) -> Iterator[Fact]:
        # With an address of this machine in the settings, that server may be the queue that is meant.
        if not isinstance(self._address, str) or (active != "active" and boots != "enabled"):
            return
        said = f"{self.other_unit} ({active}, {boots}) is the distribution's own queue: it came with the package"
        todo = "systemctl disable --now beanstalkd, unless another program uses it"
        yield Fact("unit", None, f"{said} beanstalkd, and glassq does not use it (its own is {self.units[1]})", todo)


def _binlogs(address: str) -> Iterator[tuple[str, Path]]:
    """The directories of those that listen at this address, and of those whose socket is systemd's.

    The command line of the latter does not say where they listen.
    """
    for process in Path("/proc").glob("[0-9]*"):
        given = options_of(process)
        unix = given.get("-l", "").startswith("unix:")
        listens = given["-l"] if unix else given.get("-p", address)
        path = Path(given.get("-b", ""))
        if listens == address and path.is_absolute():
            yield "binlog", path
