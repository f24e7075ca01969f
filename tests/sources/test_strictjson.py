"""JSON from strangers: all that is ordinary is read as everybody reads it, and the rest is a ValueError."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glassq.sources import strictjson

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=15
)


@settings(deadline=None)
@given(DOCUMENTS, st.booleans(), st.sampled_from([None, 2]))
def test_an_ordinary_document_is_read_as_everybody_reads_it(
    document: Any, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent)
    assert strictjson.loads(text.encode()) == json.loads(text) == document


@settings(deadline=None)
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"[" * 100_000)
@example(b'{"a":' * 50_000)
@example(b'"' + b"[" * 1000)
@example(b"9" * 100_000)
@example(b"0." + b"9" * 100_000)
@example(b"1e" + b"9" * 100)
def test_bytes_are_a_document_to_everybody_or_a_value_error(data: bytes) -> None:
    with suppress(ValueError):
        found = strictjson.loads(data)
        assert found == json.loads(data.decode())


# What tricks are made of.
PIECES = st.sampled_from("{}[],:\"\\ \n\0é/0-'") | st.sampled_from(
    ['"a"', "\\u0000", "\\ud800", "\\udc00", "NaN", "-Infinity", "1e999", "-0", "01", "1.", "null", "true", "//x"]
)


@settings(deadline=None)
@given(st.lists(PIECES, max_size=30).map("".join))
def test_what_looks_like_json_is_never_read_otherwise_than_by_everybody(text: str) -> None:
    with suppress(ValueError):
        found = strictjson.loads(text.encode())
        assert found == json.loads(text)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (b" ", "not JSON"),
        (b"{}{}", "not JSON, at character 2"),
        (b"{} x", "not JSON"),
        (b'{"a":1,}', "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b'{"a":1} // x', "not JSON"),
        (b"[01]", "not JSON"),
        (b"[+1]", "not JSON"),
        (b"[1.]", "not JSON"),
        (b'"a\nb"', "not JSON"),
        (b'"a\0b"', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b'"\xc0\xaf"', "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b'{"a":1,"a":1}', "twice"),
        (b'[{"a":{"b":1,"b":2}}]', "twice"),
        (b'{"a":1,"\\u0061":2}', "twice"),
        (b"NaN", "NaN"),
        (b"[-Infinity]", "Infinity"),
        (b"1e999", "number"),
        (b"-1e999", "number"),
        (b"9" * 41, "digits"),
        (b"0." + b"1" * 40, "number"),
        (b'"\\u0000"', "NUL"),
        (b'{"\\u0000":1}', "NUL"),
        (b'"\\ud800"', "surrogate"),
        (b'"\\udc00\\ud800"', "surrogate"),
        (b'{"a":["\\udfff"]}', "surrogate"),
        (b"[" * 17 + b"]" * 17, "deeper"),
        (b'{"a":' * 17 + b"1" + b"}" * 17, "deeper"),
    ],
)
def test_what_is_refused_is_named(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        strictjson.loads(data)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"[" * 16 + b"]" * 16, [[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]),
        (b"[" + b"[]," * 500 + b"[]]", [[]] * 501),
        (b'"' + b"[{" * 500 + b'"', "[{" * 500),
        (b'["\\"' + b"[" * 50 + b'"]', ['"' + "[" * 50]),
        (b'["\\\\", ' + b"[]," * 20 + b"[]]", ["\\", *[[]] * 21]),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b"9" * 40, int("9" * 40)),
        (b" \t\r\n{} \n", {}),
        (b'{"a":{"a":1},"b":{"a":2}}', {"a": {"a": 1}, "b": {"a": 2}}),
    ],
)
def test_what_is_only_unusual_passes(data: bytes, value: Any) -> None:
    assert strictjson.loads(data) == value


@pytest.mark.parametrize(
    "document",
    [
        b'{"%b": 1, "%b": 2}',
        b'["%b\n"]',
        b'["\\ud800%b"]',
        b'["\\u0000%b"]',
        b'{"a": %bx}',
        b"%b",
        b'{"%b": NaN}',
        b'"%b\xff"',
    ],
)
def test_the_reason_holds_nothing_out_of_the_document(document: bytes) -> None:
    with pytest.raises(ValueError) as caught:
        strictjson.loads(document.replace(b"%b", b"zqSECRETqz"))
    assert "zq" not in str(caught.value)
