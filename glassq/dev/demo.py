"""What `glassq demo` does, without its looks: a crowd of simulated Glass users against a real stack, and the count."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from glassq import delivery as envelope
from glassq.dev.stack import Stack, free_port, write_settings
from glassq.errors import DamagedDelivery, JobNotFound, SettingsError, StackError
from glassq.glass import names
from glassq.glass.credentials import CredentialStore, new_key
from glassq.glass.subscriptions import subscribe
from glassq.ledger.reader import LedgerReader
from glassq.queues import JobStats, open_queue
from glassq.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from glassq.dev.glass import SimulatedGlass
    from glassq.dev.glass_crowd import Crowd, Planned
    from glassq.queues import Queue, TubeStats
    from glassq.settings import Settings

# A demo's directory holds this file: only such a one is emptied for the next demo.
MARK = ".glassq-demo"
# How long after the last ping everything must be settled, in seconds: the longest retries of the demo's settings.
SETTLE = 60.0


@dataclass(slots=True)
class Summary:
    """What came of a demo. Times in seconds."""

    sent: int = 0
    acknowledged: int = 0
    refused: int = 0
    ack_times: list[float] = field(default_factory=list)
    stored: int = 0
    stored_files: int = 0
    stored_bytes: int = 0
    dropped: int = 0
    buried: int = 0
    retried: int = 0
    lost: list[str] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """The acknowledgement time that this share of the pings stayed below."""
        times = sorted(self.ack_times)
        return times[min(len(times) - 1, int(share * len(times)))] if times else 0.0


def prepare(directory: Path, glass: SimulatedGlass) -> Path:
    """Settings, secrets and directories for a demo, in place of those of an earlier one. Returns the resolved path.

    Raises StackError for a directory that holds something else.
    """
    directory = directory.resolve()
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARK).exists():
            raise StackError(f"{directory} is not empty and not a demo's: choose another --dir")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARK).touch()
    for name, secret in (("credentials-key", new_key()), ("client-secret", glass.client_secret)):
        (directory / name).write_text(f"{secret}\n")
        (directory / name).chmod(0o600)
    sections: dict[str, dict[str, object]] = {
        "intake": {"bind": f"127.0.0.1:{free_port()}"},
        # soon enough to watch
        "worker": {"backoff": "1s", "backoff_cap": "4s"},
        "glass": {
            "api_url": glass.api_url,
            "token_url": glass.token_url,
            "client_id": glass.client_id,
            "client_secret_file": directory / "client-secret",
            "credentials": directory / "credentials",
            "credentials_key_file": directory / "credentials-key",
            "processing_delay": "1s",
        },
    }
    write_settings(directory, sections, "glassq.glass.photos:store")
    return directory


class Demo:
    """One run of a crowd against a stack that is up."""

    def __init__(self, stack: Stack, crowd: Crowd) -> None:
        self.settings: Settings = load(str(stack.config), {})
        self.crowd = crowd
        self._stack = stack
        self._queue: Queue = open_queue(self.settings.queue)
        self.callback = f"http://{self.settings.intake.bind}/hooks/mirror"

    def close(self) -> None:
        """Closes the connection to the queue."""
        self._queue.close()

    def enrol(self) -> None:
        """Every user consents: credentials in the store, and a subscription made through the API."""
        store = CredentialStore.open(self.settings)
        token = self.settings.secret("sources.mirror.verify_tokens_file")[0]
        for user, account in self.crowd.accounts.items():
            store.add(user, account["refresh_token"])
            subscribe(self.settings, user, "timeline", self.callback, token)

    def counts(self) -> TubeStats:
        """The tube as it is now. Raises StackError where a process has died."""
        self._stack.check()
        return self._queue.stats_tube()

    def settle(self, tick: Callable[[], None]) -> bool:
        """Waits until nothing is left to do, calling `tick` meanwhile; False if that takes too long."""
        over = time.monotonic() + SETTLE
        while time.monotonic() < over:
            counts = self.counts()
            if not counts.ready + counts.reserved + counts.delayed:
                return True
            tick()
            time.sleep(0.1)
        return False

    def summary(self) -> Summary:
        """Counts what was sent, and looks for each ping's outcome where it must be: on disk, buried, in the ledger."""
        found = Summary()
        buried, entries = self._buried_items(), self._ledger_states()
        for planned in self.crowd.planned:
            for result in planned.results:
                found.sent += len(result.statuses)
                found.refused += sum(400 <= status < 500 for status in result.statuses)
                if result.acknowledged:
                    found.acknowledged += 1
                    found.ack_times.append(result.seconds)
            if planned.acknowledged and planned.item is not None:
                self._count(planned, found, planned.item.id in buried)
        found.retried = entries["retried"]
        # a dropped ping leaves nothing but its line in the ledger: fewer lines than such pings are losses
        expected = sum(len(p.results) for p in self.crowd.planned if p.expected == "dropped" and p.acknowledged)
        found.dropped = entries["dropped"]
        found.lost += ["a dropped ping has no line in the ledger"] * max(0, expected - found.dropped)
        return found

    def _count(self, planned: Planned, found: Summary, buried: bool) -> None:
        assert planned.item is not None
        if buried:
            found.buried += 1
        elif planned.expected == "stored":
            missing = list(self._missing(planned))
            found.lost += missing
            if not missing:
                found.stored += 1
                found.stored_files += len(planned.files)
                found.stored_bytes += sum(len(file.data) for file in planned.files)
        elif planned.expected == "buried":
            found.lost.append(f"item {planned.item.id} is not buried")

    def _missing(self, planned: Planned) -> Iterator[str]:
        """What of a shared item is not on disk, byte for byte."""
        assert planned.item is not None
        photos = self._stack.directory / "photos"
        for number, file in enumerate(planned.files):
            name = names.object_name(planned.user, planned.item.id, file.id if number else None, file.content_type)
            try:
                if (photos / name).read_bytes() != file.data:
                    yield f"{name} differs from what was shared"
            except OSError:
                yield f"{name} is not stored"

    def _buried_items(self) -> set[str]:
        items: set[str] = set()
        for job in self._queue.scan(frozenset({"buried"})):
            if isinstance(job, JobStats):
                with suppress(DamagedDelivery, JobNotFound, msgspec.MsgspecError):
                    body = envelope.decode(self._queue.peek(job.id).body).body
                    items.add(msgspec.json.decode(body)["itemId"])
        return items

    def _ledger_states(self) -> Counter[str]:
        """How many deliveries the ledger has by state, and under "retried" how many took several attempts."""
        states: Counter[str] = Counter()
        try:
            with LedgerReader(self.settings.ledger) as reader:
                for entry in reader.recent(1_000_000):
                    states[entry.state] += 1
                    states["retried"] += entry.attempts > 1
        except SettingsError as error:
            raise StackError(f"the ledger cannot be read: {error}") from error
        return states
