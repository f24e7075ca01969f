"""A genuine ping with one thing changed is refused, whatever was changed, and never with another error."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glassq.errors import PingRefused, SettingsError, SourceUnready
from glassq.sources import HookRequest
from glassq.sources.presets import PRESETS
from glassq.standard_webhooks import unpadded_base64
from tests.sources.conftest import VECTORS, opener, request_of, source_of
from tests.thorough import examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.sources import Source

# Their proof needs certificates.
ELSEWHERE = {"sns", "paypal"}
GENUINE = [
    vector
    for vector in VECTORS
    if vector["valid"] and "answer" not in vector and vector["kind"] not in ELSEWHERE and vector["secrets"]
]
# Their proof does not cover the body, or not all of it.
NOT_THE_BODY = {
    "token",
    "gitlab",
    "adyen",
    "graph",
    "mailgun",
    "cloudevents",
    "eventgrid",
    "alertmanager",
    "okta",
    "postmark",
    "chargebee",
}
# One of several signatures may be changed.
SEVERAL = {
    "stripe-dotnet",
    "sw-several-signatures",
    "paddle-sdk-rotation",
    "docusign-rule",
    "box-rule",
    "circleci-rule",
}


def opens(vector: dict[str, Any], opened: Callable[..., Source]) -> Source | None:
    """The source of a vector; None while its kind is not in the table."""
    return source_of(vector, opened) if vector["kind"] in {*PRESETS, "hmac", "token"} else None


def is_taken(source: Source, request: HookRequest) -> bool:
    """Whether the source finds it genuine. Any other error than a refusal fails the test."""
    try:
        source.verify(request)
    except PingRefused as refused:
        assert refused.status == 401
        assert refused.reason
        return False
    return True


def changed(text: str) -> Iterator[str]:
    """The text with each of its characters changed in turn, and with one more or less at its ends."""
    for place, char in enumerate(text):
        for bit in (1, 15):
            yield f"{text[:place]}{chr(ord(char) ^ bit)}{text[place + 1 :]}"
    yield from (text[:-1], text[1:], f"{text}0", f"0{text}")


@pytest.mark.parametrize("vector", GENUINE, ids=lambda each: each["name"])
def test_a_changed_header_is_refused(vector: dict[str, Any], opened: Callable[..., Source]) -> None:
    source, request = opens(vector, opened), request_of(vector)
    if source is None:
        return
    if vector["kind"] == "mailgun":
        assert is_taken(source, request)
    for name, value in request.headers.items():
        without = {each: text for each, text in request.headers.items() if each != name}
        if is_taken(source, msgspec.structs.replace(request, headers=without)):
            # it is for labels only, or one of several
            continue
        if vector["name"] in SEVERAL or name == "content-type":
            continue
        for text in changed(value):
            headers = {**request.headers, name: text}
            assert not is_taken(source, msgspec.structs.replace(request, headers=headers)), (name, text)


@pytest.mark.parametrize(
    "vector", [each for each in GENUINE if each["kind"] not in NOT_THE_BODY], ids=lambda each: each["name"]
)
def test_a_changed_body_is_refused(vector: dict[str, Any], opened: Callable[..., Source]) -> None:
    source, request = opens(vector, opened), request_of(vector)
    if source is None:
        return
    assert is_taken(source, request)
    body = bytes(request.body)
    for place in range(0, len(body), 1 + len(body) // 300):
        other = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        assert not is_taken(source, msgspec.structs.replace(request, body=other)), other
    for other in (body[:-1], body + b" ", b"", body + body):
        assert not is_taken(source, msgspec.structs.replace(request, body=other)), other


@pytest.mark.parametrize("vector", GENUINE, ids=lambda each: each["name"])
def test_another_secret_takes_nothing(vector: dict[str, Any], opened: Callable[..., Source]) -> None:
    if opens(vector, opened) is None or len(vector["secrets"]) > 1:
        return
    (secret,) = vector["secrets"]
    for place in range(0, len(secret), 1 + len(secret) // 40):
        other = f"{secret[:place]}{chr(ord(secret[place]) ^ 1)}{secret[place + 1 :]}"
        with suppress(SettingsError):
            source = source_of({**vector, "secrets": [other]}, opened)
            assert not is_taken(source, request_of(vector)) or is_same_key(secret, other), other


def is_same_key(one: str, other: str) -> bool:
    """Whether two texts are one key: the last character of base64 without padding has bits that nobody reads."""
    return unpadded_base64(one.removeprefix("whsec_")) == unpadded_base64(other.removeprefix("whsec_"))


@pytest.mark.parametrize("field", ["pspReference", "merchantReference", "eventCode", "success", "currency", "value"])
def test_each_signed_field_of_an_item_counts(field: str, opened: Callable[..., Source]) -> None:
    (vector,) = [each for each in VECTORS if each["name"] == "adyen-sdk"]
    source = source_of(vector, opened)
    body = vector["body"]
    place = body.index(f'"{field}":') + len(field) + 4
    other = f"{body[:place]}{chr(ord(body[place]) ^ 1)}{body[place + 1 :]}"
    assert is_taken(source, request_of(vector))
    assert not is_taken(source, request_of({**vector, "body": other}))


def test_one_item_that_is_not_signed_refuses_all(opened: Callable[..., Source]) -> None:
    (vector,) = [each for each in VECTORS if each["name"] == "adyen-sdk"]
    unsigned = '{"NotificationRequestItem":{"pspReference":"1"}}]}'
    body = vector["body"].rstrip().removesuffix("]}") + "," + unsigned
    assert not is_taken(source_of(vector, opened), request_of({**vector, "body": body}))


@pytest.mark.parametrize("state", ['{"clientState":"hushh"}', "{}", '{"clientState":null}', '{"clientState":5}', "5"])
def test_one_item_of_another_subscription_refuses_all(state: str, opened: Callable[..., Source]) -> None:
    source = opened("graph", ["hush"])
    request = HookRequest("POST", "/hooks/it", {}, f'{{"value":[{{"clientState":"hush"}},{state}]}}'.encode(), "", 0.0)
    assert not is_taken(source, request)


NAMES = sorted({name.lower() for vector in VECTORS for name in vector["headers"]})
VALUES = sorted({value for vector in VECTORS for value in vector["headers"].values()})
BODIES = [vector["body"].encode() for vector in VECTORS]
ANY_BODY = (
    st.binary(max_size=200)
    | st.sampled_from([*BODIES, b"[" * 5000, b"{" * 5000, b'{"value":[5]}', b'{"signature":[]}', b"&" * 2000])
    | st.tuples(st.sampled_from(BODIES), st.integers(0, 200), st.binary(max_size=5)).map(
        lambda found: found[0][: found[1]] + found[2] + found[0][found[1] :]
    )
)
ANY_HEADERS = st.dictionaries(
    st.sampled_from([*NAMES, "authorization", "content-type"]), st.sampled_from(VALUES) | st.text(max_size=40)
)
TARGETS = st.sampled_from(["/hooks/it", "/hooks/it?bodySHA256=é", "/hooks/it?%ff=%&validationToken", "*", ""])


@pytest.fixture(scope="module")
def one_of_each(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    """A source of each kind."""
    make = opener(tmp_path_factory.mktemp("sources"))
    by_kind = {vector["kind"]: vector for vector in GENUINE}
    return {kind: source for kind, vector in by_kind.items() if (source := opens(vector, make)) is not None}


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), headers=ANY_HEADERS, body=ANY_BODY, target=TARGETS)
def test_any_request_is_refused_or_taken_and_never_anything_else(
    data: st.DataObject, headers: dict[str, str], body: bytes, target: str, one_of_each: dict[str, Source]
) -> None:
    source = one_of_each[data.draw(st.sampled_from(sorted(one_of_each)))]
    request = HookRequest("POST", target, headers, body, "", 1_700_000_000.0)
    for step in (source.admit, source.challenge, source.verify):
        with suppress(PingRefused, SourceUnready):
            step(request)
    told = source.describe(request)
    assert all(0 < len(value) <= 512 and value.isprintable() for value in told.labels.values())
    assert len(told.headers) <= 32
    source.reply(request)
