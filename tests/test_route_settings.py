from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glassq.errors import SettingsError
from glassq.policy import Deadlines, Policy, deadlines_of, policy_of
from glassq.settings import Settings, as_toml, options_of, parse, ping_tube, route_tube
from glassq.settings.route import MAX_NAME
from glassq.testing import work
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PUSH = "[push]\n"
URL = "https://example.com/hooks/in?a=b"


def route(*lines: str, source: str = "mirror", handler: str = "m:f") -> str:
    keys = [f'source = "{source}"', *([f'handler = "{handler}"'] if handler else []), *lines]
    return "\n".join(["[[routes]]", *keys]) + "\n"


def read(*routes: str, before: str = "") -> Settings:
    return parse(before + "".join(routes), "my.toml")


# -- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("routes", "names"),
    [
        ([route(handler="glassq.glass.photos:store")], ["mirror-photos-store"]),
        ([route(handler="app.Mirror:on_push")], ["mirror-on-push"]),
        ([route(handler="app.mirror:mirror")], ["mirror-mirror"]),
        ([route(), route(), route('name = "mirror-m-f-2"')], ["mirror-m-f", "mirror-m-f-3", "mirror-m-f-2"]),
        ([route(source="push", handler=URL), PUSH], ["push-example-com-hooks-in"]),
        ([route('steps = ["m:g", "m:h"]', handler="")], ["mirror-m-g"]),
        ([route(handler=f"m:{'f' * 60}")] * 2, [f"mirror-m-{'f' * 31}", f"mirror-m-{'f' * 29}-2"]),
    ],
)
def test_each_route_has_a_name_of_its_own(routes: list[str], names: list[str]) -> None:
    settings = read(*routes)
    assert [found.name for found in settings.routes] == names
    assert max(map(len, names)) <= MAX_NAME
    # the names of `glassq config check` stay what they are
    assert parse(as_toml(settings), "my.toml").routes == settings.routes


# -- mistakes -------------------------------------------------------------------------------------------------------

MISTAKES = [
    (route('name = "A"'), 'name = "A": expected a name of 1 to 40 of a-z 0-9 and -, not - first (line 4)'),
    (route(f'name = "{"a" * 41}"'), "expected a name of 1 to 40"),
    (route('name = "push-tasks"'), 'name = "push-tasks": expected a name that no other route has'),
    (route('name = "a"') + route('name = "a"'), '[[routes]] (1st) name = "a": expected a name that no other route has'),
    (route(handler=""), "missing key [[routes]] (1st) handler"),
    (route("steps = []", handler=""), '[[routes]] (1st) steps = "": expected handlers, such as ["module:function", '),
    (route('steps = ["m:f"]'), '[[routes]] (1st) handler = "m:f": expected no handler beside steps, or no steps'),
    (
        route('steps = ["m.f"]', handler=""),
        '[[routes]] (1st) steps, entry 1 = "m.f": expected "package.module:function", "exec:',
    ),
    (
        route(f'steps = ["{URL}"]', handler=""),
        f'[[routes]] (1st) steps = "{URL}": expected a [push] section, which URLs',
    ),
    (route("max_attempts = 0"), "[[routes]] (1st) max_attempts = 0: expected a whole number, at least 1"),
    (route('deadline = "900ms"'), '[[routes]] (1st) deadline = "900ms": expected at least 1s'),
    (route('backoff = "0s"'), '[[routes]] (1st) backoff = "0s": expected at least 1s'),
    (route('backoff = "7h"'), '[[routes]] (1st) backoff = "7h": expected at most backoff_cap, 6h'),
    (route('backoff_cap = "29s"'), '[[routes]] (1st) backoff_cap = "29s": expected at least backoff, 30s'),
    (route("concurrency = 0"), "[[routes]] (1st) concurrency = 0: expected a whole number, at least 1"),
    (route("concurrency = 4001"), '[[routes]] (1st) concurrency = "4001": expected 1 to 4000'),
    (
        route("concurrency = 1", 'concurrency_by = "user"'),
        '[[routes]] (1st) concurrency_by = "user": expected "label.NAME", such as "label.user"',
    ),
    (route("breaker = 0"), "[[routes]] (1st) breaker = 0: expected a whole number, at least 1"),
    # what may be the secret itself is not said
    (
        route('secret_file = "whsec_1"'),
        '[[routes]] (1st) secret_file = "***": expected none: it is for handlers that are',
    ),
    (route("concurency = 1"), "unknown key [[routes]] (1st) concurency; did you mean concurrency?"),
    # limits of queues
    (
        route("concurrency = 1", source="push") + PUSH,
        '[[routes]] (1st) concurrency = "1": expected none: tasks have the li',
    ),
    (
        route("max_attempts = 1", source="push") + PUSH,
        '[[routes]] (1st) max_attempts = "1": expected none: tasks have the',
    ),
    (
        route("max_attempts = 1", handler=URL) + PUSH,
        '[[routes]] (1st) max_attempts = "1": expected concurrency beside it, and no',
    ),
    (
        route("concurrency = 1", 'queue = "q"', handler=URL) + PUSH,
        '[[routes]] (1st) concurrency = "1": expected none: queue = "q" has its limits in queue.yaml; without queue',
    ),
]


