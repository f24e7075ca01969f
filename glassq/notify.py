"""Tells somebody that deliveries were buried, or that a route has paused itself: so many times a minute, by cause.

It reads the ledger, which holds every bury within a second, so no worker waits for a message. A bury while the ledger
cannot be written is told when it can be again.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, deque
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from glassq.causes import fold, reason
from glassq.errors import LedgerError, NotNotified
from glassq.log import escape, fields, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from glassq.ledger import Entry

log = logger("glassq.notify")

# Entries come late: a ledger's thread collects them, and clocks of hosts differ. So much is read again, in seconds.
OVERLAP = 60.0
# That of times in the ledger.
RESOLUTION = timedelta(microseconds=1)
# What a chat would make of words: a link, or a call of everybody in the room.
# https://docs.slack.dev/messaging/formatting-message-text
_MARKED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_EVERYBODY = re.compile(r"@(?=channel|here|all|everyone)", re.IGNORECASE)
# A message names so many causes; the rest is one number.
MAX_CAUSES = 10
MINUTE = 60.0


class Alerter:
    """Collects what was buried, and sends messages; call `step` every few seconds."""

    def __init__(
        self,
        read: Callable[[datetime], Sequence[Entry]],
        send: Callable[[dict[str, Any]], None],
        at_most: int,
        host: str,
        now: Callable[[], datetime],
        paused: Callable[[], Mapping[str, str]] = dict,
        told: datetime | None = None,
        console: str = "",
    ) -> None:
        """`read` returns the deliveries that were buried since a time. It raises LedgerError, and `send` NotNotified.

        `at_most` is how many messages a minute may have. `paused` returns the routes that have paused themselves, and
        why. `told` is that of the Alerter before this one; None: what was buried before now is an old story. `console`
        is the web console's URL ("": none is known).
        """
        self._read = read
        self._send = send
        self._at_most = at_most
        self._host = host
        self._now = now
        self._paused = paused
        self._console = console.rstrip("/")
        self._told_paused: frozenset[str] = frozenset()
        #: until when all that was buried has been told; for the next Alerter, after a reload
        self.told = told or now() - RESOLUTION
        self._begun = self._since = self.told + RESOLUTION
        # what was read before: when each delivery was buried
        self._known: dict[str, datetime] = {}
        self._waiting: list[Entry] = []
        self._sent: deque[datetime] = deque(maxlen=at_most)
        self._failing = False

    def step(self) -> None:
        """Looks for what was buried, and sends a message if there is something to tell and one may be sent."""
        now = self._now()
        try:
            self._look(now)
            paused = self._paused()
            # one that goes on and pauses itself again is told again
            self._told_paused &= paused.keys()
            if (self._waiting or paused.keys() - self._told_paused) and self._may_send(now):
                # a failure counts as well: whoever is in trouble is not asked more often
                self._sent.append(now)
                self._send(document(self._waiting, paused, self._host, self._console))
                self.told = max((self.told, *(entry.updated for entry in self._waiting)))
                self._waiting.clear()
                self._told_paused = frozenset(paused)
        except (LedgerError, NotNotified) as error:
            level = logging.DEBUG if self._failing else logging.ERROR
            log.log(level, "nobody is told of buried deliveries: trying again %s", fields(why=error))
            self._failing = True
            return
        if self._failing:
            log.warning("messages of buried deliveries go out again")
        self._failing = False

    def _look(self, now: datetime) -> None:
        overlap = timedelta(seconds=OVERLAP)
        # what was told, and what was buried before we began, is an old story
        for entry in self._read(self._since - overlap):
            if entry.updated > self._known.get(entry.delivery, self._since - overlap) and entry.updated >= self._begun:
                self._known[entry.delivery] = entry.updated
                self._waiting.append(entry)
        self._since = now
        self._known = {key: at for key, at in self._known.items() if at > now - 2 * overlap}

    def _may_send(self, now: datetime) -> bool:
        return len(self._sent) < self._at_most or (now - self._sent[0]).total_seconds() >= MINUTE


def document(entries: Sequence[Entry], paused: Mapping[str, str], host: str, console: str = "") -> dict[str, Any]:
    """The message about these deliveries, in the order in which they were buried, and the routes that are `paused`.

    With the console's URL it has that of each group, and of all; it leads there as long as the delivery is buried.
    `text` says all of it in words, as chat programs with incoming webhooks want it (Slack, Mattermost).
    """
    found = [((entry.source, fold(reason(entry.reason))), entry.delivery) for entry in entries]
    latest = dict(found)
    named = Counter(cause for cause, _ in found).most_common(MAX_CAUSES)
    listed = [
        {
            "source": source,
            "cause": cause,
            "count": count,
            "delivery": latest[source, cause],
            "console": _group(console, latest[source, cause]),
        }
        for (source, cause), count in named
    ]
    others = len(entries) - sum(count for _, count in named)
    told = [
        f"{count} of {source}: {cause} (last: {_group(console, latest[source, cause]) or latest[source, cause]})"
        for (source, cause), count in named
    ]
    if others:
        told.append(f"{others} of other causes")
    told += [f"route {route} has paused itself: {why}" for route, why in paused.items()]
    words = [_as_said(each) for each in told]
    where = f"{console}/buried" if console else "`glassq buried --by reason`"
    number = "1 delivery was" if len(entries) == 1 else f"{len(entries)} deliveries were"
    return {
        "event": "buried" if entries else "paused",
        "host": host,
        "since": entries[0].updated.isoformat() if entries else None,
        "until": entries[-1].updated.isoformat() if entries else None,
        "buried": len(entries),
        "causes": listed,
        "others": others,
        "paused_routes": [{"route": route, "why": why} for route, why in paused.items()],
        "look": "glassq buried --by reason",
        "console": f"{console}/buried" if console else "",
        "text": "\n".join([f"glassq on {host}: {number} buried; {where} shows them"] * bool(entries) + words),
    }


def _group(console: str, delivery: str) -> str:
    """The console's URL that leads to the group of a delivery; "" without a console."""
    return f"{console}/d/{quote(delivery, safe='')}/group" if console else ""


def _as_said(words: str) -> str:
    """One line for a chat. Part of it strangers wrote, and no chat may take that for more than words."""
    return _EVERYBODY.sub("@ ", escape(" ".join(words.split()))).translate(_MARKED)
