"""Two webhooks of today in the demo, GitHub's and Stripe's: signed as their senders sign, with their own handlers."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import TYPE_CHECKING

from glassq.errors import LedgerError, SettingsError
from glassq.ledger.reader import LedgerReader
from glassq.local_http import post
from glassq.sources.signer import open_signer

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.settings import Settings

# What no sender waits for longer, in seconds.
TIMEOUT = 10.0

HANDLERS = '''\
"""The handlers of the two other webhooks of the demo, as you would write yours."""

from glassq import Delivery


def pushed(delivery: Delivery) -> str:
    push = delivery.json()
    return f"{len(push['commits'])} commit on {push['ref']} of {push['repository']['full_name']}"


def paid(delivery: Delivery) -> str:
    payment = delivery.json()["data"]["object"]
    return f"{payment['amount'] / 100:.2f} {payment['currency'].upper()} paid"
'''
ROUTES = {"github": "handlers:pushed", "stripe": "handlers:paid"}


@dataclass(frozen=True, slots=True)
class SentWebhook:
    """A ping that was sent: `status` of its answer (0: none came), after so many seconds.

    `expected` is what is to come of it, "done" or "refused", and `result` what its handler returned.
    """

    source: str
    event: str
    event_id: str
    expected: str
    status: int
    seconds: float
    state: str = ""
    result: str = ""

    @property
    def problem(self) -> str:
        """What is wrong with what came of it, in words; "" for nothing."""
        came = "refused" if 400 <= self.status < 500 else self.state or f"answered with {self.status}"
        return "" if came == self.expected else f"{self.source} {self.event}: {came}, and not {self.expected}"


def sections(directory: Path) -> dict[str, dict[str, object]]:
    """The sections of the two sources."""
    return {f"sources.{name}": {"secrets_file": directory / f"{name}-secrets"} for name in ROUTES}


def send(settings: Settings) -> list[SentWebhook]:
    """Sends a ping of each, and one that is signed with another secret."""
    return [_send(settings, "github"), _send(settings, "stripe"), _send(settings, "github", forged=True)]


def looked_up(settings: Settings, sent: list[SentWebhook]) -> list[SentWebhook]:
    """The same with what became of each, as far as the ledger knows."""
    try:
        with LedgerReader(settings.ledger) as ledger:
            return [_looked_up(ledger, each) for each in sent]
    except (LedgerError, SettingsError):
        return sent


def _send(settings: Settings, name: str, *, forged: bool = False) -> SentWebhook:
    place = settings.intake.bind.place
    assert place is not None, "a demo listens at a port of its own"
    signer = open_signer(settings, name)
    now = time.time()
    ping = signer.sign(signer.sample("", now), now)
    labels = signer.labels(ping)
    if forged:
        # somebody changed it on its way: the signature is of another body
        ping = replace(ping, body=ping.body.replace(b"main", b"evil"))
    began = time.perf_counter()
    try:
        status, _ = post(place, ping.target, ping.headers, ping.body, timeout=TIMEOUT)
    except (OSError, HTTPException):
        status = 0
    took = time.perf_counter() - began
    expected = "refused" if forged else "done"
    return SentWebhook(name, labels.get("event", ""), labels.get("event_id", ""), expected, status, took)


def _looked_up(ledger: LedgerReader, sent: SentWebhook) -> SentWebhook:
    for delivery in ledger.labelled({"event_id": sent.event_id}, sent.source) if sent.expected == "done" else ():
        if entry := ledger.exactly(delivery):
            return replace(sent, state=entry.state, result=entry.result)
    return sent
