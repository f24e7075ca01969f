"""The small parts that schemes are made of: times, forms, templates, and what is remembered."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassq.errors import PingRefused, SourceUnready
from glassq.sources import HookRequest, forms
from glassq.sources.places import PlaceReader
from glassq.sources.schemes import replay_cache
from glassq.sources.schemes.replay_cache import ReplayCache
from glassq.sources.schemes.twilio import with_and_without_port
from glassq.sources.template import SignedTemplate
from glassq.sources.times import Unit, unix_time
from tests.sources.conftest import VECTORS, request_of, source_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.sources import Source

T = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "unit", "time"),
    [
        ("1700000000", "s", T),
        ("1700000000500", "ms", T + 0.5),
        ("2023-11-14T22:13:20Z", "rfc3339", T),
        ("2023-11-14T22:13:20.000000000Z", "rfc3339", T),
        ("2023-11-14T23:13:20.5+01:00", "rfc3339", T + 0.5),
        ("Tue, 14 Nov 2023 22:13:20 GMT", "http", T),
        ("", "s", None),
        ("-1", "s", None),
        ("+1", "s", None),
        ("1_0", "s", None),
        (" 1", "s", None),
        ("1.5", "s", None),
        ("\u0661", "s", None),
        ("1" * 17, "s", None),
        ("nan", "ms", None),
        ("yesterday", "rfc3339", None),
        ("yesterday", "http", None),
        ("9999-99-99T00:00:00Z", "rfc3339", None),
    ],
)
def test_a_time_as_senders_write_it(text: str, unit: Unit, time: float | None) -> None:
    assert unix_time(text, unit) == time


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=5), st.text(max_size=300)), min_size=1, max_size=8),
    st.integers(1, 40),
)
def test_a_form_is_read_as_it_was_written(pairs: list[tuple[str, str]], chunk: int) -> None:
    pairs = [
        (name.encode("utf-8", "replace").decode(), value.encode("utf-8", "replace").decode()) for name, value in pairs
    ]
    body = urlencode(pairs).encode()
    assert forms.fields(body) == pairs
    request = HookRequest("POST", "/", {"content-type": "application/x-www-form-urlencoded"}, body, "", 0.0)
    assert forms.field(request, pairs[0][0]) == pairs[0][1]


def test_a_large_value_is_decoded_in_chunks_that_cut_no_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    value = "é%+ aß" * 50
    body = quote_plus(value).encode()
    for size in range(3, 14):
        monkeypatch.setattr(forms, "_CHUNK", size)
        assert b"".join(forms.chunks(body, 0, len(body))).decode() == value
        # whatever it is, it has an end
        assert b"".join(forms.chunks(b"%" * 9, 0, 9)) is not None


def test_a_template_is_made_of_its_parts() -> None:
    request = HookRequest(
        "PUT",
        "/hooks/it?q=%41",
        {"x-a": "\xe9", "content-type": "application/json"},
        '{"a": {"b": "é"}}'.encode(),
        "",
        0.0,
    )
    template = SignedTemplate("v0:{timestamp}.{id}|{method} {url} {header:X-A} {json:a.b} {query:q}{body}", "https://h")
    look = PlaceReader(template.specs).values(request)
    found = b"".join(bytes(piece) for piece in template.pieces(request, look, "5", "i"))
    assert found == b"v0:5.i|PUT https://h/hooks/it?q=%41 \xe9 \xc3\xa9 A" + request.body
    with pytest.raises(PingRefused):
        list(SignedTemplate("{header:x-b}").pieces(request, look))


@pytest.mark.parametrize(
    ("url", "both"),
    [
        ("https://a.example", ("https://a.example", "https://a.example:443")),
        ("http://a.example/x", ("http://a.example/x", "http://a.example:80/x")),
        ("https://a.example:8443", ("https://a.example", "https://a.example:8443")),
        ("http://[::1]:81", ("http://[::1]", "http://[::1]:81")),
    ],
)
def test_a_url_with_and_without_its_port(url: str, both: tuple[str, str]) -> None:
    assert with_and_without_port(url) == both


def test_what_was_used_is_known_to_every_process_until_its_time() -> None:
    known = ReplayCache()
    assert known.add("a", T, T + 10)
    assert not known.add("a", T + 10, T + 20)
    if os.fork() == 0:
        os._exit(known.add("a", T + 5, T + 20) + 2 * known.add("b", T + 5, T + 20))
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 2
    assert not known.add("b", T + 6, T + 20)
    assert known.add("a", T + 11, T + 20)


def test_where_there_is_no_room_for_a_token_its_sender_has_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_cache, "_BUCKETS", 1)
    known = ReplayCache()
    for number in range(16):
        assert known.add(str(number), T, T + 10)
    with pytest.raises(SourceUnready):
        known.add("more", T, T + 10)
    assert not known.add("3", T, T + 10)
    assert known.add("more", T + 11, T + 20)


def test_a_caught_triple_of_mailgun_signs_nothing_else(opened: Callable[..., Source]) -> None:
    (vector,) = [each for each in VECTORS if each["name"] == "mailgun-rule"]
    source = source_of(vector, opened)
    assert source.verify(request_of(vector))
    forged = {**vector, "body": vector["body"].replace("opened", "failed")}
    assert forged["body"] != vector["body"]
    for replayed in (vector, forged):
        with pytest.raises(PingRefused) as refused:
            source.verify(request_of(replayed))
        assert refused.value.reason == "replayed"
    with pytest.raises(PingRefused) as refused:
        source.verify(request_of({**vector, "now": vector["now"] + 3600}))
    assert refused.value.reason == "too old"


def test_a_form_of_gitea_that_is_large_is_verified_in_chunks(opened: Callable[..., Source]) -> None:
    source = opened("gitea", ["s"])
    body = b"payload=" + b"%22%7B" * (1 << 19)
    headers = {"content-type": "application/x-www-form-urlencoded", "x-gitea-signature": "0" * 64}
    with pytest.raises(PingRefused) as refused:
        source.verify(HookRequest("POST", "/hooks/it", headers, body, "", 0.0))
    assert refused.value.reason == "wrong signature"
