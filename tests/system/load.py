"""Pings at a steady rate while something is done to the machine, each of them counted."""

from __future__ import annotations

import json
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Self

import pytest

from tests.conftest import wait_for
from tests.system.machine import WEB

if TYPE_CHECKING:
    from types import TracebackType

    from tests.system.machine import Machine

# Pings a second.
RATE = 50.0
# So many are worked before something is done, and so many more after it: it is done under way.
UNDER_WAY = 50
TOKENS = "etc/glassq/secrets/mirror-verify-tokens"
# Where the handler writes what it has worked, an item a line.
WORKED = "var/lib/glassq/worked"


class Load:
    """Pings as long as the context lasts; `name` begins the item of each, and is nobody else's.

    Leaving it, all of them are answered, and every one that was acknowledged has been worked.
    """

    def __init__(self, machine: Machine, name: str) -> None:
        token = (machine.root / TOKENS).read_text().split()[0]
        self._machine = machine
        self._name = name
        self._sender = machine.beside("tests.system.sender", f"{WEB}/hooks/mirror", token, name, str(RATE))
        #: the status of each try, by item
        self.answers: dict[str, list[int]] = {}
        self._seconds: list[float] = []

    def __enter__(self) -> Self:
        try:
            self.flow()
        except BaseException:
            self._sender.communicate()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if kind is None:
                self.flow()
        finally:
            said = self._sender.communicate()[0]
        if kind is not None:
            return
        for item, statuses, seconds in json.loads(said):
            self.answers[item] = statuses
            self._seconds.append(seconds)
        self._settle()
        self._machine.transcript.say(self.figures())

    def _settle(self) -> None:
        try:
            wait_for(lambda: not self._unworked(), "all pings to be worked")
        except pytest.fail.Exception:
            # where are they?
            looks = self._machine.tells("glassq status; glassq buried; ls -lR /var/spool/glassq")
            pytest.fail(f"acknowledged, and not worked: {sorted(self._unworked())}\n{looks}")

    def _unworked(self) -> set[str]:
        return self.acknowledged() - worked(self._machine).keys()

    def flow(self) -> None:
        """Until as many as UNDER_WAY more pings have come all the way."""
        enough = self._worked().total() + UNDER_WAY
        wait_for(lambda: self._worked().total() >= enough, "pings to come through")

    def acknowledged(self) -> set[str]:
        return {item for item, statuses in self.answers.items() if statuses[-1] == 200}

    def sent_again(self) -> set[str]:
        """Those that were refused, or got no answer, at least once."""
        return {item for item, statuses in self.answers.items() if statuses != [200]}

    def figures(self) -> str:
        """In a line."""
        again, twice = len(self.sent_again()), sum(times > 1 for times in self._worked().values())
        resent = f", {again} of them when sent again" if again else " at the first try"
        return (
            f"{len(self.answers)} pings, {RATE:g} a second: {len(self.acknowledged())} answered 200{resent}; "
            f"median {median(self._seconds) * 1000:.0f} ms, slowest {max(self._seconds) * 1000:.0f} ms; "
            f"all of these were worked, {twice} of them more than once"
        )

    def _worked(self) -> Counter[str]:
        every = worked(self._machine)
        return Counter({item: times for item, times in every.items() if item.startswith(f"{self._name}-")})


def worked(machine: Machine) -> Counter[str]:
    """How often each item was worked."""
    file = machine.root / WORKED
    return Counter(file.read_text().split() if file.exists() else ())
