"""Rows 39 to 60 of the table of bad inputs: good HTTP, and a body that is no ping we take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from glassq import delivery
from tests.intake.rows import Row, hold, table
from tests.intake.wire import MARKER, TOKEN, body, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.intake.conftest import Web

GOOD = body().decode()


def inside(extra: str) -> bytes:
    """A good ping with one more member, written as is."""
    return request((GOOD[:-1] + ", " + extra + "}").encode("utf-8", "surrogatepass"))


def spelled(name: str, value: str) -> bytes:
    """A good ping in which the value of a field is written as is."""
    fields = json.loads(GOOD)
    members = [f'"{key}": {value if key == name else json.dumps(old)}' for key, old in fields.items()]
    return request(("{" + ", ".join(members) + "}").encode("utf-8", "surrogatepass"))


def of(**changes: object) -> bytes:
    return request(body(**changes))


FORMS = table(
    *(
        Row(f"39 {kind}", request(kind=kind), (415,))
        for kind in (
            "text/plain",
            "application/xml",
            "application/vnd.api+json",
            "///;;",
            f"application/json; x={MARKER}",
        )
    ),
    Row("40 form", request(f"verifyToken={TOKEN}".encode(), kind="application/x-www-form-urlencoded"), (415,)),
    Row("41 multipart without boundary", request(kind="multipart/form-data"), (415,)),
    Row("42 no Content-Type", request(kind=None), (200,)),
    Row("42 empty Content-Type", request(kind=""), (415,)),
    Row("43 charset utf-8", request(kind='application/json; charset="UTF-8"'), (200,)),
    Row("43 charset latin-1", request(kind="application/json; charset=latin-1"), (400,)),
    Row("43 bad UTF-8", request(GOOD.encode().replace(b"zq", b"\xff\xfe")), (400,)),
    Row("43 overlong UTF-8", request(GOOD.encode().replace(b"zq", b"\xc0\xaf")), (400,)),
    Row("43 surrogates in UTF-8", inside('"x": "\ud800"'), (400,)),
    Row("43 byte order mark", request(b"\xef\xbb\xbf" + GOOD.encode()), (400,)),
    Row("43 UTF-16", request(GOOD.encode("utf-16")), (400,)),
    Row("44 truncated", request(GOOD[:-1].encode()), (400,)),
    Row("44 garbage after it", request(GOOD.encode() + b"]"), (400,)),
    Row("44 two documents", request(GOOD.encode() * 2), (400,)),
    Row("44 comment", request(b"/* x */" + GOOD.encode()), (400,)),
    Row("44 trailing comma", request(GOOD[:-1].encode() + b",}"), (400,)),
    Row("44 single quotes", request(GOOD.replace('"', "'").encode()), (400,)),
    Row("44 not JSON at all", request(MARKER.encode()), (400,)),
    Row("45 NUL in a string", inside('"x": "\0"'), (400,)),
    Row("45 line end in a string", inside('"x": "a\nb"'), (400,)),
    *(Row(f"46 {number}", inside(f'"x": {number}'), (400,)) for number in ("NaN", "Infinity", "-Infinity", "1e999")),
    Row("47 two userTokens", inside('"userToken": "another"'), (400,)),
    Row("47 two verifyTokens", inside(f'"verifyToken": "{MARKER}"'), (400,)),
    Row("48 lone surrogate", inside('"x": "\\ud800"'), (400,)),
    Row("48 lone surrogate in a name", inside('"\\udc00": 1'), (400,)),
    Row("49 NUL as an escape", inside('"x": "\\u0000"'), (400,)),
    Row("50 number of 4301 digits", inside(f'"x": {"9" * 4301}'), (400,)),
    Row("50 number of 4300 digits", inside(f'"x": {"9" * 4300}'), (400,)),
    Row("50 fraction of 4300 digits", inside(f'"x": 0.{"9" * 4300}'), (400,)),
    Row("51 nested 2000 deep", inside('"x": ' + '{"a":' * 2000 + "1" + "}" * 2000), (400,)),
    Row("51 arrays that never end", request(b"[" * 16_000), (400,)),
    Row("51 objects that never end", request(b'{"a":' * 3_000), (400,)),
    Row("52 nested 900 deep", inside('"x": ' + "[" * 900 + "]" * 900), (400,)),
    Row("52 nested 17 deep", inside('"x": ' + "[" * 16 + "]" * 16), (400,)),
    Row("52 nested 16 deep", inside('"x": ' + "[" * 15 + "]" * 15), (200,)),
    *(Row(f"53 {top}", request(top.encode()), (400,)) for top in ("null", "5", "true", '"x"', "[]", f"[{GOOD}]")),
)

SHAPES = table(
    Row("54 no verifyToken", of(verifyToken=...), (403,)),
    Row("54 wrong", of(verifyToken=MARKER), (403,)),
    Row("54 nearly right", of(verifyToken=TOKEN + " "), (403,)),
    Row("54 empty", of(verifyToken=""), (403,)),
    Row("54 null", of(verifyToken=None), (403,)),
    Row("54 number", of(verifyToken=5), (403,)),
    Row("54 array", of(verifyToken=[TOKEN]), (403,)),
    Row("54 not ASCII", of(verifyToken="é"), (403,)),
    Row("54 lone surrogate", spelled("verifyToken", '"\\ud800"'), (400, 403)),
    Row("55 unknown userToken is for the handler to judge", of(userToken=MARKER), (200,)),
    Row("56 unknown collection", of(collection=MARKER), (200,)),
    Row("56 unknown operation", of(operation=MARKER), (200,)),
    Row("56 unknown action", of(userActions=[{"type": MARKER}]), (200,)),
    Row("56 itemId of 10 KB", of(itemId=MARKER * 1000), (400,)),
    Row("56 itemId with a line end", of(itemId=f"a\n{MARKER}"), (400,)),
    Row("56 itemId empty", of(itemId=""), (400,)),
    Row("56 no itemId", of(itemId=...), (400,)),
    Row("56 itemId a number", of(itemId=5), (400,)),
    Row("56 collection an object", of(collection={MARKER: 1}), (400,)),
    Row("56 userActions no list", of(userActions=MARKER), (400,)),
    Row("56 userActions of no objects", of(userActions=[MARKER]), (400,)),
    Row("56 userActions null", of(userActions=None), (200,)),
    Row("56 no userActions", of(userActions=...), (200,)),
    Row("56 userToken a number", of(userToken=5), (400,)),
    Row("57 unknown fields", of(**{MARKER: [1, {"b": None}], "kind": "mirror#notification"}), (200,)),
    Row("58 a queue command", request(b"delete 1\r\nkick 1000\r\n"), (400,)),
    Row("58 a queue command in a ping", of(x="\r\ndelete 1\r\nput 0 0 10 2\r\nhi\r\n"), (200,)),
    *(
        Row(f"59 source {name}", request(line=f"POST /hooks/{name} HTTP/1.1"), (404,))
        for name in (MARKER, "mirror%0d%0adelete%201", "mirror%20x", "m" * 201, "..%2fmirror", "MIRROR", "mirror/x")
    ),
)


@FORMS
def test_a_body_that_is_no_strict_json_is_refused(row: Row, web: Web, jobs: Callable[[], list[bytes]]) -> None:
    hold(row, web, jobs)


@SHAPES
def test_a_ping_is_judged_by_its_token_and_shape(row: Row, web: Web, jobs: Callable[[], list[bytes]]) -> None:
    hold(row, web, jobs)


def test_every_bad_token_gets_the_same_answer(web: Web) -> None:
    answers = {web.ask(of(verifyToken=token)).body for token in (..., None, "", "x", 5, [], {}, True, "é", TOKEN[:-1])}
    assert len(answers) == 1


def test_60_the_same_ping_twice_is_two_deliveries_of_the_same_body(web: Web, jobs: Callable[[], list[bytes]]) -> None:
    assert [web.ask(request()).status for _ in range(2)] == [200, 200]
    first, second = (delivery.decode(job) for job in jobs())
    assert first.id != second.id
    assert first.body == second.body == body()


def test_a_job_holds_the_ping_to_the_byte_and_its_labels(web: Web, jobs: Callable[[], list[bytes]]) -> None:
    sent = (
        '  {"operation":"INSERT", "collection" : "timeline",\n"itemId":"é\\u00e9",' + f'"verifyToken":"{TOKEN}"}} \r\n'
    ).encode()
    assert web.ask(request(sent)).status == 200
    (job,) = jobs()
    found = delivery.decode(job)
    assert (found.source, found.body) == ("mirror", sent)
    assert found.labels == {"collection": "timeline", "operation": "INSERT"}


def test_the_largest_body_is_taken_and_one_byte_more_is_not(web: Web, jobs: Callable[[], list[bytes]]) -> None:
    room = (16 << 10) - len(body(x=""))
    assert web.ask(of(x="y" * room)).status == 200
    assert web.ask(of(x="y" * (room + 1))).status == 413
    assert len(jobs()) == 1
