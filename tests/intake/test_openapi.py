"""docs/openapi.yaml says what glassq-web answers: each request here has its place there, and each place its request."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml

from glassq.errors import SourceUnready
from glassq.intake.report import SOCKET, SourcesReport
from tests.conftest import ROOT, free_port, wait_for
from tests.intake.apps import App, ScriptedSource, raises
from tests.intake.conftest import Web
from tests.intake.wire import Wire, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Beanstalkd
    from tests.intake.wire import Answer

DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text("utf-8"))
METHODS = {"get", "head", "post", "options", "put", "delete", "patch", "trace"}
HOOK, WORD = "/hooks/{name}", "/hooks/{name}/{token}"
TOKEN, PATH_WORD = "a-token-of-this-test", "word-1"
BEARER = f"Authorization: Bearer {TOKEN}"

# Sources beside mirror, by their answers.
SOURCES = """
[sources.own]
kind = "token"
token = "bearer"
secrets_file = "{secrets}"
content_types = ["application/json"]
max_body = "1KiB"
[sources.events]
kind = "cloudevents"
secrets_file = "{secrets}"
[sources.dropbox]
secrets_file = "{secrets}"
[sources.trello]
secrets_file = "{secrets}"
url = "https://hooks.example.com"
[sources.meta]
secrets_file = "{secrets}"
verify_token_file = "{secrets}"
[sources.far]
kind = "none"
allow = ["192.0.2.1"]
[sources.worded]
kind = "none"
path_token_file = "{words}"
"""


class Api:
    """The document, and what was seen of it: `seen` are statuses by path and method."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str], set[int]] = defaultdict(set)

    def check(self, path: str, method: str, answer: Answer) -> None:
        """Fails for an answer that the document does not have."""
        operation = DOCUMENT["paths"][path][method.lower()]
        assert str(answer.status) in operation["responses"], f"{method} {path} answers {answer.status}"
        response = resolved(operation["responses"][str(answer.status)])
        self.seen[path, method.lower()].add(answer.status)
        named = {name.lower() for name in response.get("headers", {})}
        assert named <= set(answer.headers), f"{answer.status}: {answer.headers}"
        if answer.body:
            kind = answer.headers["content-type"]
            assert kind in response["content"], f"{method} {path} answers {answer.status} with {kind}"
            if "json" in kind:
                matches(json.loads(answer.body), response["content"][kind]["schema"])


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """What a $ref leads to."""
    while "$ref" in node:
        found: Any = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def matches(value: object, schema: dict[str, Any]) -> None:
    """Fails for a value that is not of the schema, as far as this document's schemas go."""
    schema = resolved(schema)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    assert not kinds or any(isinstance(value, TYPES[kind]) for kind in kinds), f"{value!r} is not {kinds}"
    if isinstance(value, dict):
        fields, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
        assert set(schema.get("required", [])) <= set(value)
        for name, member in value.items():
            assert name in fields or rest, f"{name} is not in the schema"
            matches(member, fields.get(name, rest if isinstance(rest, dict) else {}))
    for member in value if isinstance(value, list) else ():
        matches(member, schema.get("items", {}))


@pytest.fixture
def web(tmp_path: Path, beanstalkd: Beanstalkd) -> Iterator[Web]:
    secrets, words, runtime = tmp_path / "secrets", tmp_path / "words", tmp_path / "run"
    secrets.write_text(TOKEN + "\n")
    words.write_text(PATH_WORD + "\n")
    runtime.mkdir()
    more = f'[bodies]\nurl = "file://{tmp_path / "bodies"}"\n[metrics]\nintake = "127.0.0.1:{free_port()}"\n'
    more += SOURCES.format(secrets=secrets, words=words)
    under = ("env", f"RUNTIME_DIRECTORY={runtime}")
    server = Web(
        tmp_path / "web", beanstalkd.url, queue=more, under=under, request_timeout="1s", trusted_proxies=["127.0.0.1"]
    )
    server.wait_ready()
    yield server
    server.stop()


def of(method: str, target: str, *headers: str, payload: bytes = b"", **more: Any) -> bytes:
    return request(payload, *headers, line=f"{method} {target} HTTP/1.1", **more)


