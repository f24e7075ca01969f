"""`glassq completion`, and the words that a shell completes to.

A shell asks at each TAB, so nothing here may fail, print or hang: what is not known in time is not offered.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, get_completion_class

from glassq.causes import reason
from glassq.cli.app import App
from glassq.cli.output import line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# How long a completion waits for the ledger or the queue, in seconds.
COMPLETE_WITHIN = 0.3
# How many ids are offered, as many as fit on a screen; and how many of the jobs buried last are searched for a prefix.
OFFERED, LOOKED_AT = 50, 1000
# Descriptions stand beside an id.
_WORDS = 60


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that lets a shell complete glassq's commands, options, ids and tubes.

    An installed glassq has it in place already. Elsewhere, for the shell that runs:

    \b
      bash, zsh:  eval "$(glassq completion bash)"
      fish:       glassq completion fish | source
    """
    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(context.find_root().command, {}, "glassq", "_GLASSQ_COMPLETE")
    # not made.source(): for bash that starts one, to look how old it is
    script = made.source_template % made.source_vars()
    # fish: a description goes on after a comma
    click.echo(script.replace('(string split "," ', '(string split --max 1 "," '), nl=False)


def buried_ids(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Ids of buried deliveries, as the ledger knows them, with their reasons."""
    typed = set(context.params.get("ids") or ())

    def look(app: App) -> Iterable[CompletionItem]:
        with app.operations.ledger() as ledger:
            entries = ledger.recent(LOOKED_AT, "buried")
        fits = (each for each in entries if each.delivery.startswith(incomplete.lower()) and each.delivery not in typed)
        return (
            CompletionItem(each.delivery, help=line(reason(each.reason))[:_WORDS]) for each in islice(fits, OFFERED)
        )

    return _in_time(context, look)


def tubes(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Our tubes that exist now: the main one, and those of queues."""

    def look(app: App) -> Iterable[CompletionItem]:
        from glassq.operations.find import our_tubes

        with app.operations.queue() as queue:
            queue.set_deadline(time.monotonic() + COMPLETE_WITHIN)
            return [CompletionItem(name) for name in our_tubes(app.operations, queue) if name.startswith(incomplete)]

    return _in_time(context, look)


def files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Whatever files the shell finds."""
    return [CompletionItem(incomplete, type="file")]


def push_queues(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The push queues of queue.yaml."""
    return _in_time(context, lambda app: [CompletionItem(name) for name in _pushed(app) if name.startswith(incomplete)])


def queues(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The push queues, and the queues of [worker.queues]."""

    def look(app: App) -> Iterable[CompletionItem]:
        names = dict.fromkeys([*app.settings.worker.queues, *_pushed(app)])
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    return _in_time(context, look)


def _pushed(app: App) -> Iterable[str]:
    from glassq.push.queue_yaml import load

    push = app.settings.push
    return load(push.queue_yaml, push.targets) if push else ()


def sources(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The sources that the settings name."""

    def look(app: App) -> Iterable[CompletionItem]:
        settings = app.settings
        named = {*settings.sources, *(route.source for route in settings.routes)} | (
            {"push"} if settings.push else set()
        )
        return [CompletionItem(name) for name in sorted(named) if name.startswith(incomplete)]

    return _in_time(context, look)


def schedules(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The schedules of the settings."""

    def look(app: App) -> Iterable[CompletionItem]:
        from glassq.schedules.opening import schedules_of

        return [CompletionItem(each.name) for each in schedules_of(app.settings) if each.name.startswith(incomplete)]

    return _in_time(context, look)


def kinds(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The kinds of sources, with their titles."""
    from glassq.sources.presets import PRESETS

    return [CompletionItem(name, help=row.title) for name, row in PRESETS.items() if name.startswith(incomplete)]


def events(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The events of which there is a sample for the source that was typed."""

    def look(app: App) -> Iterable[CompletionItem]:
        from glassq.sources import samples

        name = context.params.get("name") or ""
        section = app.settings.sources.get(name)
        found = samples.events(section.kind_of(name)) if section else ()
        return [CompletionItem(event) for event in found if event.startswith(incomplete)]

    return _in_time(context, look)


def _in_time(context: click.Context, look: Callable[[App], Iterable[CompletionItem]]) -> list[CompletionItem]:
    """What `look` finds within COMPLETE_WITHIN; nothing if it fails, whatever the error."""
    app = replace(context.find_object(App) or App(None, {}), config=context.find_root().params.get("config"))
    found: list[CompletionItem] = []

    def run() -> None:
        with suppress(Exception):
            found.extend(look(app))

    logging.disable()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(COMPLETE_WITHIN)
    return list(found)