@pytest.mark.parametrize(("text", "says"), MISTAKES)
def test_a_mistake_is_named(text: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(text)
    assert says in str(caught.value)
    assert "whsec" not in str(caught.value)


def test_a_tube_that_leaves_no_room_for_a_routes_name_is_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"expected a shorter one: with \[queue\] tube before it, it has 208 of 200"
    ):
        read(route("concurrency = 1", 'name = "abcdefghijk"'), before=f'[queue]\ntube = "{"t" * 190}"\n')
    read(route('name = "abcdefghijk"'), before=f'[queue]\ntube = "{"t" * 190}"\n')


def test_a_route_whose_parked_deliveries_would_have_too_long_a_tube_is_refused() -> None:
    base = f'[queue]\ntube = "{"t" * 170}"\n'
    for key in ("breaker = 3", 'concurrency_by = "label.user"'):
        with pytest.raises(SettingsError, match="a tube of its parked deliveries has 203 of 200 characters"):
            read(route(key, 'name = "abcdefghijk"'), before=base)
    read(route('name = "abcdefghijk"'), before=base)


# -- limits ---------------------------------------------------------------------------------------------------------


def test_a_missing_limit_is_that_of_the_pool() -> None:
    settings = read(
        route("max_attempts = 2", 'deadline = "20m"'),
        route('backoff = "2s"', 'backoff_cap = "3s"'),
        route('deadline = "2s"'),
        before='[worker]\nmax_attempts = 5\nmax_lost = 4\nbackoff = "9s"\nbackoff_cap = "90s"\n',
    )
    assert policy_of(settings) == Policy(5, 4, 9, 90)
    assert [policy_of(settings, each) for each in settings.routes] == [
        Policy(2, 4, 9, 90),
        Policy(5, 4, 2, 3),
        Policy(5, 4, 9, 90),
    ]
    assert deadlines_of(settings) == Deadlines(570, 600)
    # a short one leaves the handler half of it
    assert [deadlines_of(settings, each) for each in settings.routes] == [
        Deadlines(1170, 1200),
        Deadlines(570, 600),
        Deadlines(1, 2),
    ]
    assert (settings.longest_deadline, settings.lease) == (1200, 1230)


def test_a_route_with_concurrency_has_a_tube_of_its_own_and_pings_go_there() -> None:
    settings = read(
        route("concurrency = 2", 'match = { event = "push" }', 'name = "pushes"'),
        route("concurrency = 2", 'concurrency_by = "label.user"', 'match = { event = "fork" }'),
        route(),
        route("concurrency = 1", 'name = "never"'),
        before='[queue]\ntube = "t"\n[sources.mirror]\nqueue = "q"\n[worker.queues.q]\n',
    )
    assert [route_tube(settings, each) for each in settings.routes] == ["t.route.pushes", "", "", "t.route.never"]
    of_mirror = ping_tube(settings, "mirror")
    tubes = {event: of_mirror({"event": event}) for event in ("push", "fork", "star")}
    assert tubes == {"push": "t.route.pushes", "fork": "t.queue.q", "star": "t.queue.q"}
    # no route wants it
    assert ping_tube(settings, "other")({"event": "push"}) == "t"


