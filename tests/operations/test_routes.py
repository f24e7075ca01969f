"""Where a ping would go, from the settings and a saved request alone: no queue, no secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glassq import settings
from glassq.errors import InvalidRequest
from glassq.operations import Operations, routes
from glassq.operations.checks import configuration

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """
[sources.github]
secrets_file = "/nowhere/github"
queue = "builds"
labels = { ref = "json:ref" }
[sources.mirror]
verify_tokens_file = "/nowhere/tokens"
[worker.queues.builds]
[[routes]]
source = "github"
handler = "ci:deploy"
match = { event = "push", ref = ["refs/heads/main", "refs/tags/*"] }
[[routes]]
source = "github"
handler = "ci:review"
match = { event = "pull_request", action = ["opened", "re*"] }
[[routes]]
source = "github"
handler = "ci:never"
match = { topic = "orders/*" }
[[routes]]
source = "mirror"
handler = "glass:store"
collection = "timeline"
name = "photos"
concurrency = 2
"""
PUSH = b'POST /hooks/github HTTP/1.1\r\nX-GitHub-Event: push\r\nX-GitHub-Delivery: 7\r\n\r\n{"ref": "refs/tags/v1"}'
OPENED = PUSH.replace(b"push", b"pull_request").replace(b'"ref": "refs/tags/v1"', b'"action": "reopened"')


@pytest.fixture
def ours(tmp_path: Path) -> Operations:
    file = tmp_path / "glassq.toml"
    file.write_text(TEXT)
    return Operations(settings.load(str(file), {}), actor="ada")


@pytest.mark.parametrize(
    ("data", "handler", "why_not"),
    [
        (PUSH, "ci:deploy", {1: 'event is "push", and must be "pull_request"', 3: "it is for mirror"}),
        (OPENED, "ci:review", {0: 'event is "pull_request", and must be "push"'}),
        (OPENED.replace(b"reopened", b"closed"), "", {1: 'action is "closed", and must be "opened" or "re*"'}),
        (PUSH.replace(b"tags", b"notes"), "", {0: 'ref is "refs/notes/v1", and must be "refs/heads/main" or "refs'}),
        # a body alone has none of the labels that stand in headers
        (b'{"ref": "refs/heads/main"}', "", {0: 'event is not there, and must be "push"'}),
    ],
)
def test_a_saved_ping_says_its_route_and_why_not_the_others(
    ours: Operations, data: bytes, handler: str, why_not: dict[int, str]
) -> None:
    found = routes.trial(ours, "github", data)
    assert (found.chosen.route.handler if found.chosen else "") == handler
    for number, why in why_not.items():
        assert found.tried[number].why_not.startswith(why)
    assert found.tube == "glassq.queue.builds"
    document = found.document()
    assert (document["handler"] or "", len(document["routes"])) == (handler, 4)


def test_the_labels_are_those_that_the_intake_would_make(ours: Operations) -> None:
    found = routes.trial(ours, "github", PUSH)
    assert found.labels == {"event": "push", "event_id": "7", "ref": "refs/tags/v1"}
    mirror = routes.trial(ours, "mirror", b'{"collection": "timeline", "operation": "INSERT"}')
    assert mirror.labels == {"collection": "timeline", "operation": "INSERT"}
    assert mirror.chosen is not None
    assert mirror.tube == "glassq.route.photos"
    document = mirror.chosen.document()
    assert (document["name"], document["tube"], document["limits"]) == ("photos", mirror.tube, {"concurrency": 2})


def test_a_route_whose_labels_no_ping_has_is_named(ours: Operations) -> None:
    rows = routes.listing(ours.settings)
    assert [bool(row.never) for row in rows] == [False, False, True, False]
    assert rows[2].never.startswith("no ping of github has a label topic: it has action, event, event_id, ")


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("usr", 'concurrency_by = "label.usr": no ping of github has a label usr: it has action'),
        ("action", ""),
        ("mine", ""),
    ],
)
def test_a_limit_by_a_label_that_no_ping_has_is_named(label: str, says: str) -> None:
    route = f'[[routes]]\nsource = "github"\nhandler = "ci:handle"\nconcurrency_by = "label.{label}"\n'
    source = '[sources.github]\nsecrets_file = "/nowhere"\nlabels = { mine = "json:mine" }\n'
    found = "\n".join(configuration.problems(settings.parse(source + route, "glassq.toml")))
    assert says in found
    assert says or "concurrency_by" not in found


@pytest.mark.parametrize(
    ("first", "second", "covered"),
    [
        ("", "", True),
        ("", 'match = { event = "push" }', True),
        ('match = { event = "push" }', "", False),
        ('match = { event = ["push", "p*"] }', 'match = { event = ["pull_request", "pu*"], action = "opened" }', True),
        ('match = { event = "push" }', 'match = { event = "pu*" }', False),
        ('match = { event = "push", action = "opened" }', 'match = { event = "push" }', False),
    ],
)
def test_a_route_that_one_before_it_leaves_nothing_is_named(first: str, second: str, covered: bool) -> None:
    route = '[[routes]]\nsource = "github"\nhandler = "ci:handle"\n'
    text = f'[sources.github]\nsecrets_file = "/nowhere"\n{route}{first}\n{route}{second}\n'
    never = routes.listing(settings.parse(text, "glassq.toml"))[1].never
    assert never.startswith("the 1st takes all that it would") is covered
    assert covered or not never


def test_the_route_that_push_adds_may_be_left_nothing() -> None:
    text = '[push]\n[[routes]]\nsource = "push"\nhandler = "ci:handle"\n'
    assert [row.never for row in routes.listing(settings.parse(text, "glassq.toml"))] == ["", ""]


def test_an_unknown_source_and_a_file_that_is_no_request_are_refused(ours: Operations) -> None:
    with pytest.raises(InvalidRequest, match=r"^there is no source gitlab: the settings have github, mirror$"):
        routes.trial(ours, "gitlab", PUSH)
    with pytest.raises(InvalidRequest, match=r"^line 2 is no header"):
        routes.trial(ours, "github", b"POST / HTTP/1.1\nno header\n\n{}")


@pytest.mark.parametrize(
    ("label", "line"), [("event", 'event = "json:PATH" (or'), ("customer", 'labels = { customer = "json:PATH" } (or')]
)
def test_the_line_that_adds_a_missing_label_is_shown(label: str, line: str) -> None:
    source = '[sources.orders]\nkind = "token"\ntoken = "bearer"\nsecrets_file = "/nowhere"\n'
    route = f'[[routes]]\nsource = "orders"\nmatch = {{ {label} = "x" }}\nhandler = "ci:handle"\n'
    [row] = routes.listing(settings.parse(source + route, "glassq.toml"))
    assert (
        row.never
        == f"no ping of orders has a label {label}: it has none; {line} header:NAME) in [sources.orders] adds it"
    )
