"""Commands that go to beanstalkd together, before their replies are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from glassq.errors import QueueUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.errors import QueueError
    from glassq.queues.beanstalk.commands import Command

T = TypeVar("T")

# A packet is sent in windows of at most so many commands and bytes, or of one command: these fit into the buffers of
# any socket, so neither side ever waits for the other to read.
WINDOW, WINDOW_BYTES = 128, 65_536


class Unanswered(QueueUnavailable):
    """The connection broke before the reply to a command of a packet came. Not `sent`: the server has not got it."""

    def __init__(self, words: str, *, sent: bool) -> None:
        super().__init__(words)
        self.sent = sent


class Packet(Generic[T]):
    """The commands of a pipeline: the `results` so far, and how many commands were sent, or begun to be."""

    def __init__(self, commands: Sequence[Command[T]], meanwhile: Callable[[], None] | None) -> None:
        self._commands = commands
        self._meanwhile = meanwhile
        self.results: list[T | QueueError] = []
        self.begun = 0

    def sent(self) -> None:
        """The first commands are on their way."""
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile()

    def next_window(self) -> Sequence[Command[T]]:
        """The commands that are sent next: they count as begun."""
        first, size = self.begun, 0
        while self.begun < min(first + WINDOW, len(self._commands)):
            size += len(self._commands[self.begun].text)
            if size > WINDOW_BYTES and self.begun > first:
                break
            self.begun += 1
        return self._commands[first : self.begun]