# -- what handlers make of them ---------------------------------------------------------------------------------------

HANDLERS = """
from glassq import Retry
from glassq.routes import retry_policy

class Never:
    def after(self, failures, age):
        return None

def fail(delivery, context):
    raise Retry("busy")

@retry_policy(lambda delivery, context: Never())
def fail_once(delivery, context):
    raise Retry("busy")

def tell(delivery, context):
    return {"left": round(context.remaining()), **context.options}

def change(delivery, context):
    context.options["width"] = 2
"""


@pytest.fixture
def handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with these handlers, which no other test has."""
    name = f"handlers_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(HANDLERS)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize(
    ("function", "attempt", "state", "longest"),
    [("fail", 1, "retrying", 2), ("fail", 4, "retrying", 3), ("fail", 5, "buried", 0), ("fail_once", 1, "buried", 0)],
)
def test_a_routes_budget_and_backoff_hold_unless_the_handler_has_a_policy(
    handlers: str, function: str, attempt: int, state: str, longest: float
) -> None:
    text = route("max_attempts = 5", 'backoff = "2s"', 'backoff_cap = "3s"', handler=f"{handlers}:{function}")
    worked = work(None, b"{}", settings=read(text), attempt=attempt)
    assert (worked.state, worked.delay <= longest) == (state, True)


def test_a_handler_has_the_deadline_and_the_options_of_its_route(handlers: str) -> None:
    tell = f"{handlers}:tell"
    settings = read(
        route('deadline = "20m"', 'name = "long"', handler=tell),
        f'[handlers."{tell}"]\nwidth = 1\ndepth = 7\n[handlers.long]\nwidth = 3\n',
    )
    assert work(None, b"{}", settings=settings).result == {"left": 1170, "width": 3, "depth": 7}
    assert work(None, b"{}", settings=settings, options={"height": 4}).result == {"left": 1170, "height": 4}
    changed = work(f"{handlers}:change", b"{}", options={"width": 1})
    assert (changed.state, type(changed.error)) == ("retrying", TypeError)


def test_options_are_read_only_at_any_depth() -> None:
    settings = read(route(), '[handlers."m:f"]\nsizes = [1, { a = [2] }]\n')
    (first,) = settings.routes
    (sizes,) = options_of(settings, first, "m:f").values()
    assert (sizes[0], sizes[1]["a"]) == (1, (2,))
    with pytest.raises(TypeError):
        sizes[1]["a"] = 3


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("photos:stor", 'unknown section [handlers."photos:stor"]; did you mean photos:store? (line 4)'),
        (
            "x",
            'unknown section [handlers."x"]; expected a handler or a route: mirror-photos-store, photos:store, a, m:f',
        ),
    ],
)
def test_options_that_nobody_gets_are_refused(name: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(route(handler="photos:store"), f'[handlers."{name}"]\n', route('name = "a"'))
    assert says in str(caught.value)


def test_the_examples_of_the_documents_are_settings() -> None:
    page = (ROOT / "docs" / "handlers.md").read_text("utf-8")
    limits, own = (
        page.partition(f"\n## {title}\n")[2].partition("\n## ")[0] for title in ("Its limits", "Its own settings")
    )
    text = "\n".join(line.strip() for part in (limits, own) for line in part.splitlines() if line.startswith("    "))
    (invoices,) = read(text, before='[sources.orders]\nkind = "stripe"\n').routes
    settings = read(text)
    assert deadlines_of(settings, invoices) == Deadlines(90, 120)
    assert options_of(settings, invoices, "handlers:invoice")["retries"] == {"slow": 3, "fast": 1}


def test_options_are_shown_without_secrets() -> None:
    text = '[handlers."m:f"]\napi_key = "s3cret-1"\nkey_file = "/etc/k"\nrate = 0.5\nnames = ["a"]\n'
    shown = as_toml(read(route(), text))
    assert "s3cret" not in shown
    assert shown.endswith('"api_key" = "***"\n"key_file" = "/etc/k"\n"rate" = 0.5\n"names" = ["a"]\n')
    assert parse(shown, "my.toml").handlers["m:f"]["rate"] == 0.5
