"""What of a body an operator may see."""

from __future__ import annotations

import json
import time

import pytest

from glassq.mask import masked_body, masked_text, masked_texts


@pytest.mark.parametrize(
    "key",
    ["verifyToken", "access_token", "refresh-token", "client_secret", "PASSWORD", "passwd", "apiKey", "Authorization"],
)
def test_what_a_secret_sounding_key_holds_is_masked_whatever_it_is(key: str) -> None:
    for value in (b'"abc"', b"12", b'{"inner": "abc"}', b'["abc"]'):
        assert masked_body(b'[{"%b": %b, "other": "shown"}]' % (key.encode(), value)) == [
            {key: "***", "other": "shown"}
        ]


def test_a_secret_that_is_not_there_is_seen_not_to_be_there() -> None:
    assert masked_body(b'{"verifyToken": null, "password": ""}') == {"verifyToken": None, "password": ""}


SECRETS = [
    (r'{"verifyToken": "a\"b, c", "x": 1', '{"verifyToken": ***, "x": 1'),
    ('{"verifyToken": "abc', '{"verifyToken": ***'),
    ('"pin_token": 123, "a": 2', '"pin_token": ***, "a": 2'),
    ("access_token=abc&x=1", "access_token=***&x=1"),
    ("{'client_secret': 'abc'}", "{'client_secret': ***}"),
    ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
    ("x-api-key: abcdef", "x-api-key: ***"),
    ("X-Api-Key: 12345", "X-Api-Key: ***"),
    ("Cookie: sid=abc; theme=dark", "Cookie: ***"),
    ("Set-Cookie: sid=abc; Path=/; HttpOnly\nHost: x", "Set-Cookie: ***\nHost: x"),
    ("verify_token: abc", "verify_token: ***"),
    ("answered 403: verify_token: s3cret-1 is wrong", "answered 403: verify_token: *** is wrong"),
    ("X-Hub-Signature-256: sha256=0a1b2c", "X-Hub-Signature-256: ***"),
    ("X-Hub-Signature: sha1=abc", "X-Hub-Signature: ***"),
    ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
    ("Authorization: Token abc", "Authorization: Token ***"),
    ("Authorization: abc", "Authorization: ***"),
    ('Authorization: Digest username="a", response="b"\nHost: x', "Authorization: Digest ***\nHost: x"),
    ("Proxy-Authorization: Basic abc", "Proxy-Authorization: Basic ***"),
    ("Authorization=Bearer abc", "Authorization=Bearer ***"),
    ('{"Authorization": "Bearer abc"}', '{"Authorization": ***}'),
    (r'{"payload": "{\"verify_token\": \"abc\", \"x\": 1}"}', r'{"payload": "{\"verify_token\": ***, \"x\": 1}"}'),
    (r'"{\\\"verify_token\\\":\\\"abc\\\"}"', r'"{\\\"verify_token\\\":***}"'),
    (r"{\"token\": \"a\\\"b\", \"x\": 1}", r"{\"token\": ***, \"x\": 1}"),
    ("{'headers': {b'x-api-key': b'abc', b'host': b'x'}}", "{'headers': {b'x-api-key': ***, b'host': b'x'}}"),
    (r"b'x-api-key: abc\r\nHost: x'", r"b'x-api-key: ***\r\nHost: x'"),
    ("https://user:p@ss@host/path", "https://user:***@host/path"),
    ("redis://:hunter2@host:6379/0", "redis://:***@host:6379/0"),
    ("https://ghp_abcdefghij0123456789@github.com/x", "https://***@github.com/x"),
    ("GET https://x/?key=AIzaabc&alt=json", "GET https://x/?key=***&alt=json"),
    ("https://x/cb?code=4/0AX4XfWh0123456789&scope=a", "https://x/cb?code=***&scope=a"),
    ("<user><password>abc</password></user>", "<user><password>***</password></user>"),
    ('<w:Password Type="text">abc</w:Password>', '<w:Password Type="text">***</w:Password>'),
    ("<accessToken><![CDATA[a</b]]></accessToken>", "<accessToken>***</accessToken>"),
    (
        '--b\r\nContent-Disposition: form-data; name="api_key"\r\n\r\na\r\nb\r\n--b--',
        '--b\r\nContent-Disposition: form-data; name="api_key"\r\n\r\n***\r\n--b--',
    ),
    (
        'name="token"; filename="t"\nContent-Type: text/plain\n\nabc\n--b',
        'name="token"; filename="t"\nContent-Type: text/plain\n\n***\n--b',
    ),
    (
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----",
    ),
    ("https://hooks.slack.com/services/T0/B0/abc is away", "https://hooks.slack.com/services/*** is away"),
    ("called with AIzaSyA01234567890123456789012345678901", "called with ***"),
    ("?url=https%3A%2F%2Fx%3Ftoken%3Dabc&y=1", "?url=https%3A%2F%2Fx%3Ftoken%3D***&y=1"),
    ('client_secret = "GOCSPX-abc"', "client_secret = ***"),
    ("password: hunter2", "password: ***"),
    ("Password: swordfish", "Password: ***"),
    ("  password: swordfish\n  user: me", "  password: ***\n  user: me"),
    ("aws_secret_access_key: wJalrXUtnFEMI", "aws_secret_access_key: ***"),
    ("sent Bearer ya29.abc to x", "sent Bearer *** to x"),
    ('"credentials": {"user": "a", "pw": "b"}, "x": 1', '"credentials": ***, "x": 1'),
    ('"token" => "abc"', '"token" => ***'),
    ("token=abc token=def", "token=*** token=***"),
    # by their form alone, put together here so that nobody takes them for real ones
    ("used sk_" + "live_51Habcdefghij, no", "used ***, no"),
    ("rk_" + "test_51Habcdefghij", "***"),
    ("remote: ghp_" + "a1" * 18 + " is bad", "remote: *** is bad"),
    ("github_pat_" + "11ABCDEFG0" * 3, "***"),
    ("xoxb-" + "1234567890-abcdef.", "***."),
    ("key AKIA" + "IOSFODNN7EXAMPLE!", "key ***!"),
    ("(whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw)", "(***)"),
    ("sent eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln to x", "sent *** to x"),
]
SENTENCES = [
    "invalid_grant: Token has been expired or revoked.",
    '[glass] credentials_key_file = "/etc/glassq/secrets/credentials-key": the file cannot be read',
    '/etc/glassq/secrets/credentials-key": file cannot be read',
    '"/etc/glassq/secrets/credentials-key": cannot be read: Permission denied',
    'sources.mirror.verify_tokens_file = "/etc/glassq/secrets/verify-tokens"',
    "the cookie: none was sent",
    "sk_live_ is how it begins, AKIA or eyJ too, and whsec_ in the settings",
    "No password: the user must log in",
    "Secret: the file is empty",
    "bad token: expected 32 characters",
    "unexpected token: }",
    "unexpected token: '<'",
    "Tokens: 3 of 5 used",
    "password: required",
    "the key: see README",
    "secret manager: permission denied",
    "token endpoint answered 503: try later",
    "Bearer token was rejected",
    "Basic knowledge of it helps",
    "authorization: denied for user 42",
    "signature: expected 2 arguments, got 1",
    "TypeError: handle() missing 1 required positional argument: 'token'",
    "KeyError: 'verify_token'",
    "InvalidTokenError: Signature has expired",
    "InvalidToken: truncated",
    "TokenExpired: 401",
    "verify_token: expected a string",
    "verify_token: missing",
    'no target "token": add it to [push.targets]',
    "wrong password: 3 attempts left",
    "the token of user 7 is used up",
    "token == None",
    "if token != secret:",
    "token = get_token(user)",
    "def f(token: str, secret: bytes) -> None:",
    "    access_token: str",
    "credentials: user unknown",
    "max_tokens: 1024",
    "the secret is kept in a file, the cookie in a jar",
    "CredentialsError: there are none for this user",
    'WWW-Authenticate: Bearer realm="x", error="invalid_token"',
    "a basic question: which key?",
    "userToken: 4711",
    "cookies: 3 of 5 accepted",
    "ssh://git@host/x",
    "mailto: a@b",
    "http://host:8080/a@b",
    "Token: it has expired",
    "token bucket: 5/s",
    "Passwords must be long",
    "api-key: not set",
    "invalid token: 'foo'",
    "token_uri=https://oauth2.googleapis.com/x",
    "<token_uri>https://oauth2.googleapis.com/x</token_uri>",
    "<userToken>anna</userToken><token/>",
    'form-data; name="token_type"\n\nBearer\n--b',
]


