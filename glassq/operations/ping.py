"""Sends signed samples to the intake of the settings, as the sender of a source would; says what became of them."""

from __future__ import annotations

import http.client
import ssl
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from glassq.errors import InvalidRequest, OperationError
from glassq.final_response import reading_final
from glassq.local_http import post
from glassq.operations import following
from glassq.operations.hints import Hint
from glassq.operations.saved_request import parse
from glassq.sources.signer import Signer, open_signer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from glassq.ledger import Entry
    from glassq.operations import Operations
    from glassq.operations.progress import Progress
    from glassq.sources.draft import Draft

# No sender waits longer than this for an answer, in seconds.
TIMEOUT = 30.0
# What a saved request has of its own way, and not of the ping.
_OF_THE_WAY = ("host", "content-length", "transfer-encoding", "connection", "expect")


@dataclass(frozen=True, slots=True, kw_only=True)
class PingRequest:
    """Which ping is sent: a sample of `event` ("": the usual one), or what a file holds: a body, or a whole request.

    `headers` come on top. `key` is a private key in PEM, for kinds whose senders sign with one. `url` is where to send
    it instead of the address of the settings.
    """

    name: str
    event: str = ""
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    key: bytes | None = None
    url: str = ""


@dataclass(frozen=True, slots=True)
class PingAnswer:
    """What one ping came to: `status` and `said` of the answer, which took so many seconds.

    `outcome` is the ledger's entry of its delivery, where that came in time.
    """

    status: int
    said: str
    seconds: float
    labels: Mapping[str, str]
    outcome: Entry | None = None

    @property
    def taken(self) -> bool:
        """Whether the intake has acknowledged it."""
        return 200 <= self.status < 300

    def document(self) -> dict[str, Any]:
        """The answer for JSON."""
        outcome = self.outcome
        worked = None
        if outcome is not None:
            worked = {"delivery": outcome.delivery, "state": outcome.state, "result": outcome.result}
            worked |= {"reason": outcome.reason}
        told = {"status": self.status, "said": self.said, "seconds": self.seconds, "labels": dict(self.labels)}
        return {**told, "delivery": worked}


@dataclass(frozen=True, slots=True)
class PingPlan:
    """What makes pings, each fresh, and where they go."""

    request: PingRequest
    signer: Signer
    place: tuple[str, int] | str
    where: str

    def ping(self, now: float) -> Draft:
        """A signed ping of this moment (Unix time)."""
        return self.signer.sign(_draft(self.request, self.signer, now), now)


def plan(operations: Operations, request: PingRequest) -> PingPlan:
    """How the ping is made. Raises InvalidRequest, and SettingsError where the source cannot be used."""
    settings = operations.settings
    if request.name not in settings.sources:
        named = ", ".join(settings.sources) or "none"
        raise InvalidRequest(f"{settings.file} has no [sources.{request.name}]; it has: {named}")
    signer = open_signer(settings, request.name, request.key)
    if request.url:
        parts = urlsplit(request.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidRequest(f"--url {request.url}: expected http://HOST or https://HOST")
        return PingPlan(request, signer, "", request.url.rstrip("/"))
    place = settings.intake.bind.place
    if place is None or (isinstance(place, tuple) and not place[1]):
        raise InvalidRequest(f'[intake] bind = "{settings.intake.bind}" says no address to send to: name it with --url')
    return PingPlan(request, signer, place, str(settings.intake.bind))


def send(plan: PingPlan) -> PingAnswer:
    """Sends one. Raises OperationError where nobody answers."""
    draft = plan.ping(time.time())
    began = time.perf_counter()
    try:
        if plan.request.url:
            status, said = _post_to(plan.where, draft)
        else:
            status, said = post(plan.place, draft.target, draft.headers, draft.body, timeout=TIMEOUT)
    except (OSError, http.client.HTTPException) as error:
        why = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
        raise OperationError(
            f"nobody takes it at {plan.where}: {why}; does glassq-web run? (`glassq doctor`)"
        ) from None
    return PingAnswer(status, said, time.perf_counter() - began, plan.signer.labels(draft))


def follow(operations: Operations, plan: PingPlan, answer: PingAnswer, progress: Progress) -> PingAnswer:
    """The answer with what its delivery came to, if that is in the ledger soon. Raises Stopped."""
    since = datetime.fromtimestamp(time.time() - answer.seconds - 1, UTC)
    name, event_id = plan.request.name, answer.labels.get("event_id", "")
    outcome = following.follow(operations, lambda: _outcome(operations, name, event_id, since), progress)
    return replace(answer, outcome=outcome)


def hints(plan: PingPlan, answer: PingAnswer, many: bool) -> Iterator[Hint]:
    """What to look at next, after the first answer that was no success, or the last of `many`."""
    name = plan.request.name
    if answer.taken and answer.outcome is None:
        yield Hint("what becomes of them" if many else "taken, and not worked yet", f"tail --source {name}")
    elif answer.taken and answer.outcome is not None:
        yield Hint("its whole story", f"show {answer.outcome.delivery}")
    elif answer.status == http.HTTPStatus.NOT_FOUND:
        reload = "does the running glassq-web know it? After a change of the settings it has to be reloaded"
        yield Hint(f"{plan.where} has no /hooks/{name}; {reload}", "doctor")
    elif answer.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        yield Hint("the intake cannot keep it now", "doctor")
    else:
        yield Hint("what the intake counts as refused, and why", "sources")


def _draft(request: PingRequest, signer: Signer, now: float) -> Draft:
    """The ping before it is signed."""
    if request.content is None:
        draft = signer.sample(request.event, now)
    else:
        saved = parse(request.content, bare=True)
        kept = {name: value for name, value in saved.headers.items() if name not in _OF_THE_WAY}
        draft = signer.of_body(request.event, saved.body, kept)
    own = {name.lower(): value for name, value in request.headers.items()}
    return replace(draft, headers={**draft.headers, **own})


def _post_to(base: str, draft: Draft) -> tuple[int, str]:
    """Sends it to another address. Raises OSError and HTTPException."""
    parts = urlsplit(base)
    host, target = parts.hostname or "", f"{parts.path}{draft.target}"
    plain = reading_final(http.client.HTTPConnection)
    connection = plain(host, parts.port, timeout=TIMEOUT)
    if parts.scheme == "https":
        secure = reading_final(http.client.HTTPSConnection)
        connection = secure(host, parts.port, timeout=TIMEOUT, context=ssl.create_default_context())  # type: ignore[call-arg]
    with closing(connection):
        connection.request("POST", target, draft.body, draft.headers)
        answer = connection.getresponse()
        return answer.status, answer.read(300).decode("utf-8", "replace").strip()


def _outcome(operations: Operations, name: str, event_id: str, since: datetime) -> Entry | None:
    with operations.ledger() as ledger:
        if event_id:
            for delivery in ledger.labelled({"event_id": event_id}, name):
                return ledger.exactly(delivery)
            return None
        entries = [entry for entry in ledger.since(since, {"source": name}) if entry.received >= since]
        return entries[-1] if entries else None
