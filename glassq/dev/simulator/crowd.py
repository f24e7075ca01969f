"""A crowd of simulated Glass users who share photos, including awkward ones: the load of `glassq demo`.

The plan fixes the expected outcome of each ping beforehand, so that the caller can find lost pings.
"""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from glassq.dev.simulator.api import BASE
from glassq.dev.simulator.faults import HTML

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.dev.simulator.glass import SimulatedGlass
    from glassq.dev.simulator.media import Kind
    from glassq.dev.simulator.ping import PingResult
    from glassq.dev.simulator.world import Attachment, TimelineItem

Expected = Literal["stored", "dropped", "buried", "refused"]
# The problem with a ping or its photo, if any.
Trouble = Literal[
    "none",
    "png",
    "film",
    "several",  # a picture, a film and a live stream's address in one item: two files
    "processing",  # not available for some seconds after the ping
    "gone",  # deleted before the ping is sent
    "revoked",  # the user revoked the consent
    "rate limited",  # 429 or 403, with a Retry-After
    "server error",  # 503 with HTML
    "cut off",  # the first download ends in the middle
    "duplicate",  # the same ping twice
    "wrong token",  # sent by a stranger
]
TROUBLES: tuple[Trouble, ...] = get_args(Trouble)[1:]

_MEDIA: dict[Trouble, tuple[Kind, ...]] = {"png": ("png",), "film": ("mp4",), "several": ("jpeg", "mp4", "stream")}
_EXPECTED: dict[Trouble, Expected] = {"gone": "dropped", "revoked": "buried", "wrong token": "refused"}
# Share of awkward pings, beyond one of each kind.
AWKWARD = 0.25
# Processing time of photos, in seconds: long enough that the first request comes too early.
PROCESSING = (2.0, 4.0)
# Number of sender threads, so that one slow response delays no other ping. Mirror sends from many machines.
SENDERS = 4


@dataclass(slots=True)
class Planned:
    """One ping of the plan. Sending it sets `item` and appends to `results`.

    A duplicate is two pings: `repeat` of the first one is the second, sent as soon as the first is answered.
    """

    number: int
    user: str
    trouble: Trouble
    expected: Expected
    repeat: Planned | None = None
    is_repeat: bool = False
    item: TimelineItem | None = None
    results: list[PingResult] = field(default_factory=list)

    @property
    def acknowledged(self) -> bool:
        """Whether the ping was sent, and its last try got a 2xx response."""
        return bool(self.results) and all(result.acknowledged for result in self.results)

    @property
    def files(self) -> tuple[Attachment, ...]:
        """The attachments that glassq must store for this ping, in the item's order, with their bytes.

        A repeat has none, because its first ping already has them.
        """
        if self.item is None or self.expected != "stored" or self.is_repeat:
            return ()
        return tuple(one for one in self.item.attachments if not one.content_type.endswith("stream-url"))


class Crowd:
    """`users` people, one more who revokes the consent, and their `pings` pings, `rate` per second; `seed` decides all.

    `accounts` has each user's authorized_user JSON by name. Before `run`, each user needs credentials and a
    subscription. With 12 pings or more, each kind of trouble happens at least once.
    """

    def __init__(self, glass: SimulatedGlass, *, pings: int, users: int = 5, seed: int = 1, rate: float = 20.0) -> None:
        if pings < 0 or users < 1 or rate <= 0:
            raise ValueError(f"a crowd needs pings >= 0, users >= 1, rate > 0; not {pings}, {users}, {rate}")
        self._glass = glass
        self._seed = seed
        self._chance = random.Random(seed)
        self._rate = rate
        # Google's user ids have 21 digits.
        names = [str(self._chance.randrange(10**20, 2 * 10**20) + 10**20) for _ in range(users + 1)]
        self.users, self._revoked = names[:-1], names[-1]
        self.accounts = {name: glass.add_user(name) for name in names}
        self.planned = self._plan(pings)
        #: set this to end `run` early
        self.stop = threading.Event()

    def _plan(self, pings: int) -> list[Planned]:
        choose = self._chance
        troubles = choose.sample(TROUBLES, min(pings, len(TROUBLES)))
        # a duplicate takes two pings
        room = pings - len(troubles) - troubles.count("duplicate")
        while room > 0:
            trouble = choose.choice(TROUBLES) if choose.random() < AWKWARD else "none"
            troubles.append(trouble if trouble != "duplicate" or room > 1 else "none")
            room -= 1 + (trouble == "duplicate")
        choose.shuffle(troubles)
        repeats = pings - len(troubles)
        planned: list[Planned] = []
        for trouble in troubles:
            user = self._revoked if trouble == "revoked" else choose.choice(self.users)
            first = Planned(len(planned) + 1, user, trouble, _EXPECTED.get(trouble, "stored"))
            planned.append(first)
            if trouble == "duplicate" and repeats:
                repeats -= 1
                first.repeat = Planned(len(planned) + 1, user, trouble, first.expected, is_repeat=True)
                planned.append(first.repeat)
        return planned

    def run(self, on_event: Callable[[Planned], object] = lambda _: None) -> None:
        """Sends the planned pings, until the end of the plan or `stop`. Calls `on_event` for each, in several threads.

        Raises LookupError if a user has no subscription.
        """
        started = time.monotonic()
        with ThreadPoolExecutor(SENDERS, thread_name_prefix="crowd") as senders:
            sent = []
            try:
                for planned in self.planned:
                    if planned.is_repeat:
                        continue
                    due = started + planned.number / self._rate
                    if self.stop.wait(max(0.0, due - time.monotonic())):
                        break
                    sent.append(senders.submit(self._send, planned, on_event))
            except BaseException:
                # After a Ctrl-C, the executor would otherwise send everything that is queued before it ends.
                self.stop.set()
                raise
        for future in sent:
            future.result()

    def _send(self, planned: Planned, on_event: Callable[[Planned], object]) -> None:
        if self.stop.is_set():
            return
        planned.item = self._share(planned)
        tries = {"tries": 1} if planned.trouble == "wrong token" else {}
        form = self._glass.notification(planned.user, planned.item)
        if planned.trouble == "wrong token":
            form["verifyToken"] = "somebody-else"
        url = self._glass.subscription(planned.user).callback_url
        for ping in (planned, planned.repeat):
            if ping is not None and not self.stop.is_set():
                ping.item = planned.item
                ping.results.append(self._glass.send(url, form, stop=self.stop, **tries))
                on_event(ping)

    def _share(self, planned: Planned) -> TimelineItem:
        """Creates the planned item, and arranges its trouble."""
        # A generator for each ping, so that the order of the threads decides nothing.
        chance = random.Random(f"{self._seed}/{planned.number}")
        patience = chance.uniform(*PROCESSING) if planned.trouble == "processing" else 0.0
        item = self._glass.share(planned.user, _MEDIA.get(planned.trouble, ("jpeg",)), processing_for=patience)
        path = f"{BASE}timeline/{item.id}"
        match planned.trouble:
            case "gone":
                self._glass.delete_item(planned.user, item.id, trace=chance.random() < 0.5)
            case "revoked":
                self._glass.revoke(planned.user)
            case "rate limited":
                status, times = chance.choice((403, 429)), chance.randint(1, 2)
                self._glass.fail_next(path, status, "rateLimitExceeded", headers={"Retry-After": "1"}, times=times)
            case "server error":
                self._glass.fail_next(path, 503, body=HTML)
            case "cut off":
                self._glass.fail_next(f"{path}/attachments/{item.attachments[0].id}", mode="cut off")
        return item
