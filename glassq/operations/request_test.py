"""Would a saved request be taken by a source, and if not, why? Nothing secret is in what it says.

What is asked is the source itself. Where it refuses, the same request is asked about again with one thing changed, such
as its line ends, the time, or the source's kind: what makes it right is what is wrong.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from glassq.errors import InvalidRequest, PingRefused, SourceUnready
from glassq.operations.refusal import diagnosis
from glassq.operations.saved_request import parse
from glassq.operations.words import span
from glassq.sources import HookRequest
from glassq.sources.fetched_keys import FetchedKeys
from glassq.sources.opening import open_source
from glassq.values import Network

if TYPE_CHECKING:
    from glassq.operations import Operations
    from glassq.operations.saved_request import SavedRequest
    from glassq.settings import Settings
    from glassq.sources import Reply, Source

# The file does not say who sent it: this address is let in.
_PEER, EVERYWHERE = "127.0.0.1", "0.0.0.0/0"
# So long a certificate or key of the sender is waited for, in seconds.
FETCH_WITHIN = 15.0


@dataclass(slots=True)
class TestedRequest:
    """What a source makes of a request. `said` is that in one sentence, `facts` are names and values, for people.

    `reason` is why it is refused, as metrics count it ("": it is not). `todo` says what to do then.
    """

    taken: bool
    said: str
    reason: str = ""
    facts: list[tuple[str, str]] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """The verdict for JSON."""
        return {"taken": self.taken, "said": self.said, "reason": self.reason, "facts": dict(self.facts)}


def moment_of(text: str) -> float:
    """Unix time of "2026-03-01T12:00:00Z", or of seconds. Raises InvalidRequest."""
    with suppress(ValueError):
        if math.isfinite(seconds := float(text)):
            return seconds
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    raise InvalidRequest(f"--now {text}: expected a time such as 2026-03-01T12:00:00Z, or Unix seconds")


def alone(settings: Settings, name: str) -> Settings:
    """The settings with this source alone, which takes requests from every address. Raises InvalidRequest."""
    section = settings.sources.get(name)
    if section is None:
        named = ", ".join(settings.sources) or "none"
        raise InvalidRequest(f"{settings.file} has no [sources.{name}]; it has: {named}")
    open_to_all = (Network(EVERYWHERE),) if section.allow else ()
    return msgspec.structs.replace(settings, sources={name: msgspec.structs.replace(section, allow=open_to_all)})


def examine(operations: Operations, name: str, data: bytes, now: float) -> TestedRequest:
    """What the source of this name makes of the request in a file at a time (Unix time).

    Raises InvalidRequest for a file that is no request, and SettingsError where the source cannot be used.
    """
    settings = alone(operations.settings, name)
    documents = FetchedKeys()
    source, saved = open_source(settings, name, documents), parse(data)
    request = HookRequest(saved.method, _target(saved, settings, name), saved.headers, saved.body, _PEER, now)
    try:
        verdict = _ask_patiently(source, request, documents)
    except PingRefused as error:
        said = f"refused with {error.status}: {error.detail or error.title}"
        verdict = TestedRequest(
            False, said, error.reason, todo=diagnosis(settings, name, request, error, saved.body + saved.surplus)
        )
    except SourceUnready as error:
        verdict = TestedRequest(False, f"nobody can tell now: {error}", "unready")
    finally:
        documents.close()
    verdict.facts += [("saved file", remark) for remark in saved.remarks]
    if operations.settings.sources[name].allow:
        verdict.facts.append(("not looked at", "who sent it: [sources] allow is for the intake"))
    return verdict


def _target(saved: SavedRequest, settings: Settings, name: str) -> str:
    """The target as the intake sees it: a proxy may have taken it under another path, or the file has none."""
    path, question, query = saved.target.partition("?")
    if path.startswith("/hooks/") or settings.sources[name].path_token_file:
        return saved.target
    return f"/hooks/{name}{question}{query}"


def _ask_patiently(source: Source, request: HookRequest, documents: FetchedKeys) -> TestedRequest:
    """Asks again when what the sender publishes has been fetched: the first of two documents may name the second.

    Raises PingRefused and SourceUnready.
    """
    for _ in range(2):
        with suppress(SourceUnready):
            return _ask(source, request)
        documents.settle(FETCH_WITHIN)
    return _ask(source, request)


def _ask(source: Source, request: HookRequest) -> TestedRequest:
    """Asks in the order of the intake. Raises PingRefused and SourceUnready."""
    if len(request.body) > source.max_body:
        most = f"[sources.{source.name}] max_body takes {source.max_body}"
        raise PingRefused(413, "Too large", f"the body has {len(request.body)} bytes, and {most}", "size")
    source.admit(request)
    if (answer := source.challenge(request)) is not None:
        return _challenge(answer)
    if request.method not in source.methods:
        raise PingRefused(405, "Method", f"{request.method} is not a method of this source", "method")
    proof = source.verify(request)
    facts = [("secret", f"{proof.secret + 1} of {source.secrets}")] if source.secrets else []
    if proof.skew is not None:
        facts.append(("clock", f"signed {span(abs(proof.skew))} {'before' if proof.skew < 0 else 'after'} this time"))
    answer = source.reply(request)
    if answer is not None and not answer.kept:
        return _challenge(answer, facts)
    found = source.describe(request)
    labels = " ".join(f"{key}={value}" for key, value in found.labels.items()) or "none"
    facts += [("labels", labels), ("headers kept", ", ".join(found.headers) or "none")]
    facts.append(("body", f"{len(request.body)} bytes, {found.content_type or 'of no type'}"))
    if found.unread:
        facts.append(("labels not read", ", ".join(found.unread)))
    facts.append(("answer", _words(answer or source.accept)))
    return TestedRequest(True, "genuine: it would be taken", facts=facts)


def _challenge(answer: Reply, facts: list[tuple[str, str]] | None = None) -> TestedRequest:
    """What an answer holds may be made of a secret: its size is told."""
    more = [*(facts or ()), ("answer", _words(answer))]
    return TestedRequest(True, "a challenge of the sender: it would be answered, and nothing is kept", facts=more)


def _words(answer: Reply) -> str:
    held = f", {len(answer.body)} bytes of {answer.content_type}" if answer.body else ", empty"
    return f"{answer.status}{held}"
