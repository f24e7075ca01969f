"""The intake's app in the test's own process: requests as bytes, through gunicorn's parser; nothing is stored."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from gunicorn.config import Config

from glassq.http.answer import WsgiAnswer
from glassq.http.connection import Connection
from glassq.http.request import Environ, RequestParser
from glassq.intake.app import create_app
from glassq.intake.hook import HookResource
from glassq.intake.keeper import PingKeeper
from glassq.intake.large_bodies import LargeBodies
from glassq.intake.metrics import IntakeCounters, shared_counters
from glassq.intake.pages import ListenerFilter
from glassq.intake.peers import TrustedProxies
from glassq.intake.refusals import RefusalLog
from glassq.intake.source_counters import SharedSourceCounters
from glassq.intake.state import IntakeState
from glassq.sources.base import Description, HookRequest, Proof, Reply
from tests.intake.wire import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.intake.keeper import CheckedPing
    from glassq.sources.base import Source

TUBE = "glassq.queue.test"
OK = Reply()
_PARSER = RequestParser(Config())
_ENVIRON = Environ(Config())


class App:
    """The app with these sources. `kept` are the pings that wait to be stored."""

    def __init__(self, *sources: Source, proxies: Sequence[str] = (), peer: str = "192.0.2.7") -> None:
        self.shared = SharedSourceCounters(sources, 2)
        by_source = self.shared.row(1)
        self.requests = shared_counters()
        counters = IntakeCounters(self.requests.row(1))
        refusals = RefusalLog(counters)
        # no store is ever reached: bodies are small, and the turn holds what is to be stored
        none: Any = None
        bodies = LargeBodies(none, IntakeState(counters.journaling))
        keeper, trusted = PingKeeper(none, counters, by_source, bodies), TrustedProxies(proxies)
        hooks = {
            source.name: HookResource(
                source, keeper, bodies, refusals, by_source[source.name], trusted, tube=lambda labels: TUBE
            )
            for source in sources
        }
        self._app = create_app(hooks, counters, refusals, {}, ListenerFilter(None, None))
        self._peer = peer
        self.kept: list[CheckedPing] = []

    def ask(self, data: bytes) -> Answer:
        """The answer to one request that has arrived whole."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            conn = Connection(ours, (self._peer, 1), ("127.0.0.1", 80))
            environ = _ENVIRON.of(_PARSER.parse(data, conn.client), conn)
            environ["glassq.turn"] = self.kept
            answer = WsgiAnswer()
            head, _, body = answer.encode(self._app(environ, answer.start), closes=False).partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return Answer(int(status.split()[1]), headers, body)

    def report(self, name: str) -> Any:
        """What is counted of a source."""
        return self.shared.report().sources[name]


def raises(error: Exception) -> Callable[[HookRequest], Any]:
    """A method of a source that raises this."""

    def raising(request: HookRequest) -> Any:
        raise error

    return raising


class ScriptedSource:
    """A source that takes everything, but for what a test replaces; `asked` are its methods, as they are called."""

    kind = "scripted"
    max_body = 1000
    tube = ""
    secrets = 2

    def __init__(
        self,
        name: str = "test",
        *,
        methods: frozenset[str] = frozenset({"POST"}),
        accept: Reply = OK,
        **replaced: Callable[[HookRequest], Any],
    ) -> None:
        self.name = name
        self.methods = methods
        self.accept = accept
        self.asked: list[str] = []
        self.seen: list[HookRequest] = []
        self._replaced = replaced

    def _ask(self, what: str, request: HookRequest, default: Any) -> Any:
        self.asked.append(what)
        self.seen.append(request)
        return self._replaced[what](request) if what in self._replaced else default

    def admit(self, request: HookRequest) -> None:
        self._ask("admit", request, None)

    def challenge(self, request: HookRequest) -> Reply | None:
        answer: Reply | None = self._ask("challenge", request, None)
        return answer

    def verify(self, request: HookRequest) -> Proof:
        proof: Proof = self._ask("verify", request, Proof())
        return proof

    def reply(self, request: HookRequest) -> Reply | None:
        answer: Reply | None = self._ask("reply", request, None)
        return answer

    def describe(self, request: HookRequest) -> Description:
        found: Description = self._ask("describe", request, Description({"event": "push"}, {"x-a": "1"}, "text/x"))
        return found
