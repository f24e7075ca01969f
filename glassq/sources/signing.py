"""Signs pings as a sender would, by the same rows that verify them: for samples, demos and tests.

What is signed is put together here once more, so that neither side hides the other's mistake.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import uuid
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from glassq import standard_webhooks
from glassq.errors import OperationError
from glassq.sources.mirror import VerifyToken
from glassq.sources.places import parse_spec
from glassq.sources.schemes.combined import Once, TokenOrStandard
from glassq.sources.schemes.fields import AdyenFields
from glassq.sources.schemes.hmac import Hmac
from glassq.sources.schemes.keys import decoded_keys
from glassq.sources.schemes.public_key import PublicKey
from glassq.sources.schemes.standard import Standard
from glassq.sources.schemes.token import ClientState, ShownToken, Unsigned
from glassq.sources.schemes.twilio import HEADER, Twilio
from glassq.standard_webhooks import PUBLIC, SHARED

if TYPE_CHECKING:
    from glassq.sources.draft import Draft
    from glassq.sources.schemes.base import Scheme, SchemeConfig
    from glassq.sources.times import Unit

_PART = re.compile(r"\{([^{}]*)\}")


def sign(scheme: Scheme, given: SchemeConfig, draft: Draft, now: float, key: bytes | None = None) -> Draft:
    """The ping with the proof of its sender, made at this moment (Unix time) with the first secret.

    `key` is the sender's private key in PEM. Raises OperationError where no proof can be made, and ValueError for a
    body that has no room for it.
    """
    match scheme:
        case Hmac():
            return _hmac(scheme, given, draft, now)
        case Once():
            return sign(scheme.proof, given, _filled(draft, scheme.unique), now, key)
        case Standard():
            return _standard(given.secrets[0], draft, now, key)
        case TokenOrStandard():
            way = Standard() if given.secrets[0].startswith((SHARED, PUBLIC)) else scheme.token
            return sign(way, given, draft, now, key)
        case PublicKey():
            return _public_key(scheme, given, draft, now, key)
        case ShownToken():
            return _token(scheme, given, draft)
        case VerifyToken():
            return draft.put_json(("verifyToken",), given.secrets[0])
        case ClientState():
            return _client_state(given.secrets[0], draft)
        case AdyenFields():
            return _fields(decoded_keys(given.secrets, "hex")[0], draft)
        case Twilio():
            return _twilio(given, draft)
        case Unsigned():
            return draft
        case _:
            raise OperationError(
                "only the sender itself can prove its pings: its certificate or token is fetched from its own host. "
                "`glassq put FILE --source NAME --no-check` tries the handler"
            )


def _hmac(scheme: Hmac, given: SchemeConfig, draft: Draft, now: float) -> Draft:
    stamp = _written(now, scheme.unit) if scheme.timestamp or len(scheme.list) == 3 else ""
    if scheme.timestamp:
        draft = draft.put(parse_spec(scheme.timestamp), stamp)
    if scheme.event_id:
        draft = _filled(draft, scheme.event_id)
    for part in _PART.findall(scheme.signed):
        if part.partition(":")[0] in ("header", "json", "form", "query"):
            draft = _filled(draft, part.replace("|", " | "))
    key = decoded_keys(given.secrets, scheme.key)[0]
    name = scheme.named[0] if scheme.named and scheme.hash not in scheme.named else scheme.hash
    event_id = (draft.read(parse_spec(scheme.event_id)) or "") if scheme.event_id else ""
    digest = hmac.digest(key, _signed(scheme.signed, given.url, draft, stamp, event_id), name)
    written = base64.b64encode(digest).decode() if scheme.encoding == "base64" else digest.hex()
    value = (f"{name}=" if scheme.named else scheme.prefix) + written
    if scheme.list:
        separator, *names = scheme.list
        pairs = [(names[0], stamp)] if len(names) == 2 else []
        value = separator.join(f"{name}={each}" for name, each in [*pairs, (names[-1], value)])
    return draft.put(parse_spec(scheme.signature[0]), value)


def _signed(template: str, url: str, draft: Draft, stamp: str, event_id: str = "") -> bytes:
    """What the sender signs: the parts of the template, as bytes."""
    parts: dict[str, bytes] = {
        "body": draft.body,
        "timestamp": stamp.encode(),
        "id": event_id.encode(),
        "url": (url + draft.target).encode(),
        "method": b"POST",
        "sorted_form": _sorted_form(draft),
    }

    def part(name: str) -> bytes:
        kind, _, field = name.partition(":")
        if kind == "unwrapped":
            value = draft.read(parse_spec(f"form:{field}")) if draft.is_form else None
            return draft.body if value is None else value.encode()
        return parts[name] if name in parts else (draft.read(parse_spec(name.replace("|", " | "))) or "").encode()

    texts = _PART.split(template)
    return b"".join(part(each) if place % 2 else each.encode() for place, each in enumerate(texts))


def _standard(secret: str, draft: Draft, now: float, key: bytes | None) -> Draft:
    # whoever sends by Svix has its names
    prefix = "svix" if "svix-id" in draft.headers else "webhook"
    event_id = draft.headers.get(f"{prefix}-id") or f"msg_{uuid.uuid4().hex}"
    stamp = str(int(now))
    message = standard_webhooks.message(event_id, stamp, draft.body)
    if secret.startswith(PUBLIC):
        from glassq.sources.schemes.private_key import signature as sign_message

        signature = f"v1a,{base64.b64encode(sign_message(key, message, 'ed25519')).decode()}"
    else:
        signature = standard_webhooks.signature(standard_webhooks.shared_key(secret), message)
    for name, value in {"id": event_id, "timestamp": stamp, "signature": signature}.items():
        draft = draft.with_header(f"{prefix}-{name}", value)
    return draft


def _public_key(scheme: PublicKey, given: SchemeConfig, draft: Draft, now: float, key: bytes | None) -> Draft:
    # it loads a large library
    from glassq.sources.schemes.private_key import signature

    stamp = _written(now, scheme.unit) if scheme.timestamp else ""
    if scheme.timestamp:
        draft = draft.put(parse_spec(scheme.timestamp), stamp)
    made = signature(key, _signed(scheme.signed, given.url, draft, stamp), scheme.algorithm)
    written = made.hex() if scheme.encoding == "hex" else base64.b64encode(made).decode()
    return draft.put(parse_spec(scheme.signature), written)


def _token(scheme: ShownToken, given: SchemeConfig, draft: Draft) -> Draft:
    secret, place = given.secrets[0], scheme.place.split(" | ")[0]
    if place == "bearer":
        return draft.with_header("authorization", f"Bearer {secret}")
    if place == "basic":
        username = given.section.username
        pair = secret if username is None else f"{username}:{secret}"
        return draft.with_header("authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
    return draft.put(parse_spec(place), secret)


def _client_state(secret: str, draft: Draft) -> Draft:
    for number in range(len(json.loads(draft.body)["value"])):
        draft = draft.put_json(("value", str(number), "clientState"), secret)
    return draft


def _fields(key: bytes, draft: Draft) -> Draft:
    """Adyen's: eight fields of each item."""
    for number, holder in enumerate(json.loads(draft.body)["notificationItems"]):
        item = holder["NotificationRequestItem"]
        amount = item.get("amount", {})
        names = ("pspReference", "originalReference", "merchantAccountCode", "merchantReference")
        values = [*map(item.get, names), *map(amount.get, ("value", "currency"))]
        values += map(item.get, ("eventCode", "success"))
        message = ":".join("" if value is None else str(value) for value in values)
        signature = base64.b64encode(hmac.digest(key, message.encode(), "sha256")).decode()
        place = ("notificationItems", str(number), "NotificationRequestItem", "additionalData", "hmacSignature")
        draft = draft.put_json(place, signature)
    return draft