# method, the target behind /hooks, headers and more, the status
ASKED: list[tuple[str, str, tuple[str, ...], dict[str, Any], int]] = [
    ("POST", "/own", (BEARER,), {"payload": b"{}"}, 200),
    ("POST", "/events", (BEARER,), {"payload": b"{}"}, 202),
    ("POST", "/own", (BEARER,), {}, 400),
    ("POST", "/own", (), {"payload": b"{}"}, 401),
    ("POST", "/far", (), {"payload": b"{}"}, 403),
    ("POST", "/nobody", (), {"payload": b"{}"}, 404),
    ("POST", "/own", (BEARER,), {"length": ...}, 411),
    ("POST", "/own", (BEARER,), {"length": 2000}, 413),
    ("POST", "/own?" + "x" * 9000, (), {}, 414),
    ("POST", "/own", (BEARER,), {"payload": b"{}", "kind": "text/plain"}, 415),
    ("POST", "/own", ("Expect: a-miracle",), {"payload": b"{}"}, 417),
    ("POST", "/own", ("X-Large: " + "x" * 70000,), {"payload": b"{}"}, 431),
    ("POST", "/own", (BEARER,), {"length": 5}, 408),
    ("GET", "/dropbox?challenge=abc", (), {"length": ...}, 200),
    ("GET", "/dropbox?challenge=%0a", (), {"length": ...}, 400),
    ("GET", "/meta?hub.mode=subscribe&hub.challenge=1&hub.verify_token=x", (), {"length": ...}, 403),
    ("GET", "/nobody", (), {"length": ...}, 404),
    ("GET", "/own", (), {"length": ...}, 405),
    ("GET", "/dropbox", (), {"length": 1 << 24}, 413),
    ("HEAD", "/trello", (), {"length": ...}, 200),
    ("HEAD", "/own", (), {"length": ...}, 405),
    ("OPTIONS", "/events", ("WebHook-Request-Origin: a.example",), {"length": ...}, 200),
    ("OPTIONS", "/own", (), {"length": ...}, 405),
    ("POST", f"/worded/{PATH_WORD}", (), {"payload": b"{}"}, 200),
    ("POST", "/worded/other", (), {"payload": b"{}"}, 404),
    ("GET", f"/worded/{PATH_WORD}", (), {"length": ...}, 405),
]


def test_each_answer_is_in_the_document_and_each_status_there_was_answered(web: Web, tmp_path: Path) -> None:
    api = Api()
    for method, target, headers, more, status in ASKED:
        with web.wire() as wire:
            answer = wire.ask(of(method, f"/hooks{target}", *headers, **more), headless=method == "HEAD")
        assert answer.status == status, f"{method} {target[:40]}: {answer}"
        api.check(WORD if target.startswith("/worded/") else HOOK, method, answer)
    for path in ("/healthz", "/readyz"):
        wait_for(lambda path=path: web.ask(of("GET", path, length=...)).status == 200, path)
        api.check(path, "GET", web.ask(of("GET", path, length=...)))
    for path in ("/metrics", "/sources"):
        api.check(path, "GET", web.ask(of("GET", path, length=...)))
    with Wire(str(tmp_path / "run" / SOCKET)) as wire:
        api.check("/sources", "GET", wire.ask(of("GET", "/sources", length=...)))
    port = int(web.file.read_text().partition('[metrics]\nintake = "127.0.0.1:')[2].partition('"')[0])
    with Wire(("127.0.0.1", port)) as wire:
        api.check("/metrics", "GET", wire.ask(of("GET", "/metrics", length=...)))
    # of a source that waits for a key; and what no request reaches here without a signature
    unready = App(ScriptedSource(verify=raises(SourceUnready("no key yet"))))
    api.check(HOOK, "POST", unready.ask(of("POST", "/hooks/test", payload=b"{}")))
    assert documented(HOOK, "post") - api.seen[HOOK, "post"] == {204}
    assert {(path, method) for path in DOCUMENT["paths"] for method in operations(path)} - set(api.seen) == {
        (WORD, "head"),
        (WORD, "options"),
    }


def operations(path: str) -> set[str]:
    return METHODS & set(DOCUMENT["paths"][path])


def documented(path: str, method: str) -> set[int]:
    return {int(status) for status in DOCUMENT["paths"][path][method]["responses"]}


def test_a_method_that_is_not_in_the_document_is_not_allowed() -> None:
    app = App(ScriptedSource(methods=frozenset({"POST", "GET", "HEAD", "OPTIONS"})))
    for method in METHODS - operations(HOOK):
        assert app.ask(of(method.upper(), "/hooks/test", length=...)).status == 405


def test_the_examples_are_of_their_schemas() -> None:
    examples = [
        (content["example"], content["schema"])
        for path, item in DOCUMENT["paths"].items()
        for method in operations(path)
        for response in item[method]["responses"].values()
        for content in resolved(response).get("content", {}).values()
        if "example" in content
    ]
    assert len(examples) > 10
    for example, schema in examples:
        matches(example, schema)
    with pytest.raises(AssertionError):
        matches({"title": 1, "status": 400}, {"$ref": "#/components/schemas/Problem"})
    with pytest.raises(AssertionError):
        matches({"title": "x", "status": 400, "more": 1}, {"$ref": "#/components/schemas/Problem"})


def test_the_report_of_sources_has_the_fields_of_the_program() -> None:
    _, made = msgspec.json.schema_components([SourcesReport], ref_template="#/components/schemas/{name}")
    for name, struct in made.items():
        written = DOCUMENT["components"]["schemas"][name]
        assert set(written["properties"]) == set(struct["properties"])
        assert sorted(written["required"]) == sorted(struct["required"])
        for field, schema in struct["properties"].items():
            default = json.loads(json.dumps(schema.get("default", "none")))
            assert written["properties"][field].get("default", "none") == default, field


def test_every_reference_leads_somewhere() -> None:
    def references(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            if "$ref" in node:
                yield node
            node = list(node.values())
        for each in node if isinstance(node, list) else ():
            yield from references(each)

    found = list(references(DOCUMENT))
    assert len(found) > 20
    for node in found:
        assert resolved(node)
