"""The confirmation of a subscription: what is visited, and what never is."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from glassq.errors import Retry
from glassq.handlers import sns
from glassq.testing import work

if TYPE_CHECKING:
    from tests.push.targets import Target
    from tests.sources.certificates import Authority

TOPIC = "arn:aws:sns:eu-west-1:123456789012:orders"
QUERY = f"Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336412f37"
URL = f"https://sns.eu-west-1.amazonaws.com/?{QUERY}"


def message(url: object = URL, kind: str = "SubscriptionConfirmation") -> bytes:
    return json.dumps({"Type": kind, "TopicArn": TOPIC, "Token": "2336412f37", "SubscribeURL": url}).encode()


@pytest.mark.parametrize(
    "url",
    [
        "",
        None,
        URL.replace("https", "http"),
        URL.replace("amazonaws.com", "amazonaws.com.evil.example"),
        URL.replace("amazonaws.com", "amazonaws.com:8443"),
        URL.replace("amazonaws.com", "amazonaws.com@evil.example"),
        URL.replace("sns.eu-west-1", "sns.eu-west-1@evil.example"),
        URL.replace("sns.eu-west-1", "evil.example/sns.eu-west-1"),
        URL.replace("sns.eu-west-1", "evil.example#sns.eu-west-1"),
        URL.replace("//sns.", "//sqs."),
        URL.replace("/?", "/x?"),
        URL.replace("/?", "/../?"),
        URL.replace("ConfirmSubscription", "Unsubscribe"),
        URL.replace("ConfirmSubscription", "DeleteTopic"),
        URL + "&Action=DeleteTopic",
        URL.replace("?", "?Action=DeleteTopic&"),
        URL.replace("orders", "others"),
        URL.replace("2336412f37", ""),
        URL + "\r\nHost: evil.example",
        URL + "é",
        "http://169.254.169.254/latest/meta-data/",
        "https://localhost/?" + QUERY,
    ],
)
def test_no_other_url_is_visited(url: object) -> None:
    came = work("glassq.handlers.sns:confirm", message(url), labels={"event": "SubscriptionConfirmation"})
    assert came.state == "buried"
    assert "not visited" in came.reason or "no message" in came.reason


def test_the_end_of_a_subscription_is_noted_and_not_visited() -> None:
    came = work("glassq.handlers.sns:confirm", message(kind="UnsubscribeConfirmation"))
    assert (came.state, came.result) == ("done", f"left alone: the subscription to {TOPIC} has ended")


@pytest.mark.parametrize(
    "body", [message(kind="Notification"), b"hello", b"[]", b'{"x":' + b"[" * 100_000, b'{"Type":1}']
)
def test_another_delivery_is_buried(body: bytes) -> None:
    assert work("glassq.handlers.sns:confirm", body).state == "buried"


HERE = re.compile(r"https://127\.0\.0\.1:[0-9]+/\?")


@pytest.mark.parametrize("query", [QUERY, QUERY.replace(":", "%3A")])
def test_a_visit_confirms_the_subscription(authority: Authority, https_server: Target, query: str) -> None:
    note = sns.confirm_message(message(f"{https_server.url}/?{query}"), 60.0, HERE, authority.client())
    assert note == f"confirmed the subscription to {TOPIC}"
    assert [(asked.method, asked.url) for asked in https_server.asked] == [("GET", f"/?{query}")]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("status=400", "answers 400"),
        ("status=500", "answers 500"),
        ("status=302&header=Location:%20/b", "answers 302"),
        ("size=100000", "answered more than"),
        ("instead=hangup", "cannot be talked to"),
        ("instead=hang", "did not answer in time"),
    ],
)
def test_a_visit_that_confirms_nothing_is_repeated(
    authority: Authority, https_server: Target, query: str, why: str
) -> None:
    url = f"{https_server.url}/?{QUERY}&{query}"
    with pytest.raises(Retry, match=why):
        sns.confirm_message(message(url), 0.5 if query == "instead=hang" else 60.0, HERE, authority.client())
    assert len(https_server.asked) == 1


def test_a_server_that_is_not_certified_is_not_asked(https_server: Target) -> None:
    with pytest.raises(Retry, match="not trusted"):
        sns.confirm_message(message(f"{https_server.url}/?{QUERY}"), 60.0, HERE)
    assert not https_server.asked


def test_only_urls_of_aws_begin_as_they_must() -> None:
    assert sns.HOST.match(URL)
    assert sns.HOST.match(URL.replace("eu-west-1.amazonaws.com", "cn-north-1.amazonaws.com.cn"))
