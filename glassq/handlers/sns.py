"""Confirms subscriptions of Amazon SNS: visits the URL that a SubscriptionConfirmation names.

    [[routes]]
    source = "sns"
    match = { event = "SubscriptionConfirmation" }
    handler = "glassq.handlers.sns:confirm"

Until somebody visits it, SNS sends nothing else. The source has checked the signature, and that the topic is of an
account of ours. https://docs.aws.amazon.com/sns/latest/dg/sns-http-https-endpoint-as-subscriber.html
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import msgspec

from glassq import https_get
from glassq.errors import Bury, Retry

if TYPE_CHECKING:
    import ssl

    from glassq.delivery import Delivery
    from glassq.routes import Context

# The host of an address to visit; nothing else is visited, whoever has signed the message.
HOST = re.compile(r"https://sns\.[a-z0-9-]{1,40}\.amazonaws\.com(\.cn)?/\?")
# Maximum time for the visit, in seconds, and maximum size of the answer, in bytes.
VISIT_TIME = 30.0
MAX_ANSWER = 64 << 10


class _Message(msgspec.Struct):
    type: str = msgspec.field(name="Type", default="")
    topic: str = msgspec.field(name="TopicArn", default="")
    url: str = msgspec.field(name="SubscribeURL", default="")


def confirm(delivery: Delivery, context: Context) -> str:
    """Confirms the subscription; the note in the ledger names the topic.

    An UnsubscribeConfirmation is left alone: visiting its URL would subscribe again. Raises Retry if AWS cannot be
    asked now or does not agree, Bury for another delivery.
    """
    return confirm_message(delivery.body, min(context.remaining(), VISIT_TIME))


def confirm_message(
    body: bytes, seconds: float, host: re.Pattern[str] = HOST, tls: ssl.SSLContext | None = None
) -> str:
    """What `confirm` does, within so many seconds.

    `host` matches how a URL must begin to be visited, `tls` verifies its server; None: by the system's authorities.
    """
    try:
        message = msgspec.json.decode(body, type=_Message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Bury("it is no message of Amazon SNS") from None
    if message.type == "UnsubscribeConfirmation":
        return f"left alone: the subscription to {message.topic} has ended"
    if message.type != "SubscriptionConfirmation":
        raise Bury('it confirms no subscription: route it with match = {event = "SubscriptionConfirmation"}')
    if not _confirms(message, host):
        raise Bury("its SubscribeURL is none of Amazon SNS that confirms this subscription: not visited")
    _visit(message.url, seconds, tls)
    return f"confirmed the subscription to {message.topic}"


def _confirms(message: _Message, host: re.Pattern[str]) -> bool:
    """Whether the URL does nothing but confirm the subscription that the message is about."""
    if not (message.url.isascii() and message.url.isprintable() and host.match(message.url)):
        return False
    pairs = parse_qsl(urlsplit(message.url).query, keep_blank_values=True)
    query = dict(pairs)
    # which one of two counts, AWS decides
    unique = len(query) == len(pairs)
    action, topic, token = (query.get(name) for name in ("Action", "TopicArn", "Token"))
    return unique and action == "ConfirmSubscription" and topic == message.topic and bool(token)


def _visit(url: str, seconds: float, tls: ssl.SSLContext | None) -> None:
    try:
        response = https_get.get(url, seconds=seconds, limit=MAX_ANSWER, tls=tls)
    except OSError as error:
        raise Retry(f"Amazon SNS {error}") from None
    if response.status != HTTPStatus.OK:
        raise Retry(f"Amazon SNS answers {response.status} to the confirmation", detail={"status": response.status})