@pytest.mark.parametrize(("text", "expected"), SECRETS)
def test_secrets_in_a_text_are_masked_and_nothing_else(text: str, expected: str) -> None:
    assert masked_text(text) == expected


@pytest.mark.parametrize("text", SENTENCES)
def test_words_about_secrets_stay_readable(text: str) -> None:
    assert masked_text(text) == text


@pytest.mark.parametrize("text", [text for text, _ in SECRETS] + SENTENCES)
def test_masking_again_changes_nothing(text: str) -> None:
    assert masked_text(masked_text(text)) == masked_text(text)


def test_a_body_is_masked_inside_of_its_texts_too() -> None:
    body = json.dumps({"payload": json.dumps({"verify_token": "abc", "x": 1}), "url": "https://u:pw@host/?key=abc"})
    twice = json.dumps({"payload": json.dumps({"payload": json.dumps({"verify_token": "abc"})})})
    assert masked_body(body.encode()) == {
        "payload": '{"verify_token": ***, "x": 1}',
        "url": "https://u:***@host/?key=***",
    }
    assert "abc" not in str(masked_body(twice.encode()))


def test_a_value_that_stands_beside_its_name_is_masked() -> None:
    body = {
        "headers": [{"name": "Authorization", "value": "abc"}, {"name": "Host", "value": "x"}],
        "Tags": [{"Key": "db-password", "Value": ["abc"]}],
        "value": "shown",
        "": "shown",
    }
    assert masked_body(json.dumps(body).encode()) == {
        "headers": [{"name": "Authorization", "value": "***"}, {"name": "Host", "value": "x"}],
        "Tags": [{"Key": "db-password", "Value": "***"}],
        "value": "shown",
        "": "shown",
    }


