from __future__ import annotations

import importlib
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from glassq import delivery as envelope
from glassq import loading, routes
from glassq.errors import SettingsError
from glassq.handlers.program import programs
from glassq.handlers.steps import in_steps
from glassq.loading import Makers
from glassq.routes import Context, Destination, marks_of
from glassq.settings import Route, Settings, as_toml, parse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HANDLERS = """
import functools

def one(delivery): return "one"
def two(delivery, context): return "two" if context else "none"
def with_option(delivery, *, colour="green"): return colour
def anything(*arguments): return str(len(arguments))
def none(): ...
def three(delivery, context, more): ...
async def later(delivery):
    return "later"
def pieces(delivery): yield "a"
class Callable:
    def __call__(self, delivery): return "called"
called = Callable()
partly = functools.partial(two, context=True)
number = 7
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "handlers_here.py").write_text(HANDLERS)
    before = sys.path[:]
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop("handlers_here", None)


def settings_of(home: Path, *made: str) -> Settings:
    return parse("".join(f"[[routes]]\n{text}\n" for text in made), str(home / "glassq.toml"))


def route(function: str, source: str = "mirror", **labels: str) -> str:
    pairs = {"source": source, "handler": f"handlers_here:{function}", **labels}
    return "\n".join(f'{key} = "{value}"' for key, value in pairs.items())


def works(loaded: routes.Routes, source: str = "mirror", **labels: str) -> Any:
    delivery = envelope.new(source, b"{}", labels)
    found = loaded.match(delivery)
    return found and routes.call(found.handler, delivery, Context(Settings()))


def endpoint(route: Route) -> Destination:
    """What a URL comes to in these tests: a handler that says it."""
    return Destination(route, lambda _delivery, _context: f"POST {route.handler}", tube=route.queue or "default")


def load(settings: Settings) -> routes.Routes:
    return loading.load(settings, Makers(endpoint, programs(settings, {}), in_steps))


@pytest.mark.parametrize(
    ("function", "result"),
    [
        ("one", "one"),
        ("two", "two"),
        ("with_option", "green"),
        ("anything", "2"),
        ("called", "called"),
        ("partly", "two"),
        ("later", "later"),
    ],
)
def test_a_handler_beside_the_settings_gets_what_it_takes(home: Path, function: str, result: str) -> None:
    assert works(load(settings_of(home, route(function)))) == result


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("none", "expected a function of (delivery) or (delivery, context)"),
        ("three", "expected a function of (delivery) or (delivery, context)"),
        ("number", "expected a function of (delivery) or (delivery, context)"),
        ("pieces", "expected a function without yield"),
        ("nowhere", "cannot be imported: AttributeError"),
    ],
)
def test_what_cannot_work_a_delivery_is_refused_at_the_start(home: Path, function: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(settings_of(home, route("one"), route(function)))
    where = f'{home / "glassq.toml"}: [[routes]] (2nd) handler = "handlers_here:{function}": '
    assert str(caught.value).startswith(where)
    assert says in str(caught.value)


def test_a_module_that_fails_is_refused_with_its_error(home: Path) -> None:
    (home / "handlers_here.py").write_text("1 / 0\n")
    with pytest.raises(SettingsError, match="cannot be imported: ZeroDivisionError: division by zero"):
        load(settings_of(home, route("one")))


def test_the_first_route_that_matches_wins(home: Path) -> None:
    loaded = load(
        settings_of(
            home,
            route("one", collection="timeline", operation="INSERT"),
            route("two", collection="timeline"),
            route("called", collection="settings"),
        )
    )
    assert works(loaded, collection="timeline", operation="INSERT") == "one"
    assert works(loaded, collection="timeline", operation="DELETE") == "two"
    assert works(loaded, collection="timeline") == "two"
    assert works(loaded, collection="locations") is None
    assert works(loaded, collection="settings") == "called"
    assert works(loaded, source="unknown") is None


@pytest.mark.parametrize(
    ("match", "labels", "taken"),
    [
        ('{event = "push"}', {"event": "push"}, True),
        ('{event = "push"}', {"event": "push", "action": "x"}, True),
        ('{event = "push"}', {"event": "pushed"}, False),
        ('{event = "push"}', {"event": "Push"}, False),
        ('{event = "push"}', {}, False),
        ('{event = "invoice.*"}', {"event": "invoice.paid"}, True),
        ('{event = "invoice.*"}', {"event": "invoice."}, True),
        ('{event = "invoice.*"}', {"event": "invoice"}, False),
        ('{event = "*"}', {"event": "anything"}, True),
        ('{event = "*"}', {}, False),
        ('{event = "issues", action = ["opened", "re*"]}', {"event": "issues", "action": "opened"}, True),
        ('{event = "issues", action = ["opened", "re*"]}', {"event": "issues", "action": "reopened"}, True),
        ('{event = "issues", action = ["opened", "re*"]}', {"event": "issues", "action": "closed"}, False),
        ('{event = "issues", action = ["opened", "re*"]}', {"event": "issues"}, False),
        ('{event = "issues", action = ["opened", "re*"]}', {"event": "push", "action": "opened"}, False),
        ('{ref = "refs/heads/*"}\ncollection = "timeline"', {"ref": "refs/heads/a", "collection": "timeline"}, True),
        ('{ref = "refs/heads/*"}\ncollection = "timeline"', {"ref": "refs/heads/a"}, False),
    ],
)
def test_a_route_takes_pings_whose_labels_are_what_it_wants(
    home: Path, match: str, labels: dict[str, str], taken: bool
) -> None:
    settings = settings_of(home, f"{route('one')}\nmatch = {match}")
    assert (works(load(settings), **labels) == "one") is taken
    # what operations and the pool ask is the same
    assert settings.routes[0].wants("mirror", labels) is taken
    assert parse(as_toml(settings), settings.file).routes == settings.routes


def test_settings_without_a_route_are_refused(home: Path) -> None:
    with pytest.raises(SettingsError, match=r"no \[\[routes\]\]: expected at least one"):
        load(settings_of(home))


def test_a_handler_may_be_a_url_beside_functions(home: Path) -> None:
    text = f'[push]\n[[routes]]\n{route("one", collection="timeline")}\n[[routes]]\nsource = "mirror"\n'
    settings = parse(text + 'handler = "http://127.0.0.1:8080/task"\nqueue = "slow"\n', str(home / "glassq.toml"))
    loaded = load(settings)
    assert works(loaded, collection="timeline") == "one"
    assert works(loaded, collection="locations") == "POST http://127.0.0.1:8080/task"
    found = loaded.match(envelope.new("mirror", b"{}", {"collection": "locations"}))
    assert found is not None
    assert found.tube == "slow"


def test_tasks_have_a_route_of_their_own_where_there_is_a_push_section(home: Path) -> None:
    loaded = load(parse("[push]\n", str(home / "glassq.toml")))
    found = loaded.match(envelope.new("push", b"", {}))
    assert found is not None
    assert found.route.handler == "glassq.push.dispatch:post"
    assert works(load(settings_of(home, route("one"))), source="push") is None


def test_a_route_of_ones_own_for_tasks_comes_first(home: Path) -> None:
    text = f"[push]\n[[routes]]\n{route('one', source='push')}\n"
    assert works(load(parse(text, str(home / "glassq.toml"))), source="push") == "one"


@pytest.mark.parametrize(
    ("queue", "url", "result"),
    [
        ("mail", "/send", "one"),
        ("mail", "/send?a=b", "one"),
        ("mail", "/sender", "two"),
        ("mail", "/", "two"),
        ("photos", "/photos/17", "called"),
        ("photos", "/photos/?url=/send", "called"),
        ("default", "/photos/17/small", "called"),
        ("default", "/photos", "nobody"),
        ("default", "/Photos/17", "nobody"),
        ("default", "/a?b=/photos/", "nobody"),
        ("mailer", "/send", "nobody"),
    ],
)
def test_routes_of_tasks_match_their_queue_and_the_path_of_their_url(
    home: Path, queue: str, url: str, result: str
) -> None:
    mine = [
        route("one", "push", queue="mail", url="/send"),
        route("two", "push", queue="mail"),
        route("called", "push", url="/photos/*"),
    ]
    loaded = load(settings_of(home, *mine))
    assert (works(loaded, "push", queue=queue, url=url) or "nobody") == result


def test_a_pings_route_names_a_queue_and_does_not_match_it(home: Path) -> None:
    text = '[push]\n[[routes]]\nsource = "mirror"\nhandler = "http://127.0.0.1:8080/task"\nqueue = "slow"\n'
    loaded = load(parse(text, str(home / "glassq.toml")))
    assert works(loaded) == "POST http://127.0.0.1:8080/task"


def test_deferred_calls_have_a_route_behind_all_others_where_a_module_is_named(home: Path) -> None:
    labels = {"queue": "default", "task": "t", "url": "/_ah/queue/deferred"}

    def found(text: str) -> str:
        match = load(parse(text, str(home / "glassq.toml"))).match(envelope.new("push", b"", labels))
        assert match is not None
        return match.route.handler

    named = '[push]\ndeferred = ["handlers_here"]\n'
    assert found(named) == "glassq.push.deferred:handle"
    assert found("[push]\n") == "glassq.push.dispatch:post"
    assert found(f"{named}[[routes]]\n{route('one', 'push')}\n") == "handlers_here:one"
    labels["url"] = "/_ah/queue/deferred/more"
    assert found(named) == "glassq.push.dispatch:post"


def test_what_a_handler_of_one_argument_is_marked_with_stays(home: Path) -> None:
    (home / "handlers_here.py").write_text(
        "from glassq.routes import requires, retry_policy\n"
        "@retry_policy(lambda delivery, context: 7)\n@requires(lambda settings: 1 / 0)\ndef one(delivery): ...\n"
    )
    loaded = load(settings_of(home, route("one")))
    found = loaded.match(envelope.new("mirror", b"{}", {}))
    assert found is not None
    assert found.retry_policy(envelope.new("mirror", b"{}", {}), Context(Settings())) == 7
    # what a handler needs and cannot be made yet is tried again with its first delivery
    loaded.prepare(Context(Settings()))


def test_what_is_made_once_is_made_once_in_a_context() -> None:
    context, made = Context(Settings()), []

    def client(settings: Settings) -> object:
        made.append(settings)
        return object()

    assert context.resource(client) is context.resource(client)
    assert len(made) == 1
    assert Context(Settings()).resource(client) is not context.resource(client)


def test_the_old_names_of_the_handlers_api_work_for_one_more_release(home: Path) -> None:
    (home / "handlers_here.py").write_text(
        "from glassq.routes import needs, retried_by\n"
        "def client(settings): return [settings]\n"
        "@retried_by(lambda delivery, context: 7)\n@needs(client)\ndef one(delivery, context):\n"
        "    return {'same': context.once(client) is context.resource(client)}\n"
    )
    found = load(settings_of(home, route("one"))).match(envelope.new("mirror", b"{}", {}))
    assert found is not None
    context = Context(Settings())
    assert marks_of(found.handler).requires is importlib.import_module("handlers_here").client
    assert found.retry_policy(envelope.new("mirror", b"{}", {}), context) == 7
    assert found.work(envelope.new("mirror", b"{}", {}), context) == {"same": True}
    context.keep(len, 5)
    assert (context.once(len), context.resource(len)) == (5, 5)


def test_a_client_that_cannot_be_made_is_tried_again() -> None:
    context, calls = Context(Settings()), []

    def client(_: Settings) -> str:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("not yet")
        return "made"

    with pytest.raises(OSError, match="not yet"):
        context.resource(client)
    assert context.resource(client) == "made"


def test_a_handler_can_ask_how_long_it_has() -> None:
    context = Context(Settings())
    assert context.remaining() == float("inf")
    context.deadline = time.monotonic() + 100
    assert 0 < context.remaining() <= 100
    context.deadline = time.monotonic() - 1
    assert context.remaining() == 0
