"""One filter language for every face."""

from __future__ import annotations

import importlib
import re
import time
from dataclasses import dataclass, field

import pytest

from glassq.causes import Cause
from glassq.delivery import id_of, made_at
from glassq.errors import InvalidRequest
from glassq.operations import follow, replay_plan
from glassq.operations.filters import Filter, Selection, parse

CAUSE = Cause("mirror", "ValueError", "no such item …", "photos.py:store")


@dataclass
class Delivered:
    """What a filter looks at."""

    source: str = "mirror"
    tube: str = "glassq"
    age: float = 60.0
    reason: str = "503 from the API"
    result: str = "stored 2 photos"
    labels: dict[str, str] = field(default_factory=lambda: {"collection": "timeline"})
    handler: str = "app:store"
    cause: Cause = CAUSE


FITS = [
    "error~50[0-9] from",
    "reason~API$",
    "result~photos",
    "source=mirror",
    "label.collection=timeline",
    "handler=app:store",
    f"cause={CAUSE.id}",
    f"cause={CAUSE.id.upper()}",
    "tube=glassq",
    "newer-than=2m",
    "older-than=59s",
    " source = mirror",
    "error~ from",
]
FITS_NOT = [
    "error~404",
    "reason~^API",
    "result~videos",
    "source=push",
    "label.collection=locations",
    "label.other=timeline",
    "handler=app",
    "cause=000000000000",
    "tube=glassq.push.mail",
    "newer-than=1m",
    "older-than=60s",
]


@pytest.mark.parametrize("condition", FITS)
def test_a_condition_that_holds(condition: str) -> None:
    made = parse([condition])
    assert made
    assert made.fits(Delivered())


@pytest.mark.parametrize("condition", FITS_NOT)
def test_a_condition_that_does_not_hold(condition: str) -> None:
    assert not parse([condition]).fits(Delivered())


def test_all_conditions_have_to_hold() -> None:
    assert parse(["error~503", "error~API", "source=mirror"]).fits(Delivered())
    assert not parse(["error~503", "error~nowhere", "source=mirror"]).fits(Delivered())
    assert not parse(["label.collection=timeline", "label.operation=INSERT"]).fits(Delivered())
    assert Filter().fits(Delivered())
    assert not Filter()


@pytest.mark.parametrize(
    ("conditions", "says"),
    [
        (["503"], "condition 503: expected error~REGEX (or reason~REGEX), result~REGEX"),
        (["error~"], "expected error~REGEX"),
        (["error=x"], "expected error~REGEX"),
        (["source~x"], "expected error~REGEX"),
        (["colour~red"], "expected error~REGEX"),
        (["label.=x"], "expected error~REGEX"),
        (["label.a~x"], "expected error~REGEX"),
        (["source.a=x"], "expected error~REGEX"),
        (["error~("], r"condition error~(: not a regular expression"),
        (["older-than=2"], "condition older-than=2: "),
        (["cause=12"], "condition cause=12: expected the 12 hex digits of a cause"),
        (["source=a", "source=b"], "condition source=b: source is given twice"),
    ],
)
def test_a_condition_that_says_nothing_is_refused_by_name(conditions: list[str], says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(conditions)
    assert says in str(caught.value)


def test_conditions_are_added_to_options() -> None:
    made = parse(["error~503"], Filter(source="mirror", older=5.0))
    assert made.conditions == {"error", "source", "older-than"}
    assert parse(["source=mirror"], made) == made
    with pytest.raises(InvalidRequest):
        parse(["source=push"], made)


def test_what_cannot_be_told_somewhere_is_refused_there() -> None:
    made = parse(["cause=000000000000", "source=mirror"])
    made.only({"cause", "source"}, "buried")
    says = "`glassq tail` cannot filter by cause: the ledger does not keep it; it can by: error, source"
    with pytest.raises(InvalidRequest, match=says):
        made.only({"error", "source"}, "tail")


@pytest.mark.parametrize(("command", "conditions"), [("tail", follow.CONDITIONS), ("replay", replay_plan.CONDITIONS)])
def test_the_help_of_a_command_on_the_ledger_offers_what_it_takes(command: str, conditions: frozenset[str]) -> None:
    made = importlib.import_module(f"glassq.cli.commands.{command}")
    (where,) = (option for option in getattr(made, command).params if option.name == "conditions")
    offered = re.findall(r"([a-z-]+)(?:\.NAME)?[~=][A-Z]+", where.help)
    # reason is another word for error
    assert frozenset(offered) - {"reason"} == conditions


@pytest.mark.parametrize(
    "selection",
    [
        Selection(),
        Selection(ids=("a",), everything=True),
        Selection(ids=("a",), filter=Filter(source="x")),
        Selection(ids=("a",), limit=3),
    ],
)
def test_a_selection_is_either_ids_or_a_choice(selection: Selection) -> None:
    with pytest.raises(InvalidRequest):
        selection.check()


def test_a_selection_that_says_which() -> None:
    for selection in (Selection(ids=("a",)), Selection(everything=True, limit=3), Selection(filter=Filter(source="x"))):
        selection.check()


@pytest.mark.parametrize(
    ("condition", "ages", "left"),
    [
        ("newer-than=2h", (10.0, 7_000.0, 9_000.0, 20_000.0), [10.0, 7_000.0, 9_000.0]),
        ("older-than=2h", (10.0, 7_000.0, 9_000.0, 20_000.0), [9_000.0, 20_000.0]),
    ],
)
def test_an_id_tells_which_deliveries_are_too_young_or_too_old(
    condition: str, ages: tuple[float, ...], left: list[float]
) -> None:
    """One that is a little too old by its id may have been received later: that is seen when it is read."""
    wanted = parse([condition]).by_id()
    assert wanted is not None
    ids = {age: id_of(int((time.time() - age) * 1000), 0) for age in ages}
    assert [age for age, key in ids.items() if wanted(key)] == left
    assert parse(["source=mirror"]).by_id() is None


def test_when_an_id_was_made_stands_in_it() -> None:
    assert made_at(id_of(1_796_000_000_123, 7)) == 1_796_000_000.123