def test_short_names_of_secrets_hold_one_where_they_hold_a_text() -> None:
    body = {"auth": {"user": "anna", "pass": "abc"}, "JWT": "abc", "tests": {"pass": 5, "fail": 2}, "passed": "all"}
    masked = {"auth": {"user": "anna", "pass": "***"}, "JWT": "***", "tests": {"pass": 5, "fail": 2}, "passed": "all"}
    assert masked_body(json.dumps(body).encode()) == masked


@pytest.mark.parametrize(
    "part", ["\u017fecret: hunter22", "auth\u0131r\u0131zation=x1", "\u00e9 bearer a.b", "BASIC a.b=", "K\u212aEY"]
)
def test_letters_that_are_the_same_in_another_case_hide_nothing(part: str) -> None:
    assert masked_text(f"{part} ") == masked_text(f"{part} \u00e9").replace(" \u00e9", " ")


def test_a_body_s_keys_that_only_sound_like_a_secret_s_are_shown() -> None:
    body = {"token_uri": "https://x/y", "verify_tokens_file": "/etc/tokens", "token_type": "Bearer", "userToken": "7"}
    assert masked_body(json.dumps(body).encode()) == body


UNITS = [
    "a",
    '"',
    "a=a=",
    "token",
    "token=",
    '"token": ',
    "token: '",
    "token: [",
    "\\",
    '\\"',
    'token\\"',
    "token:\\",
    " ",
]
UNITS += [
    "://",
    "://a:",
    "?key=",
    "bearer ",
    "cookie: a=b;",
    "Authorization: Digest ",
    "token- ",
    '"token":{',
    "x@",
    "token \n",
    "-eyJ",
    "xoxb-",
    "<token></",
    "<a:token x='</",
    "<token><![CDATA[</",
    'name="token"\n\n',
    'name="token"\na\n',
    "-----BEGIN PRIVATE KEY-----",
]


@pytest.mark.parametrize("unit", UNITS)
def test_the_time_is_in_proportion_to_the_text_whatever_it_says(unit: str) -> None:
    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        taken = []
        for _ in range(3):
            started = time.process_time()
            masked_text(text)
            taken.append(time.process_time() - started)
        return min(taken)

    # sixteen times as much text: a quadratic pattern takes 256 times as long
    assert seconds(65_536) < 80 * max(seconds(4_096), 0.0005)


@pytest.mark.parametrize("body", [b"", b"\xff\xfe\x00", b"[" * 60_000, b'{"a":' * 10_000, b"NaN", b"-1e9999"])
def test_any_bytes_can_be_shown(body: bytes) -> None:
    assert len(str(masked_body(body))) < 5_000


def test_a_label_is_masked_by_its_name_and_by_what_it_says() -> None:
    labels = {"api_key": "plainlabel", "url": "https://anna:geheim@x.test/", "userToken": "anna", "odd": "\ud800"}
    masked = {"api_key": "***", "url": "https://anna:***@x.test/", "userToken": "anna", "odd": "\ud800"}
    assert masked_texts(labels) == masked
