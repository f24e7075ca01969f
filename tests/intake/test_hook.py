"""What becomes of a request to a source, in which order, and how it is answered and counted."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from glassq import delivery as envelope
from glassq.errors import PingRefused, SourceUnready
from glassq.sources.base import Description, Proof, Reply
from tests.intake.apps import TUBE, App, ScriptedSource, raises
from tests.intake.wire import MARKER, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.sources.base import HookRequest

ALL = ["admit", "challenge", "verify", "reply", "describe"]
ANY = frozenset({"POST", "GET", "HEAD", "OPTIONS"})
AT = "/hooks/test"


def of(method: str = "POST", target: str = AT, payload: bytes = b"{}", *headers: str, length: object = None) -> bytes:
    return request(payload, *headers, line=f"{method} {target} HTTP/1.1", length=length)


def refusing(status: int, reason: str, skew: float | None = None) -> Callable[[HookRequest], object]:
    return raises(PingRefused(status, "Title", "Detail.", reason, skew))


def test_a_ping_goes_all_the_way_into_the_tube_of_its_source_with_what_it_keeps() -> None:
    source = ScriptedSource()
    app = App(source)
    answer = app.ask(of(payload=b"\x00\xffbody"))
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
    assert "content-type" not in answer.headers
    assert source.asked == ALL
    (ping,) = app.kept
    assert (ping.job.tube, ping.source) == (TUBE, "test")
    found = envelope.decode(ping.job.body)
    assert (found.source, found.tube, found.body) == ("test", TUBE, b"\x00\xffbody")
    assert (found.labels, found.headers, found.content_type) == ({"event": "push"}, {"x-a": "1"}, "text/x")


# Each request has its own mistake and all that come after it in the order.
LATER = {"admit": refusing(403, "address"), "challenge": refusing(403, "wrong token"), "verify": refusing(401, "x")}


@pytest.mark.parametrize(
    ("data", "status", "reason", "asked"),
    [
        (of("PUT", length=...), 405, "method", []),
        (of("PUT", length=1001), 413, "size", []),
        (of(length=...), 411, "length", []),
        (of(length=1001), 413, "size", []),
        (of("GET"), 405, "method", []),
        (of("DELETE"), 405, "method", []),
        (of("OPTIONS"), 405, "method", []),
        (of("PROPFIND"), 405, "method", []),
        (of(length=50), 403, "address", ALL[:1]),
        (of("POST", AT, b"", "Content-Encoding: gzip"), 403, "address", ALL[:1]),
    ],
)
def test_what_is_wrong_first_is_what_is_answered(data: bytes, status: int, reason: str, asked: list[str]) -> None:
    source = ScriptedSource(**LATER)
    app = App(source)
    answer = app.ask(data)
    assert (answer.status, answer.is_problem()) == (status, True)
    assert source.asked == asked
    assert (app.report("test").refused, app.kept) == ({reason: 1}, [])
    assert answer.headers.get("allow") == ("post" if status == 405 else None)


@pytest.mark.parametrize(
    ("replaced", "data", "status", "asked"),
    [
        ({"challenge": LATER["challenge"]}, of("POST", AT, b"", "Content-Encoding: gzip"), 415, ALL[:1]),
        ({"challenge": LATER["challenge"]}, of("POST", AT, b""), 403, ALL[:2]),
        ({"verify": LATER["verify"]}, of("POST", AT, b""), 400, ALL[:2]),
        ({"verify": LATER["verify"]}, of(), 401, ALL[:3]),
        # not all of the body is here
        ({"verify": LATER["verify"]}, of(length=50), 401, ALL[:3]),
        ({"challenge": lambda request: request.body}, of(length=50), 400, ALL[:3]),
        ({"verify": lambda request: request.body}, of(length=50), 400, ALL[:3]),
        ({}, of(length=50), 400, ALL[:3]),
    ],
)
def test_the_order_goes_on_as_long_as_nothing_is_wrong(
    replaced: dict[str, Callable[[HookRequest], object]], data: bytes, status: int, asked: list[str]
) -> None:
    source = ScriptedSource(**replaced)
    assert App(source).ask(data).status == status
    assert source.asked == asked


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_a_challenge_is_answered_before_any_proof_and_counted(method: str) -> None:
    reply = Reply(200, b"echo", "text/plain", (("WebHook-Allowed-Origin", "a.example"),))
    source = ScriptedSource(methods=ANY, challenge=lambda _: reply)
    app = App(source)
    answer = app.ask(of(method, f"{AT}?challenge=echo", length=...))
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["webhook-allowed-origin"] == "a.example"
    assert answer.body == (b"" if method == "HEAD" else b"echo")
    assert (app.report("test").challenges, app.kept, source.asked) == (1, [], ALL[:2])


def test_a_method_for_challenges_is_not_allowed_for_anything_else() -> None:
    source = ScriptedSource(methods=ANY)
    answer = App(source).ask(of("GET"))
    assert (answer.status, answer.headers["allow"], source.asked) == (405, "post", ALL[:2])


def test_a_challenge_may_have_an_empty_body() -> None:
    app = App(ScriptedSource(challenge=lambda seen: Reply(body=b"yes") if not seen.body else None))
    assert app.ask(of("POST", f"{AT}?validationToken=x", b"")).body == b"yes"


def test_a_signed_challenge_is_answered_and_not_kept() -> None:
    app = App(ScriptedSource(reply=lambda _: Reply(200, b"{}", "application/json")))
    assert app.ask(of()).body == b"{}"
    assert (app.kept, app.report("test").challenges) == ([], 1)


def test_a_ping_that_wants_an_answer_at_once_is_kept_and_answered_so() -> None:
    app = App(ScriptedSource(reply=lambda _: Reply(200, b'{"type":5}', "application/json", kept=True)))
    assert app.ask(of()).body == b'{"type":5}'
    assert len(app.kept) == 1


@pytest.mark.parametrize(
    ("accept", "status", "kind"), [(Reply(204, content_type="text/plain"), 204, "text/plain"), (Reply(202), 202, None)]
)
def test_a_source_has_its_own_answer_to_a_ping(accept: Reply, status: int, kind: str | None) -> None:
    answer = App(ScriptedSource(accept=accept)).ask(of())
    assert (answer.status, answer.body, answer.headers.get("content-type")) == (status, b"", kind)


@pytest.mark.parametrize("what", ALL[:3])
def test_a_bug_of_a_source_is_503_and_never_the_senders_fault(what: str, caplog: pytest.LogCaptureFixture) -> None:
    app = App(ScriptedSource(**{what: raises(ValueError("wrong"))}))
    answer = app.ask(of())
    assert (answer.status, answer.headers["retry-after"], answer.is_problem()) == (503, "5", True)
    assert (app.report("test").refused, app.kept) == ({"bug": 1}, [])
    assert "wrong" in caplog.text


@pytest.mark.parametrize("what", ALL[3:])
def test_after_the_proof_a_bug_costs_labels_and_never_the_ping(what: str, caplog: pytest.LogCaptureFixture) -> None:
    app = App(ScriptedSource(**{what: raises(ValueError("wrong"))}))
    assert app.ask(of()).status == 200
    assert (len(app.kept), app.report("test").refused) == (1, {})
    assert "wrong" in caplog.text


def test_what_cannot_be_told_now_is_503(caplog: pytest.LogCaptureFixture) -> None:
    app = App(ScriptedSource(verify=raises(SourceUnready("no certificate yet"))))
    answer = app.ask(of())
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert app.report("test").refused == {"unready": 1}
    assert 'source=test why="no certificate yet"' in caplog.text


def test_an_unauthorized_request_is_told_of_a_scheme_as_http_wants_it() -> None:
    answer = App(ScriptedSource(verify=refusing(401, "wrong signature"))).ask(of())
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "webhook")
    assert json.loads(answer.body) == {"title": "Title", "status": 401, "detail": "Detail."}


@pytest.mark.parametrize(
    ("reason", "skew", "words"),
    [
        (
            "too old",
            -312.4,
            'reason="too old" skew=-312s why="too old by 312 s: the sender\'s or this host\'s clock is',
        ),
        ("too new", 400.0, 'reason="too new" skew=+400s why="too new by 400 s: the sender\'s or this host\'s clock is'),
        ("wrong signature", None, 'reason="wrong signature" why=Detail. sender=192.0.2.7'),
    ],
)
def test_the_log_says_of_which_source_and_why(
    reason: str, skew: float | None, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(ScriptedSource(verify=refusing(401, reason, skew)))
    app.ask(of())
    assert f"refused status=401 source=test kind=scripted {words}" in caplog.text
    found = app.report("test")
    assert (found.refused, found.refused_skew, found.skew) == ({reason: 1}, skew, None)


def test_a_path_token_that_is_wrong_is_as_any_path_that_is_not_here(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = App(ScriptedSource(admit=refusing(404, "path token")))
    answers = [app.ask(of(target=target)) for target in (f"{AT}/{MARKER}", AT, "/hooks/other")]
    assert {(answer.status, answer.body) for answer in answers} == {(404, answers[0].body)}
    assert app.report("test").refused == {"path token": 2}
    # it may be nearly the right one
    assert MARKER not in caplog.text
    assert "path=/hooks/test/***" in caplog.text


def test_a_reason_that_nobody_knows_is_counted_all_the_same() -> None:
    app = App(ScriptedSource(verify=refusing(400, "of a custom source")))
    app.ask(of())
    assert app.report("test").refused == {"other": 1}


def test_secrets_skew_and_labels_are_counted() -> None:
    proofs = iter([Proof(0, 4.0), Proof(1, -9.0), Proof(1, 2.5)])
    unread = Description({}, {}, "", unread=("action", "event_id"))
    app = App(ScriptedSource(verify=lambda _: next(proofs), describe=lambda _: unread))
    app.ask(of())
    first = app.report("test")
    assert first.secrets[0] is not None
    assert first.secrets[1] is None
    app.ask(of())
    app.ask(of())
    found = app.report("test")
    assert (found.skew, found.max_skew, found.unread_labels) == (2.5, -9.0, 6)
    assert None not in found.secrets


def test_a_source_sees_headers_in_lower_case_the_raw_target_and_the_client() -> None:
    source = ScriptedSource()
    App(source).ask(of("POST", "/hooks/test?a=%41&b=+", b"{}", "X-One: a", "X-One: b", "X-Latin: \xe9"))
    seen = source.seen[0]
    assert (seen.method, seen.target, seen.peer) == ("POST", "/hooks/test?a=%41&b=+", "192.0.2.7")
    assert (seen.headers["x-one"], seen.headers["x-latin"]) == ("a, b", "\xe9")
    assert seen.headers["content-type"] == "application/json"
    assert (seen.headers.get("x-none"), seen.headers.get("x-none", ""), "x-none" in seen.headers) == (None, "", False)
    names = {"host", "content-type", "content-length", "x-one", "x-latin"}
    assert (set(seen.headers), len(seen.headers)) == (names, len(names))


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "client"),
    [
        ((), "192.0.2.7", "10.0.0.1", "192.0.2.7"),
        ((), "::ffff:192.0.2.7", "", "192.0.2.7"),
        (("192.0.2.0/24",), "192.0.2.7", "10.0.0.1", "10.0.0.1"),
        (("192.0.2.7",), "192.0.2.7", "6.6.6.6, 10.0.0.1", "10.0.0.1"),
        (("192.0.2.7", "10.0.0.1"), "192.0.2.7", "6.6.6.6, 8.8.8.8,10.0.0.1", "8.8.8.8"),
        (("192.0.2.7",), "192.0.2.7", "", "192.0.2.7"),
        (("192.0.2.7",), "192.0.2.8", "10.0.0.1", "192.0.2.8"),
        (("unix",), "192.0.2.7", "10.0.0.1", "192.0.2.7"),
        (("unix",), "", "10.0.0.1", "10.0.0.1"),
        (("192.0.2.7",), "", "10.0.0.1", ""),
        (("192.0.2.7",), "192.0.2.7", "nonsense", "nonsense"),
    ],
)
def test_the_client_is_who_no_trusted_proxy_is(
    proxies: tuple[str, ...], peer: str, forwarded: str, client: str
) -> None:
    source = ScriptedSource()
    App(source, proxies=proxies, peer=peer).ask(of("POST", AT, b"{}", f"X-Forwarded-For: {forwarded}"))
    assert source.seen[0].peer == client
