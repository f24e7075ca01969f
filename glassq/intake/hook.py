"""/hooks/NAME: what becomes of a request to a source.

In this order: length, method, what needs no proof (token in the path, address, content type), challenges that nobody
signs, the proof, challenges that are signed; then the delivery. After the proof nothing is refused: a label that cannot
be read is left out. What is our trouble gets 503, never another error: many senders take a 4xx for "never again".

Nothing asks for the body before it needs it. So a request whose head alone is wrong is refused without it, and our own
worker asks that (`refuses`) before it receives a large one.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

import falcon

from glassq import delivery as envelope
from glassq.errors import BodyError, PingRefused, QueueError, SourceUnready
from glassq.intake.refusals import answer_problem, answer_unavailable
from glassq.intake.request import hook_request
from glassq.sources.base import BodyAwaited, Description, HeadRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from glassq.intake.keeper import PingKeeper
    from glassq.intake.large_bodies import LargeBodies
    from glassq.intake.peers import TrustedProxies
    from glassq.intake.refusals import RefusalLog
    from glassq.intake.source_counters import SourceCounters
    from glassq.sources.base import Body, HookRequest, Proof, Reply, Source

T = TypeVar("T")


class HookResource:
    """Takes the requests of one source, by any method."""

    def __init__(
        self,
        source: Source,
        keeper: PingKeeper,
        bodies: LargeBodies,
        refusals: RefusalLog,
        counters: SourceCounters,
        proxies: TrustedProxies,
        *,
        tube: Callable[[Mapping[str, str]], str],
    ) -> None:
        """`tube` says where a ping goes, by its labels."""
        self._source = source
        self._tube = tube
        self._keeper = keeper
        self._bodies = bodies
        self._refusals = refusals
        self._counters = counters
        self._proxies = proxies

    def on_request(self, req: falcon.Request, resp: falcon.Response, rest: str = "") -> None:
        """Answers what the source says. A ping's answer goes out once it is stored durably, and never before.

        `rest` is what follows the name in the path; the source looks at it.
        """
        try:
            reply = self._work(req)
        except PingRefused as refusal:
            self._refuse(req, resp, refusal)
        except SourceUnready as error:
            self._counters.refused("unready")
            self._refusals.unready(self._source, error)
            answer_unavailable(resp, "Source unavailable")
        except BodyError as error:
            self._counters.refused("not kept")
            self._refusals.unready(self._source, error)
            answer_unavailable(resp, "Store unavailable")
        except (falcon.HTTPError, QueueError):
            raise
        except Exception:
            # a source may be somebody else's code
            self._counters.refused("bug")
            raise
        else:
            _answer(resp, reply)

    # Falcon would answer it itself
    on_options = on_request

    def refuses(self, environ: Mapping[str, Any]) -> bool:
        """Whether it refuses a request with a large body by its head alone. It counts nothing yet."""
        source = self._source
        if environ["REQUEST_METHOD"] not in source.methods:
            return True
        request = hook_request(environ, None, self._proxies)
        try:
            self._admit(request)
            # somebody else's code may hang, and is not told of requests without a body
            if source.kind != "custom" and self._challenge(request) is None:
                source.verify(request)
        except PingRefused:
            return True
        except Exception:
            # it needs the body, or our key is not here yet; or it has a bug, which shows when the body is here
            return False
        return False

    def not_received(self, reason: str) -> None:
        """A large body of it was not received, as our own worker says: for one of glassq.http.spilling's reasons."""
        self._counters.refused(reason)

    def _work(self, req: falcon.Request) -> Reply:
        source = self._source
        length = self._length(req)
        if req.method not in source.methods:
            raise self._not_allowed(*source.methods)
        request = hook_request(req.env, _body(req, length), self._proxies)
        self._admit(request)
        if (answer := self._challenge(request)) is not None:
            self._counters.challenge()
            return answer
        if req.method != "POST":
            raise self._not_allowed("POST")
        if not length:
            raise PingRefused(400, "Malformed ping", "The body is empty.", "malformed")
        self._counters.proven(self._verify(request), request.now)
        return self._take(request, req.env)

    def _admit(self, request: HookRequest) -> None:
        self._source.admit(request)
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise PingRefused(415, "Unsupported encoding", "Send the body without Content-Encoding.", "encoding")

    def _challenge(self, request: HookRequest) -> Reply | None:
        try:
            return self._source.challenge(request)
        except BodyAwaited:
            # no challenge has a body that is large
            return None

    def _verify(self, request: HookRequest) -> Proof:
        """The proof of a request that is here with its body. Raises PingRefused and SourceUnready."""
        try:
            proof = self._source.verify(request)
        except BodyAwaited:
            proof = None
        if proof is None or isinstance(request, HeadRequest):
            raise PingRefused(400, "Malformed ping", "The body ended before its Content-Length.", "malformed")
        return proof

    def _length(self, req: falcon.Request) -> int:
        """The length of the body in bytes. Raises PingRefused."""
        length = req.content_length
        if length is None:
            if req.method == "POST":
                raise PingRefused(411, "Length required", "Send the body with Content-Length.", "length")
            return 0
        if length > self._source.max_body:
            raise PingRefused(413, "Body too large", f"A ping is at most {self._source.max_body} bytes.", "size")
        return length

    def _not_allowed(self, *methods: str) -> falcon.HTTPMethodNotAllowed:
        self._counters.refused("method")
        return falcon.HTTPMethodNotAllowed(sorted(methods))

    def _take(self, request: HookRequest, environ: Mapping[str, Any]) -> Reply:
        """Answers a signed challenge, or has a genuine ping kept. A bug of the source refuses nothing any more."""
        source = self._source
        reply = self._tried(source.reply, request, None)
        if reply is not None and not reply.kept:
            self._counters.challenge()
            return reply
        found = self._tried(source.describe, request, Description({}, {}, ""))
        if found.unread:
            self._counters.unread(len(found.unread))
        key, stored = self._bodies.store(request.body, environ)
        delivery = envelope.new(
            source.name,
            b"" if stored else bytes(request.body),
            found.labels,
            tube=self._tube(found.labels),
            content_type=found.content_type,
            headers=found.headers,
            stored=stored,
            key=key,
        )
        self._keeper.take(delivery, environ)
        return reply or source.accept

    def _tried(self, ask: Callable[[HookRequest], T], request: HookRequest, default: T) -> T:
        try:
            return ask(request)
        except Exception:
            self._refusals.bug("bug in source %s: a genuine ping is kept without its labels", self._source.name)
            return default

    def _refuse(self, req: falcon.Request, resp: falcon.Response, refusal: PingRefused) -> None:
        self._counters.refused(refusal.reason, refusal.skew)
        if refusal.status == HTTPStatus.NOT_FOUND:
            # as any other path that is not here
            raise falcon.HTTPNotFound
        self._refusals.refused(refusal, req.remote_addr, self._source)
        answer_problem(resp, refusal.status, refusal.title, refusal.detail)


def _body(req: falcon.Request, length: int) -> Body | None:
    """The body; None if not all of it is here."""
    if (received := req.env.get("glassq.body")) is not None:
        large: Body = received.data
        return large
    body: bytes = req.stream.read(length) if length else b""
    return body if len(body) == length else None


def _answer(resp: falcon.Response, reply: Reply) -> None:
    resp.status = reply.status
    if reply.content_type:
        resp.content_type = reply.content_type
    if reply.body:
        resp.data = reply.body
        # it may repeat what the sender wants repeated, and no browser may take that for a page
        resp.set_header("X-Content-Type-Options", "nosniff")
    for name, value in reply.headers:
        resp.set_header(name, value)
