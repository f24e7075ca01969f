"""The Mirror API's pings: which are taken, which are refused and how."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassq.errors import PingRefused
from glassq.settings import parse
from glassq.sources import HookRequest, open_sources
from glassq.sources.mirror import MirrorSource, check_content_type

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "t0ken-é"
MIRROR = MirrorSource([TOKEN])
MISSING = ...

# As captured; see facts on the Mirror API. SHARE came as INSERT though documented as UPDATE.
SHARE = {
    "collection": "timeline",
    "itemId": "3hidvm0xez6r8_dacdb3103b8b604_h8rpllg",
    "operation": "INSERT",
    "userToken": "user-1",
    "verifyToken": TOKEN,
    "userActions": [{"type": "SHARE"}],
}


def ping(**changes: Any) -> bytes:
    return json.dumps({name: value for name, value in {**SHARE, **changes}.items() if value is not MISSING}).encode()


def taken(body: bytes, mirror: MirrorSource = MIRROR) -> dict[str, str]:
    """The labels of a ping that is taken."""
    return mirror.check(body)


def refusal(body: bytes, mirror: MirrorSource = MIRROR) -> PingRefused:
    with pytest.raises(PingRefused) as caught:
        taken(body, mirror)
    return caught.value


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"operation": "UPDATE"},
        {"collection": "locations", "itemId": "latest", "operation": "UPDATE", "userActions": MISSING},
        {"collection": "settings", "itemId": "timezone", "operation": "UPDATE", "userActions": None},
        {"operation": "DELETE", "userActions": [{"type": "DELETE"}]},
        {"userActions": [{"type": "CUSTOM", "payload": "menu-item"}, {"type": "PIN"}]},
        {"userActions": [{"type": "NEVER_HEARD_OF"}]},
        {"userActions": [{}]},
        {"userActions": []},
        {"userToken": None},
        {"userToken": MISSING},
        {"collection": "nouvelle-é", "operation": "LATER"},
        {"itemId": "x" * 512},
        {"unknown": {"deep": [1, 2, {"er": None}]}, "kind": "mirror#notification"},
    ],
)
def test_a_ping_of_the_right_shape_is_taken_with_its_labels(changes: dict[str, Any]) -> None:
    body = ping(**changes)
    sent = json.loads(body)
    assert taken(body) == {"collection": sent["collection"], "operation": sent["operation"]}


BAD_TOKENS = [MISSING, None, "", "x", TOKEN + "x", TOKEN[:-1], TOKEN.upper(), TOKEN.encode().decode("latin-1"), 0, True]


@pytest.mark.parametrize("token", [*BAD_TOKENS, [TOKEN], {TOKEN: TOKEN}, "\U0001f600"])
def test_a_ping_without_a_right_token_is_403_in_the_same_words(token: Any) -> None:
    found = refusal(ping(verifyToken=token))
    assert (found.status, str(found)) == (403, str(refusal(ping(verifyToken="wrong"))))


def test_a_subscription_that_was_made_with_an_invisible_character_in_its_token_is_genuine() -> None:
    for token in (f"\ufeff{TOKEN}", f"{TOKEN[:3]}\u200b{TOKEN[3:]}\u00a0"):
        assert taken(ping(verifyToken=token))
    for token in (f"\ufeff{TOKEN}x", "\ufeff", f"\ufeff {TOKEN}"):
        assert refusal(ping(verifyToken=token)).status == 403


def test_who_has_no_token_learns_nothing_of_what_else_is_wrong() -> None:
    assert refusal(b'{"itemId": 5}').status == 403


@pytest.mark.parametrize("name", ["collection", "itemId", "operation"])
@pytest.mark.parametrize(
    "value", [MISSING, None, "", 5, True, [], {}, "x" * 513, "a\nb", "a\tb", "a\u202eb", "a\u2028b"]
)
def test_what_we_look_at_is_a_short_printable_string_or_the_ping_is_400(name: str, value: Any) -> None:
    found = refusal(ping(**{name: value}))
    assert (found.status, found.title) == (400, "Malformed ping")
    assert name in found.detail


@pytest.mark.parametrize(
    "changes",
    [{"userToken": value} for value in ("", 5, [], "x" * 513, "a\0b")]
    + [{"userActions": value} for value in ("SHARE", 5, {}, {"type": "SHARE"}, ["SHARE"], [None], [[]], False)],
)
def test_other_fields_of_the_wrong_shape_are_400(changes: dict[str, Any]) -> None:
    assert refusal(ping(**changes)).status == 400


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"5", b'"x"', b"{", b"\xff", b"[" * 10_000, ping()[:-1] + b',"x":NaN}']
)
def test_what_is_no_strict_json_object_is_400(body: bytes) -> None:
    assert refusal(body).status == 400


@pytest.mark.parametrize(
    "content_type", [None, "application/json", 'Application/JSON; charset="UTF-8"', "application/json;charset=utf8"]
)
def test_json_in_utf_8_is_admitted(content_type: str | None) -> None:
    check_content_type(content_type)


@pytest.mark.parametrize(
    ("content_type", "status"), [("text/plain", 415), ("", 415), ("application/json; charset=latin-1", 400)]
)
def test_another_content_type_is_refused(content_type: str, status: int) -> None:
    with pytest.raises(PingRefused) as caught:
        check_content_type(content_type)
    assert caught.value.status == status


def test_the_proof_says_which_token_it_was() -> None:
    both = MirrorSource(["old", "new"])
    requests = [
        HookRequest("POST", "/hooks/mirror", {}, ping(verifyToken=token), "192.0.2.7", 0.0) for token in ("old", "new")
    ]
    assert [both.verify(request).secret for request in requests] == [0, 1]


def test_two_user_tokens_are_400_and_not_the_last_one() -> None:
    assert refusal(ping()[:-1] + b', "userToken": "another"}').status == 400


def test_while_tokens_are_rotated_each_current_one_is_taken() -> None:
    both = MirrorSource(["old", "new"])
    assert taken(ping(verifyToken="old"), both)
    assert taken(ping(verifyToken="new"), both)
    assert refusal(ping(verifyToken="older"), both).status == 403
    assert refusal(ping(verifyToken="oldnew"), both).status == 403
    assert refusal(ping(verifyToken="old\nnew"), both).status == 403


def test_the_token_file_has_one_token_a_line_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# since May\r\n  first token  \n\n#gone\n\tsecond#1\n")
    found = parse(f'[sources.mirror]\nverify_tokens_file = "{file}"\n', "glassq.toml")
    (mirror,) = open_sources(found)

    def request(token: str) -> HookRequest:
        return HookRequest("POST", "/hooks/mirror", {}, ping(verifyToken=token), "192.0.2.7", 0.0)

    for token in ("first token", "second#1"):
        assert mirror.verify(request(token))
        assert mirror.describe(request(token)).labels == {"collection": "timeline", "operation": "INSERT"}
    for token in ("# since May", "#gone", "gone", "", "  first token  ", "second"):
        with pytest.raises(PingRefused) as caught:
            mirror.verify(request(token))
        assert caught.value.status == 403


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([TOKEN, "\ud800", "timeline"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
ANY_PING = st.dictionaries(st.sampled_from([*SHARE, "x"]), VALUES).map(json.dumps).map(str.encode)
WITH_TOKEN = st.dictionaries(st.sampled_from(list(SHARE)), VALUES).map(
    lambda found: ping(**{**found, "verifyToken": TOKEN})
)


@settings(deadline=None)
@given(st.binary() | ANY_PING | WITH_TOKEN)
def test_any_bytes_are_taken_or_refused_and_never_anything_else(body: bytes) -> None:
    with suppress(PingRefused):
        labels = taken(body)
        assert set(labels) == {"collection", "operation"}
        assert all(isinstance(value, str) and value.isprintable() for value in labels.values())


@settings(deadline=None)
@given(st.text(min_size=1).filter(str.isprintable))
def test_a_refusal_holds_nothing_out_of_the_ping(text: str) -> None:
    sent = f"zq{text}qz"
    for body in (ping(verifyToken=sent), ping(itemId=sent * 300), ping(userActions=sent), ping() + sent.encode()):
        assert sent not in str(refusal(body))
