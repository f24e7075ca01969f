"""The options that say which deliveries a command is for, as one Selection."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from glassq.cli.completion import buried_ids, sources, tubes
from glassq.errors import InvalidRequest
from glassq.operations.filters import FORMS, Filter, Selection, duration, parse

if TYPE_CHECKING:
    from collections.abc import Callable

_GROUP = "Only of this cause: an id that `glassq buried --by reason` shows."


def _only(_: click.Context, option: click.Parameter, values: tuple[Any, ...]) -> Any:
    if len(values) > 1:
        raise InvalidRequest(f"{option.opts[0]} is given {len(values)} times: expected it once")
    return values[0] if values else None


def once(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    """An option that decides which deliveries are meant: given twice it is refused, where click takes the last."""
    return click.option(*names, multiple=True, callback=_only, **attributes)


_FILTERS = (
    once("--tube", metavar="TUBE", shell_complete=tubes, help="Only in this tube."),
    once("--older-than", metavar="DURATION", help='Only those received longer ago than this: "2d".'),
    once("--newer-than", metavar="DURATION", help='Only those received within this time: "2h".'),
    once("--source", metavar="SOURCE", shell_complete=sources, help='Only from this source: "mirror".'),
)
# What the ledger does not keep; and beside it, what `glassq tail` does not read of it.
_NOT_RECORDED = frozenset({"cause", "words"})
_NOT_TOLD = frozenset({"cause", "words", "label", "handler"})


def selection(
    *,
    ids: bool = True,
    everything: str = "",
    order: str = "newest",
    recorded: bool = False,
) -> Callable[[Any], Any]:
    """Gives a command the options, and their values as one Selection, named `selection`.

    `everything` is the help of --all ("": the command has none), and `order` says which of those that fit come first.
    `recorded`: the ledger is searched, which knows no causes. A command with `ids` calls `Selection.check`. One that is
    not about buried deliveries has an argument named ids of its own instead.
    """
    options: list[Callable[[Any], Any]] = [
        *_FILTERS,
        _where(_NOT_RECORDED if recorded else frozenset()),
        _group(recorded),
    ]
    if everything:
        options.append(click.option("--all", "everything", is_flag=True, help=everything))
    if ids:
        options.append(click.argument("ids", metavar="[ID]...", nargs=-1, shell_complete=buried_ids))
    bounds = click.IntRange(1, 1_000_000)
    help_ = f"At most N of those that fit, the {order} first."
    options.insert(0, once("--limit", metavar="N", type=bounds, help=help_))

    def add(command: Any) -> Any:
        @functools.wraps(command)
        def gathered(*args: Any, **values: Any) -> Any:
            asked = _take_filter(values)
            chosen = {name: values.pop(name) for name in ("ids", "everything", "limit") if name in values}
            return command(*args, selection=replace(Selection(filter=asked), **chosen), **values)

        made: Any = gathered
        for option in options:
            made = option(made)
        return made

    return add


def filters(command: Any) -> Any:
    """Gives a command on the ledger the options of a filter alone, and their values as one Filter, named `filter_`."""

    @functools.wraps(command)
    def gathered(*args: Any, **values: Any) -> Any:
        return command(*args, filter_=_take_filter(values), **values)

    made: Any = gathered
    for option in (*_FILTERS, _where(_NOT_TOLD), _group(recorded=True)):
        made = option(made)
    return made


def _where(without: frozenset[str] = frozenset()) -> Callable[[Any], Any]:
    offered = ", ".join(form for name, form in FORMS.items() if name not in without)
    help_ = f"Only where this holds: {offered}. Given several times, all must hold."
    return click.option("--where", "conditions", multiple=True, metavar="CONDITION", help=help_)


def _group(recorded: bool) -> Callable[[Any], Any]:
    # Where the ledger is searched the option is taken, and refused in words, but not offered.
    return once("--group", metavar="ID", hidden=recorded, help=_GROUP)


def _take_filter(values: dict[str, Any]) -> Filter:
    """Takes the options of a filter out of `values`. Raises InvalidRequest."""
    older, newer, group = (values.pop(name) for name in ("older_than", "newer_than", "group"))
    asked = Filter(
        source=values.pop("source"),
        tube=values.pop("tube"),
        older=None if older is None else duration("--older-than", older),
        newer=None if newer is None else duration("--newer-than", newer),
    )
    return parse([*values.pop("conditions"), *([f"cause={group}"] if group else [])], asked)
