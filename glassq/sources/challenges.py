"""Challenges: requests by which a sender asks whether an endpoint is there, and ours. They are answered at once.

A challenge is a pure function of the request and the source's keys; a preset names those that its sender uses. Unsigned
ones are answered before the proof, signed ones only after it. An unsigned one must not tell a stranger anything, or
keep anything of him: its answer is made of the request, and of a secret only where the sender's protocol says so.

Values that are echoed are printable and short, and the browser is told not to guess their type: else the endpoint
would reflect scripts. An unsigned challenge with another value is refused; a signed one goes on as an ordinary ping,
because nothing is refused after the proof. Sources of the rules: the senders' pages, named at each function.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from glassq.errors import PingRefused
from glassq.sources.base import HookRequest, Reply
from glassq.sources.places import query_field

T = TypeVar("T")
# Maximum length of an echoed value, in bytes of UTF-8.
MAX_ECHO = 1 << 10
# Maximum body of a challenge, in bytes: a larger body is an ordinary ping, and is not read here.
MAX_CHALLENGE = 16 << 10
# What a stranger may have signed with our secret. JSON and forms have other characters, so no ping can be forged by it.
_HARMLESS = re.compile(r"[A-Za-z0-9_+/=-]{1,256}")
# Characters of a host name, and of the patterns that CloudEvents allows.
_ORIGIN = re.compile(r"[A-Za-z0-9.*:_-]{1,253}")
_RATE = re.compile(r"[0-9]{1,9}|\*")
_NOSNIFF = ("X-Content-Type-Options", "nosniff")


class ChallengeKeys(msgspec.Struct, frozen=True):
    """What challenges need of a source: its secrets, the first of which signs answers, and its verify tokens (Meta)."""

    secrets: Sequence[bytes] = ()
    verify_tokens: Sequence[bytes] = ()


Answer = Callable[[HookRequest, ChallengeKeys], Reply | None]


class Challenge(msgspec.Struct, frozen=True):
    """A challenge: how it is answered, the method of its requests, and whether its sender signs them."""

    answer: Answer
    method: str = "POST"
    signed: bool = False


def unsigned(names: Iterable[str], request: HookRequest, keys: ChallengeKeys) -> Reply | None:
    """The answer to a challenge before the proof; None: the request is none. Raises PingRefused for a bad one."""
    return _first((name for name in names if not CHALLENGES[name].signed), request, keys)


def signed(names: Iterable[str], request: HookRequest, keys: ChallengeKeys) -> Reply | None:
    """The answer to a challenge after the proof; None: the request is an ordinary ping. Raises nothing."""
    return _first((name for name in names if CHALLENGES[name].signed), request, keys)


def methods(names: Iterable[str]) -> frozenset[str]:
    """The methods of these challenges."""
    return frozenset(CHALLENGES[name].method for name in names)


def _first(names: Iterable[str], request: HookRequest, keys: ChallengeKeys) -> Reply | None:
    for name in names:
        challenge = CHALLENGES[name]
        if challenge.method == request.method and (reply := challenge.answer(request, keys)) is not None:
            return reply
    return None


# -- unsigned ----------------------------------------------------------------------------------------------------------


def echo_query(request: HookRequest, _keys: ChallengeKeys) -> Reply | None:
    """GET ?challenge=...: echoes it (https://www.dropbox.com/developers/reference/webhooks)."""
    value = query_field(request.target, "challenge")
    return None if value is None else _text(_required(value))


def hub(request: HookRequest, keys: ChallengeKeys) -> Reply | None:
    """GET ?hub.mode=subscribe with our verify token: echoes hub.challenge (Meta).

    https://developers.facebook.com/docs/graph-api/webhooks/getting-started
    """
    mode, value = query_field(request.target, "hub.mode"), query_field(request.target, "hub.challenge")
    if mode != "subscribe" or value is None:
        return None
    given = query_field(request.target, "hub.verify_token")
    if not given:
        raise PingRefused(403, "Forbidden", "hub.verify_token is missing.", "no token")
    # compare with every token, also after a match, so that the time reveals nothing
    matches = [hmac.compare_digest(given.encode(errors="replace"), token) for token in keys.verify_tokens]
    if not any(matches):
        raise PingRefused(403, "Forbidden", "hub.verify_token is not the one of this source.", "wrong token")
    return _text(_required(value))


def graph(request: HookRequest, _keys: ChallengeKeys) -> Reply | None:
    """POST ?validationToken=... without a body: echoes the decoded token.

    https://learn.microsoft.com/graph/change-notifications-delivery-webhooks
    """
    value = query_field(request.target, "validationToken")
    return None if value is None or len(request.body) else _text(_required(value))


def options(request: HookRequest, _keys: ChallengeKeys) -> Reply | None:
    """OPTIONS with WebHook-Request-Origin: allows that origin, and the rate that it asks for.

    A callback is not visited: it is whatever address a stranger writes there. Its URL is for people.
    https://github.com/cloudevents/spec/blob/main/cloudevents/http-webhook.md, section 4
    """
    origin = request.headers.get("webhook-request-origin")
    if origin is None:
        return None
    if not _ORIGIN.fullmatch(origin):
        raise _malformed("WebHook-Request-Origin is no host name")
    headers = [("Allow", "POST, OPTIONS"), ("WebHook-Allowed-Origin", origin)]
    if (rate := request.headers.get("webhook-request-rate")) is not None:
        if not _RATE.fullmatch(rate):
            raise _malformed("WebHook-Request-Rate is no number")
        headers.append(("WebHook-Allowed-Rate", rate))
    return Reply(headers=tuple(headers))


def head(_request: HookRequest, _keys: ChallengeKeys) -> Reply | None:
    """HEAD: 200 (https://developer.atlassian.com/cloud/trello/guides/rest-api/webhooks/; Mandrill)."""
    return Reply()


def crc(request: HookRequest, keys: ChallengeKeys) -> Reply | None:
    """GET ?crc_token=...: the token's HMAC (X, formerly Twitter).

    Anybody can ask for that, and the same HMAC proves a body: so a token must have no character that makes it JSON.
    """
    value = query_field(request.target, "crc_token")
    if value is None or not keys.secrets:
        return None
    if not _HARMLESS.fullmatch(value):
        raise _malformed("crc_token is no token")
    digest = hmac.new(keys.secrets[0], value.encode(), hashlib.sha256).digest()
    return _json({"response_token": "sha256=" + base64.b64encode(digest).decode()})


def okta(request: HookRequest, _keys: ChallengeKeys) -> Reply | None:
    """GET with X-Okta-Verification-Challenge: echoes it (https://developer.okta.com/docs/concepts/event-hooks/)."""
    value = request.headers.get("x-okta-verification-challenge")
    return None if value is None else _json({"verification": _required(value)})


def asana(request: HookRequest, _keys: ChallengeKeys) -> Reply | None:
    """POST with X-Hook-Secret: sends it back (https://developers.asana.com/docs/webhooks-guide).

    It is not kept: a stranger could send one of his own. Asana also shows the secret in its answer to the program that
    makes the webhook: from there it goes into the secrets file.
    """
    value = request.headers.get("x-hook-secret")
    if value is None or "x-hook-signature" in request.headers:
        return None
    if not _HARMLESS.fullmatch(value):
        raise _malformed("X-Hook-Secret is no secret")
    return Reply(headers=(("X-Hook-Secret", value),))


# -- signed ------------------------------------------------------------------------------------------------------------


class _Outer(msgspec.Struct):
    """The fields of all signed challenges. JSON's other fields are skipped without being decoded."""

    type: str = ""
    challenge: str = ""


class _ZoomPayload(msgspec.Struct, rename="camel"):
    plain_token: str = ""


class _Zoom(msgspec.Struct):
    event: str = ""
    payload: _ZoomPayload = msgspec.field(default_factory=_ZoomPayload)


class _EventGridData(msgspec.Struct, rename="camel"):
    validation_code: str = ""


class _EventGrid(msgspec.Struct):
    data: _EventGridData = msgspec.field(default_factory=_EventGridData)


class _Discord(msgspec.Struct):
    type: int = -1


_OUTER = msgspec.json.Decoder(_Outer)
_ZOOM = msgspec.json.Decoder(_Zoom)
_EVENT_GRID = msgspec.json.Decoder(list[_EventGrid])
_DISCORD = msgspec.json.Decoder(_Discord)
# What Discord gets for an interaction, by its type: (JSON, whether it is a ping for the handler, too). A command, a
# component and a modal are deferred; suggestions cannot be, and there are none.
_INTERACTIONS: dict[int, tuple[dict[str, Any], bool]] = {
    1: ({"type": 1}, False),
    2: ({"type": 5}, True),
    3: ({"type": 6}, True),
    4: ({"type": 8, "data": {"choices": []}}, False),
    5: ({"type": 5}, True),
}


def slack(request: HookRequest, _keys: ChallengeKeys) -> Reply | None:
    """type url_verification: echoes challenge (https://docs.slack.dev/reference/events/url_verification)."""
    ping = _decoded(request, _OUTER)
    return _text(ping.challenge) if ping and ping.type == "url_verification" and _fits(ping.challenge) else None


def twitch(request: HookRequest, _keys: ChallengeKeys) -> Reply | None:
    """webhook_callback_verification: echoes challenge (https://dev.twitch.tv/docs/eventsub/handling-webhook-events/)."""
    if request.headers.get("twitch-eventsub-message-type") != "webhook_callback_verification":
        return None
    ping = _decoded(request, _OUTER)
    return _text(ping.challenge) if ping and _fits(ping.challenge) else None


def zoom(request: HookRequest, keys: ChallengeKeys) -> Reply | None:
    """endpoint.url_validation: plainToken and its HMAC (https://developers.zoom.us/docs/api/webhooks/)."""
    ping = _decoded(request, _ZOOM)
    if ping is None or ping.event != "endpoint.url_validation" or not keys.secrets:
        return None
    token = ping.payload.plain_token
    if not _HARMLESS.fullmatch(token):
        return None
    return _json(
        {"plainToken": token, "encryptedToken": hmac.new(keys.secrets[0], token.encode(), hashlib.sha256).hexdigest()}
    )


def event_grid(request: HookRequest, _keys: ChallengeKeys) -> Reply | None:
    """SubscriptionValidation: sends validationCode back.

    https://learn.microsoft.com/azure/event-grid/end-point-validation-event-grid-events-schema
    """
    if request.headers.get("aeg-event-type") != "SubscriptionValidation":
        return None
    events = _decoded(request, _EVENT_GRID)
    code = events[0].data.validation_code if events else ""
    return _json({"validationResponse": code}) if _fits(code) else None


def discord(request: HookRequest, _keys: ChallengeKeys) -> Reply | None:
    """Interactions: type 1 is a challenge; others are deferred, and the handler follows up.

    https://discord.com/developers/docs/interactions/receiving-and-responding
    """
    ping = _decoded(request, _DISCORD, limit=None)
    answer, kept = _INTERACTIONS.get(ping.type, (None, True)) if ping else (None, True)
    return None if answer is None else _json(answer, kept=kept)


def discord_events(request: HookRequest, _keys: ChallengeKeys) -> Reply | None:
    """Webhook events: type 0 is a challenge; 204, with a Content-Type.

    https://discord.com/developers/docs/events/webhook-events
    """
    ping = _decoded(request, _DISCORD)
    return Reply(status=204, content_type="application/json") if ping and ping.type == 0 else None


# -- parts -------------------------------------------------------------------------------------------------------------


def _decoded(request: HookRequest, decoder: msgspec.json.Decoder[T], limit: int | None = MAX_CHALLENGE) -> T | None:
    """The body's JSON as far as the decoder asks; None if it is another. A large body is no challenge."""
    if limit is not None and len(request.body) > limit:
        return None
    try:
        return decoder.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _fits(value: str) -> bool:
    return len(value) > 0 and value.isprintable() and len(value.encode(errors="replace")) <= MAX_ECHO


def _required(value: str) -> str:
    if not _fits(value):
        raise _malformed(f"a value to echo must have 1 to {MAX_ECHO} printable bytes")
    return value


def _text(value: str) -> Reply:
    return Reply(body=value.encode(), content_type="text/plain", headers=(_NOSNIFF,))


def _json(value: dict[str, Any], *, kept: bool = False) -> Reply:
    return Reply(body=msgspec.json.encode(value), content_type="application/json", headers=(_NOSNIFF,), kept=kept)


def _malformed(what: str) -> PingRefused:
    return PingRefused(400, "Malformed challenge", f"Not a challenge of this source: {what}.", "malformed")


CHALLENGES: dict[str, Challenge] = {
    "echo_query": Challenge(echo_query, "GET"),
    "hub": Challenge(hub, "GET"),
    "graph": Challenge(graph),
    "options": Challenge(options, "OPTIONS"),
    "head": Challenge(head, "HEAD"),
    "crc": Challenge(crc, "GET"),
    "okta": Challenge(okta, "GET"),
    "asana": Challenge(asana),
    "slack": Challenge(slack, signed=True),
    "twitch": Challenge(twitch, signed=True),
    "zoom": Challenge(zoom, signed=True),
    "event_grid": Challenge(event_grid, signed=True),
    "discord": Challenge(discord, signed=True),
    "discord_events": Challenge(discord_events, signed=True),
}
