"""Labels and headers that a delivery keeps, and what reading them may cost."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from glassq.sources import HookRequest
from glassq.sources.labels import Labels
from glassq.sources.places import parse_spec, query_field

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.sources import Source

FORM = "application/x-www-form-urlencoded"
DOCUMENT = {
    "type": "invoice.paid",
    "n": 5,
    "f": 1.5,
    "yes": True,
    "no": None,
    "event-data": {"id": "x", "deep": [{"a": "b"}, "c"]},
    "text": "é",
    "line": "a\nb",
    "long": "x" * 513,
    "empty": "",
}


def read(place: str, body: bytes | None = None, target: str = "/hooks/it", **headers: str) -> Any:
    """The label at a place; ... if it is unread, None if it is not there."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps(DOCUMENT).encode() if body is None else body
    told = Labels({"it": place}, (), digest=False).describe(HookRequest("POST", target, given, body, "", 0.0))
    return ... if told.unread else told.labels.get("it")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("json:type", "invoice.paid"),
        ("json:n", "5"),
        ("json:f", "1.5"),
        ("json:yes", "true"),
        ("json:no", None),
        ("json:gone", None),
        ("json:gone.deeper", None),
        ("json:type.deeper", None),
        ("json:n.0", None),
        ("json:event-data.id", "x"),
        ("json:event-data.deep.0.a", "b"),
        ("json:event-data.deep.1", "c"),
        ("json:event-data.deep.7", None),
        ("json:event-data", ...),
        ("json:text", "é"),
        ("json:line", ...),
        ("json:long", ...),
        ("json:empty", None),
        ("json:gone | json:type", "invoice.paid"),
        ("json:event-data | json:type", "invoice.paid"),
        ("json:type + json:n", "invoice.paid 5"),
        ("json:type + json:gone", None),
        ("json:type + json:gone | json:n", "5"),
        ("const:shop | 1", "shop | 1"),
        ("header:X-A", None),
        ("query:a", None),
        ("form:a", None),
        ("", None),
    ],
)
def test_a_place_in_a_json_body(place: str, value: Any) -> None:
    assert read(place) == value


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'[{"type":"a"}]', None),
        (b'{"type":"a","type":"b"}', "b"),
        (b'{"type":"a"}\r\n', "a"),
        (b'{"type":"a"} x', ...),
        (b'\xef\xbb\xbf{"type":"a"}', ...),
        (b'{"type":"a\xff"}', ...),
        (b'{"type":"\\ud800"}', ...),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"type":"a"}', ...),
        (b"", None),
        (b"no", ...),
        (b'"type"', None),
    ],
)
def test_json_that_is_odd(body: bytes, value: Any) -> None:
    assert read("json:type", body) == value


@pytest.mark.parametrize(
    ("place", "body", "headers", "value"),
    [
        ("form:a", b"b=1&a=x%20y+z&a=2", {}, "x y z"),
        ("form:a", b"a", {}, None),
        ("form:%61", b"a=1", {}, None),
        ("form:a", b"%61=1", {}, "1"),
        ("form:payload json:type", b"payload=%7B%22type%22%3A%22t%22%7D", {}, "t"),
        ("form:payload json:type", b"payload=%7B%22type", {}, ...),
        ("form:payload json:type", b"other=1", {}, None),
        ("json:type", b'{"type":"t"}', {}, None),
        ("form:a", b"&" * 2000 + b"a=1", {}, ...),
        ("form:a", b"a=" + b"1" * (1 << 21), {}, ...),
        ("header:X-GitHub-Event", b"", {"x_github_event": "push"}, "push"),
        ("header:ce-type", b"", {"ce_type": "%C3%A9"}, "é"),
        ("header:ce-type", b"", {"ce_type": '"quoted"'}, "quoted"),
    ],
)
def test_a_place_in_a_form_or_a_header(place: str, body: bytes, headers: dict[str, str], value: Any) -> None:
    assert read(place, body, content_type=FORM, **headers) == value


def test_a_field_of_a_multipart_is_read_and_a_file_is_passed_over() -> None:
    body = (
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n--C\r\nname="event"\r\n'
        b'\r\n--B\r\nContent-Disposition: form-data; name="event"\r\n\r\nopened\r\n--B--\r\n'
    )
    assert read("form:event", body, content_type='multipart/form-data; boundary="B"') == "opened"
    assert read("form:event", body, content_type="multipart/form-data") is None
    assert read("form:event", body[:40], content_type="multipart/form-data; boundary=B") is None


@pytest.mark.parametrize(
    ("target", "value"), [("/x?a=1&b=%C3%A9+c", "é c"), ("/x?b=", ""), ("/x?%62=1", "1"), ("/x", None)]
)
def test_a_parameter_of_the_url(target: str, value: str | None) -> None:
    assert query_field(target, "b") == value


@pytest.mark.parametrize(
    "text", ["x", "json:", "json:a..b", "header:a b", "json:a json:b", "json:5000", "body:x", "json:a |json:b"]
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_spec(text)


def test_a_ping_without_an_event_id_has_the_digest_of_its_body(opened: Callable[..., Source]) -> None:
    zoom, meta = opened("zoom", ["s"]), opened("meta", ["s"])
    request = HookRequest("POST", "/hooks/it", {}, b'{"event":"a"}', "", 0.0)
    digest = f"sha256:{hashlib.sha256(request.body).hexdigest()}"
    assert zoom.describe(request).labels == {"event": "a", "event_id": digest}
    assert "event_id" not in meta.describe(request).labels
    assert opened("meta", ["s"], event_id="json:event").describe(request).labels["event_id"] == "a"
    assert opened("meta", ["s"], dedupe="sha256").describe(request).labels["event_id"] == digest
    assert "event_id" not in opened("zoom", ["s"], dedupe="none").describe(request).labels


def test_headers_are_kept_by_name_and_bounded(opened: Callable[..., Source]) -> None:
    source = opened("cloudevents", ["s"], keep=["X-Extra", "X-Long"], labels={"ref": "json:ref"})
    given = {f"ce-{number:02}": "v" for number in range(40)} | {
        "x-extra": "1",
        "x-long": "x" * 5000,
        "x-other": "1",
        "ce-token": "t",
        "authorization": "Bearer s",
        "cookie": "c",
        "content-type": "application/json",
    }
    told = source.describe(HookRequest("POST", "/hooks/it", given, b'{"ref":"main"}', "", 0.0))
    assert told.labels == {"ref": "main"}
    assert told.content_type == "application/json"
    assert told.headers["x-extra"] == "1"
    assert {"x-long", "x-other", "authorization", "cookie", "ce-token"} & set(told.headers) == set()
    assert len(told.headers) <= 32


def test_a_push_of_25_mb_is_never_made_into_objects(opened: Callable[..., Source]) -> None:
    source = opened("github", ["s"])
    commit = b'{"id":"0123456789abcdef","files":["a","b",{"c":[1,2.5,null]}]}'
    body = b'{"commits":[' + b",".join([commit] * 400_000) + b'],"action":"opened"}'
    assert len(body) > 24 << 20
    request = HookRequest("POST", "/hooks/it", {"content-type": "application/json"}, body, "", 0.0)
    source.describe(HookRequest("POST", "/hooks/it", {}, b"{}", "", 0.0))
    tracemalloc.start()
    try:
        told = source.describe(request)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert told.labels == {"action": "opened"}
    assert peak < 1 << 20