def _twilio(given: SchemeConfig, draft: Draft) -> Draft:
    signed = _sorted_form(draft)
    if not draft.is_form and draft.body:
        draft = draft.put(parse_spec("query:bodySHA256"), hashlib.sha256(draft.body).hexdigest())
    message = f"{given.url}{draft.target}".encode() + signed
    digest = hmac.digest(given.secrets[0].encode(), message, "sha1")
    return draft.with_header(HEADER, base64.b64encode(digest).decode())


def _sorted_form(draft: Draft) -> bytes:
    """Names and values of a form, sorted, each pair once."""
    if not draft.is_form:
        return b""
    pairs = parse_qsl(draft.body.decode(), keep_blank_values=True)
    return "".join(name + value for name, value in sorted(set(pairs))).encode()


def _filled(draft: Draft, place: str) -> Draft:
    """The draft with something unique at a place where nothing is yet."""
    spec = parse_spec(place)
    return draft if draft.read(spec) else draft.put(spec, secrets.token_hex(16))


def _written(now: float, unit: Unit) -> str:
    """The time as a sender writes it."""
    match unit:
        case "ms":
            return str(int(now * 1000))
        case "rfc3339":
            return datetime.fromtimestamp(int(now), UTC).isoformat().replace("+00:00", "Z")
        case "http":
            return format_datetime(datetime.fromtimestamp(int(now), UTC), usegmt=True)
        case _:
            return str(int(now))
