"""Each challenge: what is asked, what is answered, and what is neither echoed nor signed."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from glassq.errors import PingRefused
from glassq.sources.base import HookRequest, Reply
from glassq.sources.challenges import CHALLENGES, MAX_CHALLENGE, MAX_ECHO, ChallengeKeys, methods, signed, unsigned

KEYS = ChallengeKeys(secrets=(b"hush", b"older"), verify_tokens=(b"first", b"vibecoding"))
TEXT = "text/plain"
JSON = "application/json"


def request(method: str = "POST", query: str = "", body: bytes = b"", **headers: str) -> HookRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HookRequest(method, "/hooks/x" + query, named, body, "192.0.2.1", 1_700_000_000.0)


def answer(name: str, asked: HookRequest) -> Reply | None:
    """The answer as a source gives it, which knows only this challenge."""
    ask = signed if CHALLENGES[name].signed else unsigned
    return ask((name,), asked, KEYS)


def text(reply: Reply | None) -> tuple[int, str, bytes] | None:
    return None if reply is None else (reply.status, reply.content_type, reply.body)


DISCORD_COMMAND = b'{"id":"1","type":2,"data":{"name":"ping","type":1},"version":1}'

ECHOES = [
    # the examples of the senders' own pages
    ("echo_query", request("GET", "?challenge=abc123"), TEXT, b"abc123"),
    (
        "hub",
        request("GET", "?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=vibecoding"),
        TEXT,
        b"1158201444",
    ),
    (
        "graph",
        request(query="?validationToken=Validation%3A%20Testing+client%20reachability"),
        TEXT,
        b"Validation: Testing client reachability",
    ),
    ("okta", request("GET", x_okta_verification_challenge="abc"), JSON, b'{"verification":"abc"}'),
    (
        "slack",
        request(body=b'{"token":"J","challenge":"3eZbrw1aBm2rZgRN","type":"url_verification"}'),
        TEXT,
        b"3eZbrw1aBm2rZgRN",
    ),
    (
        "twitch",
        request(
            body=b'{"challenge":"pogchamp-kappa-360noscope-vohiyo","subscription":{"type":"channel.follow"}}',
            twitch_eventsub_message_type="webhook_callback_verification",
        ),
        TEXT,
        b"pogchamp-kappa-360noscope-vohiyo",
    ),
    (
        "event_grid",
        request(
            body=b'[{"id":"2d17","topic":"t","data":{"validationCode":"512d38b6","validationUrl":"https://x"}}]',
            aeg_event_type="SubscriptionValidation",
        ),
        JSON,
        b'{"validationResponse":"512d38b6"}',
    ),
    ("discord", request(body=b'{"type":1}'), JSON, b'{"type":1}'),
    ("discord", request(body=b'{"type":4}'), JSON, b'{"type":8,"data":{"choices":[]}}'),
]


@pytest.mark.parametrize(("name", "asked", "content_type", "body"), ECHOES)
def test_a_challenge_is_answered_as_its_sender_wants(
    name: str, asked: HookRequest, content_type: str, body: bytes
) -> None:
    reply = answer(name, asked)
    assert text(reply) == (200, content_type, body)
    assert reply is not None
    assert not reply.kept
    assert ("X-Content-Type-Options", "nosniff") in reply.headers


NONE = [
    ("echo_query", request("GET")),
    ("echo_query", request("POST", "?challenge=abc")),
    ("hub", request("GET", "?hub.mode=unsubscribe&hub.challenge=1&hub.verify_token=vibecoding")),
    ("hub", request("GET", "?hub.mode=subscribe&hub.verify_token=vibecoding")),
    # a notification to a URL that was registered with a query is not taken for a challenge
    ("graph", request(query="?validationToken=x", body=b'{"value":[]}')),
    ("graph", request(body=b"")),
    ("options", request("OPTIONS")),
    ("head", request("POST")),
    ("crc", request("GET")),
    ("okta", request("GET")),
    ("asana", request(body=b"{}")),
    ("asana", request(x_hook_secret="abc", x_hook_signature="abc")),
    ("slack", request(body=b'{"type":"event_callback","challenge":"x"}')),
    ("slack", request(body=b'{"type":"url_verification"}')),
    ("slack", request(body=b'{"type":"url_verification","challenge":7}')),
    ("slack", request(body=b"payload=%7B%22type%22%3A%22url_verification%22%7D")),
    ("slack", request(body=b"\xff\xfe")),
    ("slack", request(body=b'{"type":"url_verification","challenge":"\xff"}')),
    ("slack", request(body=b'{"type":"url_verification","challenge":"a","x":"' + b"x" * MAX_CHALLENGE + b'"}')),
    ("twitch", request(body=b'{"challenge":"x"}')),
    ("twitch", request(body=b"[]", twitch_eventsub_message_type="webhook_callback_verification")),
    ("zoom", request(body=b'{"event":"meeting.started","payload":{"plainToken":"x"}}')),
    ("zoom", request(body=b'{"event":"endpoint.url_validation","payload":{}}')),
    ("event_grid", request(body=b"[]", aeg_event_type="SubscriptionValidation")),
    ("event_grid", request(body=b'[{"data":{"validationCode":"a"}}]', aeg_event_type="Notification")),
    ("discord", request(body=b'{"type":99}')),
    ("discord", request(body=b'{"type":"1"}')),
    ("discord", request(body=b"[" * 100_000)),
    ("discord", request(body=b'{"x":' + b"[" * 100_000)),
    ("discord_events", request(body=b'{"type":1,"event":{"type":"APPLICATION_AUTHORIZED"}}')),
]


@pytest.mark.parametrize(("name", "asked"), NONE)
def test_what_is_no_challenge_is_an_ordinary_request(name: str, asked: HookRequest) -> None:
    assert answer(name, asked) is None


@pytest.mark.parametrize("bad", ["", "x" * (MAX_ECHO + 1), "é" * MAX_ECHO, "a\nb", "\x00", "\u202etxt", "\ud800"])
def test_only_short_printable_values_are_echoed(bad: str) -> None:
    quoted = "".join(f"%{octet:02x}" for octet in bad.encode(errors="surrogatepass"))
    asked = request("GET", f"?challenge={quoted}")
    if bad == "\ud800":
        # no UTF-8: read as replacement characters, which are printable
        assert text(answer("echo_query", asked)) == (200, TEXT, "\ufffd\ufffd\ufffd".encode())
        return
    with pytest.raises(PingRefused) as refused:
        answer("echo_query", asked)
    assert (refused.value.status, refused.value.reason) == (400, "malformed")
    body = json.dumps({"type": "url_verification", "challenge": bad}).encode()
    assert answer("slack", request(body=body)) is None, "after the proof nothing is refused"


@pytest.mark.parametrize(("token", "reason"), [("guess", "wrong token"), ("", "no token"), ("%FF", "wrong token")])
def test_meta_gets_no_echo_without_the_verify_token(token: str, reason: str) -> None:
    asked = request("GET", f"?hub.mode=subscribe&hub.challenge=1&hub.verify_token={token}")
    with pytest.raises(PingRefused) as refused:
        answer("hub", asked)
    assert (refused.value.status, refused.value.reason) == (403, reason)


def test_of_a_repeated_parameter_the_first_counts() -> None:
    asked = request("GET", "?hub.mode=subscribe&hub.challenge=1&hub.verify_token=guess&hub.verify_token=vibecoding")
    with pytest.raises(PingRefused):
        answer("hub", asked)


def test_cloudevents_gets_its_origin_and_its_rate() -> None:
    asked = request("OPTIONS", webhook_request_origin="eventemitter.example.com", webhook_request_rate="120")
    reply = answer("options", asked)
    assert reply == Reply(
        headers=(
            ("Allow", "POST, OPTIONS"),
            ("WebHook-Allowed-Origin", "eventemitter.example.com"),
            ("WebHook-Allowed-Rate", "120"),
        )
    )
    without = answer("options", request("OPTIONS", webhook_request_origin="eventgrid.azure.net"))
    assert without is not None
    assert "WebHook-Allowed-Rate" not in dict(without.headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"webhook_request_origin": "a\r\nSet-Cookie: x"},
        {"webhook_request_origin": ""},
        {"webhook_request_origin": "a.example", "webhook_request_rate": "many"},
    ],
)
def test_what_could_leave_its_header_is_not_sent_back(headers: dict[str, str]) -> None:
    with pytest.raises(PingRefused) as refused:
        answer("options", request("OPTIONS", "", b"", **headers))
    assert refused.value.status == 400


def openssl(key: bytes, message: bytes, *form: str) -> bytes:
    """The HMAC as another program computes it."""
    command = ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{key.hex()}", *form]
    return subprocess.run(command, input=message, capture_output=True, check=True).stdout


def test_zoom_gets_its_token_signed() -> None:
    reply = answer(
        "zoom", request(body=b'{"payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event":"endpoint.url_validation"}')
    )
    assert reply is not None
    expected = openssl(b"hush", b"qgg8vlvZRS6UYooatFL8Aw", "-r").split()[0].decode()
    assert json.loads(reply.body) == {"plainToken": "qgg8vlvZRS6UYooatFL8Aw", "encryptedToken": expected}


def test_x_gets_its_token_signed() -> None:
    # published: frain-dev/convoy, internal/pkg/crc/crc_test.go
    keys = ChallengeKeys(secrets=(b"Convoy",))
    reply = unsigned(("crc",), request("GET", "?crc_token=uzwcfYtzr9"), keys)
    assert reply is not None
    assert json.loads(reply.body) == {"response_token": "sha256=HXvxTdsfShG6k2zC9NVANwFquJBdOugRYHax2vNiiOo="}


@pytest.mark.parametrize("body", ['{"a":1}', "[]", "a=1&b=2", '"x"', "v0:1:x", "x" * 300, ""])
def test_nobody_gets_a_body_signed_by_way_of_a_challenge(body: str) -> None:
    quoted = "".join(f"%{octet:02x}" for octet in body.encode())
    with pytest.raises(PingRefused):
        answer("crc", request("GET", f"?crc_token={quoted}"))
    ping = json.dumps({"event": "endpoint.url_validation", "payload": {"plainToken": body}}).encode()
    assert answer("zoom", request(body=ping)) is None


def test_asana_gets_its_secret_back() -> None:
    assert answer("asana", request(x_hook_secret="b537207f20cbfa02")) == Reply(
        headers=(("X-Hook-Secret", "b537207f20cbfa02"),)
    )
    with pytest.raises(PingRefused):
        answer("asana", request(x_hook_secret="a\r\nb: c"))


@pytest.mark.parametrize(("kind", "deferred"), [(2, 5), (3, 6), (5, 5)])
def test_an_interaction_of_discord_is_deferred_and_kept(kind: int, deferred: int) -> None:
    reply = answer("discord", request(body=DISCORD_COMMAND.replace(b'"type":2', b'"type":%d' % kind)))
    assert reply is not None
    assert reply.kept
    assert json.loads(reply.body) == {"type": deferred}


def test_an_event_of_discord_is_answered_without_a_body_but_with_a_content_type() -> None:
    reply = answer("discord_events", request(body=b'{"version":1,"application_id":"1","type":0}'))
    assert reply == Reply(status=204, content_type=JSON)


def test_head_is_answered() -> None:
    assert answer("head", request("HEAD")) == Reply()


def test_methods_are_those_of_the_challenges() -> None:
    assert methods(("hub", "options", "head", "slack")) == {"GET", "OPTIONS", "HEAD", "POST"}
    assert methods(()) == frozenset()


def test_a_signed_challenge_is_not_answered_before_the_proof() -> None:
    for name, challenge in CHALLENGES.items():
        for asked in [case[1] for case in ECHOES if case[0] == name and challenge.signed]:
            assert unsigned((name,), asked, KEYS) is None
            assert signed((name,), asked, KEYS) is not None


_SHAPES: list[Any] = [
    None,
    True,
    1,
    1e308,
    "x",
    [],
    {},
    [{}],
    {"type": {}},
    {"payload": []},
    {"data": 1},
    [{"data": []}],
]


@pytest.mark.parametrize("value", _SHAPES)
@pytest.mark.parametrize("name", [name for name, challenge in CHALLENGES.items() if challenge.signed])
def test_json_of_another_shape_is_an_ordinary_ping(name: str, value: object) -> None:
    headers = {
        "aeg_event_type": "SubscriptionValidation",
        "twitch_eventsub_message_type": "webhook_callback_verification",
    }
    assert answer(name, request("POST", "", json.dumps(value).encode(), **headers)) is None
