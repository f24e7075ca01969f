"""`glassq demo` without its display: runs a crowd of simulated Glass users against a real stack, and counts."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

from glassq import delivery as envelope
from glassq.dev import shop, webhooks
from glassq.dev.in_use import check_unused
from glassq.dev.queue_server import ENGINES
from glassq.dev.stack import Stack, check_name, free_port, write_new, write_settings
from glassq.dev.summary import Summary, item_of, summarise
from glassq.errors import DamagedDelivery, StackError
from glassq.glass.credentials import CredentialStore, new_key
from glassq.glass.subscriptions import subscribe
from glassq.queues import open_inspector
from glassq.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from glassq.dev.simulator.crowd import Crowd, Planned
    from glassq.dev.simulator.glass import SimulatedGlass
    from glassq.queues import Inspector
    from glassq.queues.base import TubeCounts
    from glassq.settings import Settings

# Marks the directory of a demo: only a directory with this file is emptied for the next demo.
MARK = ".glassq-demo"
# Deadline for the queue to run empty after the last ping, in seconds: the demo's longest retries fit in.
SETTLE = 60.0


def prepare(directory: Path, glass: SimulatedGlass, engine: str = "beanstalkd") -> Path:
    """Makes settings, secrets and directories for a demo, in place of an earlier demo's. Returns the resolved path.

    `engine` keeps its queue: one of `queue_server.ENGINES`.

    Raises StackError if the directory holds something else, or cannot be written.
    """
    directory = directory.resolve()
    check_name(directory)
    try:
        _empty(directory)
        for name, secret in (("credentials-key", new_key()), ("client-secret", glass.client_secret)):
            write_new(directory / name, f"{secret}\n", mode=0o600)
        shared = _shared(directory, engine)
    except OSError as error:
        raise StackError(f"{error.filename or directory}: {error.strerror}") from None
    sections: dict[str, dict[str, object]] = {
        **shared,
        "intake": {"bind": f"127.0.0.1:{free_port()}"},
        # short enough to watch
        "worker": {"backoff": "1s", "backoff_cap": "4s"},
        "glass": {
            "api_url": glass.api_url,
            "token_url": glass.token_url,
            "client_id": glass.client_id,
            "client_secret_file": directory / "client-secret",
            **({} if shared else {"credentials": directory / "credentials"}),
            "credentials_key_file": directory / "credentials-key",
            "processing_delay": "1s",
        },
    }
    write_settings(
        directory,
        {**sections, **webhooks.sections(directory), **shop.sections(directory)},
        {"mirror": "glassq.glass.photos:store", **webhooks.ROUTES, **shop.ROUTES},
    )
    write_new(directory / "handlers.py", webhooks.HANDLERS)
    write_new(directory / "shop.py", shop.HANDLER)
    return directory


def _shared(directory: Path, engine: str) -> dict[str, dict[str, object]]:
    """The section of a queue whose database keeps ledger, bodies and credentials, too; {} if the engine is not one."""
    create = ENGINES[engine].create
    return {"queue": {"url": create(directory, free_port())}} if create else {}


def _empty(directory: Path) -> None:
    """Creates or empties the directory; only the mark is left in it."""
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARK).exists():
            raise StackError(f"{directory} is not empty and no demo made it: choose another --dir")
        check_unused(directory)
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARK).touch()


class Demo:
    """One run of a crowd against a running stack."""

    def __init__(self, stack: Stack, crowd: Crowd) -> None:
        self.settings: Settings = load(str(stack.config), {})
        self.crowd = crowd
        self._stack = stack
        self._queue: Inspector = open_inspector(self.settings)
        #: how many orders the shop has sent
        self.orders = 0
        #: the pings of other senders
        self.webhooks: list[webhooks.SentWebhook] = []
        self.callback = f"http://{self.settings.intake.bind}/hooks/mirror"

    def close(self) -> None:
        """Closes the connection to the queue."""
        self._queue.close()

    def enrol(self) -> None:
        """Enrols every user: stores the credentials, and subscribes through the API."""
        store = CredentialStore.open(self.settings)
        token = self.settings.secret("sources.mirror.verify_tokens_file")[0]
        for user, account in self.crowd.accounts.items():
            store.add(user, account["refresh_token"])
            subscribe(self.settings, user, "timeline", self.callback, token)

    def send_webhooks(self) -> None:
        """Sends the pings of other senders, once."""
        self.webhooks = webhooks.send(self.settings)
        self.orders = shop.order(self.settings)

    def look_up_webhooks(self) -> list[str]:
        """Looks up what became of them, and returns what is wrong with that."""
        self.webhooks = webhooks.looked_up(self.settings, self.webhooks)
        return [sent.problem for sent in self.webhooks if sent.problem]

    def check(self) -> None:
        """Raises StackError if a process has died."""
        self._stack.check()

    def counts(self) -> TubeCounts:
        """The tube's counts now. Raises StackError if a process has died."""
        self.check()
        return self._queue.counts([self.settings.queue.tube])[0]

    def settle(self, tick: Callable[[], None]) -> bool:
        """Waits until the queue is empty, calling `tick` meanwhile; False after SETTLE seconds."""
        deadline = time.monotonic() + SETTLE
        while time.monotonic() < deadline:
            counts = self.counts()
            if not counts.ready + counts.reserved + counts.delayed:
                return True
            tick()
            time.sleep(0.1)
        return False

    def next_retry(self) -> tuple[Planned, int] | None:
        """A ping that waits for its next attempt, and the seconds until then; None if no ping waits."""
        job = self._queue.first("delayed", self.settings.queue.tube)
        if job is None:
            return None
        try:
            item = item_of(envelope.decode(job.body).body)
        except DamagedDelivery:
            return None
        ping = next((ping for ping in self.crowd.planned if ping.item is not None and ping.item.id == item), None)
        return (ping, round(job.time_left)) if ping is not None else None

    def summary(self) -> Summary:
        """The outcomes of the pings that were sent. Raises StackError if the ledger cannot be read."""
        return summarise(self.crowd.planned, self.settings, self._queue)
